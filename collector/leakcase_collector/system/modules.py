"""The files that a process has mapped as code, each opened as the very file that was mapped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.system.door import System
from leakcase_collector.system.files import TargetFile
from leakcase_collector.system.os_errors import printable

_DELETED = " (deleted)"
#: Mapped and executable, but no program files: code that a runtime wrote, and devices.
_NO_FILES = ("/memfd:", "/dev/", "/SYSV", "/anon_hugepage", "/drm mm object", "/i915", "/dmabuf:")


class MappedModule(NamedTuple):
    """A file of which at least one mapping is executable.

    `path` is as the target itself would name it; `start` and `end` bound one of its mappings;
    `lowest_address` is where the first of them starts.
    """

    path: str
    inode: int
    start: int
    end: int
    lowest_address: int
    is_deleted: bool


def mapped_modules(system: System, pid: int) -> list[MappedModule]:
    """The program and the libraries that `pid` has mapped now, by ascending address.

    None in a kernel thread or a zombie, nor for the moment in which an exec replaces the maps.
    """
    return parse_modules(system.read_lines(f"/proc/{pid}/maps"), target_root(system, pid))


def target_root(system: System, pid: int) -> str:
    """The target's root directory as maps would write it: "" unless it was chrooted.

    In a container the mount namespace ends at that root, so that there it is "" too.
    """
    root = system.read_link(f"/proc/{pid}/root")
    return "" if root == "/" else root


def parse_modules(lines: Iterable[bytes], root: str = "") -> list[MappedModule]:
    """Modules from the lines of maps (proc_pid_maps(5)); `root` is cut from their paths."""
    found: dict[tuple[bytes, bytes], MappedModule] = {}
    first: dict[tuple[bytes, bytes], int] = {}
    for line in lines:
        if b"/" not in line:
            continue
        bounds, flags, _, device, inode, name = line.split(None, 5)
        if not name.startswith(b"/"):  # "[anon:a/b]", a name that a program may give (prctl(2))
            continue
        start, end = (int(bound, 16) for bound in bounds.split(b"-"))
        key = (device, inode)
        first.setdefault(key, start)
        if b"x" not in flags or key in found:
            continue
        path = name.decode("utf-8", "surrogateescape")
        is_deleted = path.endswith(_DELETED)
        # The kernel writes a newline in a path as \012 (seq_path in show_map_vma).
        path = path[: -len(_DELETED)] if is_deleted else path
        path = path.replace("\\012", "\n")
        if root and path.startswith(root + "/"):
            path = path[len(root) :]
        found[key] = MappedModule(path, int(inode), start, end, first[key], is_deleted)
    return sorted(found.values(), key=lambda module: module.lowest_address)


def open_module(system: System, pid: int, module: MappedModule) -> TargetFile:
    """The file that is mapped, though another may have its name by now.

    By its path in the target's root if the inode there is the mapped one; else through
    ``map_files``, which needs privileges. NotSupported when neither yields that file.
    """
    if not module.is_deleted:
        try:
            file = system.open_target_file(pid, module.path)
        except (NotSupported, NotPermitted):
            pass
        else:
            # Only the inode: overlayfs and btrfs show another device in maps than in stat(2).
            if file.inode == module.inode:
                return file
            file.close()
    try:
        return system.open_map_file(pid, module.start, module.end)
    except NotPermitted as error:
        raise NotPermitted(
            f"cannot read {printable(module.path)} as process {pid} has it mapped: it was replaced "
            "or deleted since. Run as root, or restart the process on the new file."
        ) from error


def program_inode(system: System, pid: int) -> int | None:
    """The inode of the program's file; None where /proc/PID/exe may not be followed."""
    try:
        return system.status(f"/proc/{pid}/exe").st_ino
    except (NotPermitted, NotSupported):
        return None


def program_files(system: System, pid: int) -> list[MappedModule]:
    """The mapped files that are programs or libraries, the program itself first."""
    inode = program_inode(system, pid)
    files = [
        module
        for module in mapped_modules(system, pid)
        if module.inode == inode or not module.path.startswith(_NO_FILES)
    ]
    return sorted(files, key=lambda module: module.inode != inode)


def open_program_file(
    system: System, pid: int, module: MappedModule, is_program: bool
) -> TargetFile:
    """The mapped file itself; the program through /proc/PID/exe, which needs no privileges."""
    return system.open_executable(pid) if is_program else open_module(system, pid, module)
