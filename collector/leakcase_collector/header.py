"""The first record of a case: how, when and with what it was taken."""

from __future__ import annotations

import os
import platform
import sys
from typing import Optional

from leakcase_bundle import FORMAT_MAJOR, FORMAT_MINOR
from leakcase_bundle.records import CaseHeader
from leakcase_bundle.strings import VersionToken
from leakcase_bundle.vocabulary import is_word

from . import __version__
from .errors import CollectorError
from .redact import Redactor
from .system.clock import PAGE_BYTES, wall_anchor
from .system.door import System
from .system.identity import ProcessIdentity
from .system.ownership import invoking_user

_CAP_SYS_PTRACE = 19
_MACHINES = {"i686": "i386", "armv7l": "arm", "armv6l": "arm"}


def case_header(
    system: System,
    identity: Optional[ProcessIdentity],
    redactor: Redactor,
    *,
    interval_ns: int,
    duration_ns: Optional[int],
    levels: list[str],
) -> CaseHeader:
    """What the header says of this host, this collector and this capture.

    `identity` None: what is looked at is a core file, which may be of another host.
    """
    anchor = wall_anchor()
    machine = platform.machine()
    machine = _MACHINES.get(machine, machine)
    own_os = _own_os(system)
    their_os = own_os if identity is None else _target_os(system, identity.pid)
    unknown = VersionToken("unknown")
    return CaseHeader(
        format_major=FORMAT_MAJOR,
        format_minor=FORMAT_MINOR,
        wall_ns=anchor.wall_ns,
        monotonic_ns=anchor.taken_ns,
        collector_version=VersionToken(__version__),
        collector_build=build(),
        python_version=redactor.version(platform.python_version()) or unknown,
        kernel_release=redactor.version(platform.release()) or unknown,
        machine=machine if is_word("machine", machine) else "other",
        page_size_bytes=PAGE_BYTES,
        cpu_count=os.cpu_count() or 1,
        requested_duration_ns=duration_ns,
        interval_ns=interval_ns,
        privileged=_has_ptrace_capability(system),
        same_user=None if identity is None else _same_user(system, identity.pid),
        host=redactor.host(platform.node()),
        user=redactor.user(_user_name()),
        os_id=redactor.version(own_os.get("ID")),
        os_version=redactor.version(own_os.get("VERSION_ID")),
        target_os_id=redactor.version(their_os.get("ID")) if their_os != own_os else None,
        target_os_version=redactor.version(their_os.get("VERSION_ID"))
        if their_os != own_os
        else None,
        levels=levels,
        core=True if identity is None else None,
    )


def build() -> str:
    """How this collector was packaged, of the vocabulary ``collector_build``."""
    if getattr(sys, "frozen", False):
        return "elf"
    loader = type(globals().get("__loader__")).__name__
    if loader == "zipimporter":
        return "pyz"
    return "wheel" if "-packages" in __file__ else "source"


def _own_os(system: System) -> dict[str, str]:
    try:
        return _parse_os_release(system.read_text("/etc/os-release"))
    except CollectorError:
        return {}


def _parse_os_release(text: str) -> dict[str, str]:
    """ID and VERSION_ID of an os-release(5) file."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {k: v.strip().strip("\"'") for k, _, v in pairs if k in ("ID", "VERSION_ID")}


def _target_os(system: System, pid: int) -> dict[str, str]:
    """The os-release in the target's own root: another than ours in a container."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with system.open_target_file(pid, path) as file:
                return _parse_os_release(file.read_at(0, 16384).decode("utf-8", "replace"))
        except CollectorError:
            continue
    return {}


def _has_ptrace_capability(system: System) -> bool:
    for line in system.read_text("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_PTRACE & 1)
    return False


def _same_user(system: System, pid: int) -> Optional[bool]:
    try:
        return system.status(f"/proc/{pid}").st_uid == os.geteuid()
    except CollectorError:
        return None


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(invoking_user().user_id).pw_name
    except KeyError:
        return str(invoking_user().user_id)
