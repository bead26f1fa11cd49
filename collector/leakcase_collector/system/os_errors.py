"""From an errno to the collector's few exceptions: the one translation."""

from __future__ import annotations

import errno
import os
import re

from leakcase_collector.errors import (
    CollectorError,
    LimitReached,
    NotPermitted,
    NotSupported,
    TargetGone,
)
from leakcase_collector.system.signals import process_exists

#: ``/proc/PID`` and anything below it; the second group is set for ``/proc/PID/task/TID``.
PROCESS_PATH = re.compile(r"/proc/(\d+)(?:/task/(\d+))?(?:/|$)")

_REFUSED = (errno.EACCES, errno.EPERM)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG)
_NOT_OFFERED = (
    errno.ENOENT,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENODEV,
    errno.ENXIO,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)


def printable(text: str) -> str:
    """`text` with everything that could drive a terminal shown as an escape.

    Paths come from the target; a sentence that quotes one must not carry its control characters.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def translated(
    error: OSError, path: str, proc: str = "/proc", is_kept: bool = False
) -> CollectorError:
    """The exception for `error`, met at `path` (a path as on a real machine).

    `proc` is where /proc is really mounted or recorded: it tells a process that ended (TargetGone)
    from a file that this kernel does not offer, or a thread or descriptor that ended while its
    process lives (both NotSupported; whoever walks a listing skips those). `is_kept`: the error
    came from a descriptor opened earlier, which knows its process though the number may be reused.
    """
    shown = printable(path)
    cause = os.strerror(error.errno) if error.errno else str(error)
    process = PROCESS_PATH.match(path)
    if error.errno in _REFUSED:
        return NotPermitted(
            f"cannot read {shown}: the kernel refused ({cause}). "
            f"{_who_may(bool(process))}, or do without this source."
        )
    if process and error.errno in (errno.ENOENT, errno.ESRCH):
        pid = int(process.group(1))
        if is_kept and error.errno == errno.ESRCH and process.group(2) is None:
            return _gone(shown, pid)
        return _missing_of_process(error.errno, shown, pid, proc)
    if error.errno in _EXHAUSTED:
        return LimitReached(
            f"cannot read {shown}: a limit of this host is used up ({cause}). "
            "Raise it (ulimit -n, memory), or run again when the host is less busy."
        )
    if error.errno in _NOT_OFFERED:
        return NotSupported(
            f"cannot read {shown}: it is not offered here ({cause}). "
            "Nothing is wrong with the capture; this source stays unseen."
        )
    return CollectorError(f"cannot read {shown}: {cause}. Try again, or do without this source.")


def _who_may(is_of_process: bool) -> str:
    """Root in a container often lacks what proc(5) asks for (PTRACE_MODE_READ in ptrace(2))."""
    if is_of_process and os.geteuid() == 0:
        return (
            "This root may lack CAP_SYS_PTRACE, as in a container: allow it (--cap-add SYS_PTRACE) "
            "or run on the host"
        )
    return "Run as root or as the process's own user"


def _missing_of_process(number: int, shown: str, pid: int, proc: str) -> CollectorError:
    if os.path.exists(f"{proc}/{pid}"):
        return NotSupported(
            f"cannot read {shown}: the process lives, but this is not there "
            f"({os.strerror(number)}). It went away, or this kernel lacks it; do without it."
        )
    # Under hidepid=2 (proc(5)) other users' processes look absent though they live.
    if proc == "/proc" and process_exists(pid):
        return NotPermitted(
            f"cannot read {shown}: process {pid} is hidden from this user (/proc is mounted "
            "with hidepid). Run as root or as the process's own user."
        )
    return _gone(shown, pid)


def _gone(shown: str, pid: int) -> TargetGone:
    return TargetGone(
        f"process {pid} is gone: it ended before or while {shown} was read. "
        "Choose a running process; what was recorded so far is kept."
    )
