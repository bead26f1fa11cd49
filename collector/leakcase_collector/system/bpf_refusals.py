"""From a refusal of bpf(2) or perf_event_open(2) to one of the collector's exceptions, with why."""

from __future__ import annotations

import errno
import os

from leakcase_collector.errors import (
    CollectorError,
    LimitReached,
    NotPermitted,
    NotSupported,
    TargetGone,
)

#: Bits of CapEff in proc_pid_status(5), as in include/uapi/linux/capability.h; the two younger
#: ones exist since Linux 5.8 and take the place of CAP_SYS_ADMIN here.
_CAP_SYS_ADMIN, _CAP_PERFMON, _CAP_BPF = 21, 38, 39
_LOCKDOWN = "/sys/kernel/security/lockdown"


def with_detail(error: CollectorError, gap_detail: str) -> CollectorError:
    """The same error, bearing the word of the vocabulary ``gap_detail`` that a Gap is to say."""
    error.gap_detail = gap_detail
    return error


def refused(error: OSError, what: str, gap_detail: str) -> CollectorError:
    """The exception for `error`, met when the kernel was asked to `what` (an infinitive)."""
    cause = os.strerror(error.errno or 0)
    made: CollectorError
    if error.errno in (errno.EPERM, errno.EACCES):
        made = NotPermitted(f"cannot {what}: {_why_not_permitted(cause)}")
    elif error.errno == errno.ESRCH:
        made = TargetGone(
            f"cannot {what}: the process is gone. Choose a running one; what was recorded is kept."
        )
    elif error.errno in (errno.ENOMEM, errno.E2BIG, errno.EMFILE, errno.ENFILE, errno.ENOSPC):
        made = LimitReached(
            f"cannot {what}: a limit of this host is used up ({cause}). Raise it (ulimit -n, "
            "memory of the control group), or do without tracing."
        )
    else:
        made = NotSupported(
            f"cannot {what}: this kernel does not offer it ({cause}). "
            "Use a newer kernel, or do without tracing."
        )
    return with_detail(made, gap_detail)


def _why_not_permitted(cause: str) -> str:
    lockdown = lockdown_mode()
    if lockdown:
        return (
            f"the kernel is locked down ({lockdown}, kernel_lockdown(7)). "
            "Do without tracing on this host."
        )
    fields = _own_status()
    capabilities = int(fields.get("CapEff", "0"), 16)
    able = capabilities >> _CAP_SYS_ADMIN & 1 or (
        capabilities >> _CAP_BPF & 1 and capabilities >> _CAP_PERFMON & 1
    )
    if not able:
        return (
            "it needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN. "
            "Run as root, or do without tracing."
        )
    if fields.get("Seccomp", "0") != "0":
        return (
            f"a seccomp filter of this container refuses it ({cause}). Run on the host itself, "
            "or let the container's profile allow bpf and perf_event_open."
        )
    return (
        f"the kernel refused ({cause}) though the capabilities are there; a container's user "
        "namespace or a security module may be why. Run on the host itself, or do without tracing."
    )


def lockdown_mode() -> str | None:
    """Integrity or "confidentiality; None where the kernel is not locked down, or has no such."""
    try:
        with open(_LOCKDOWN, encoding="ascii") as file:
            chosen = file.read().partition("[")[2].partition("]")[0]
    except OSError:
        return None
    return None if chosen in ("", "none") else chosen


def _own_status() -> dict[str, str]:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        pairs = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in pairs}
