"""`System`: the one object through which the machine is read.

Paths are written as on a real machine (``/proc/4711/status``, ``/sys/fs/cgroup/...``,
``/etc/os-release``); tests point `System` at a recorded tree and use the same paths. An OSError
never leaves this package: see `os_errors`. Messages are for the user's terminal; only an
exception's `gap_reason` may enter a case.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from leakcase_collector.errors import LimitReached
from leakcase_collector.system import rooted
from leakcase_collector.system.files import KeptFile, TargetFile, over_limit, split_lines
from leakcase_collector.system.os_errors import printable, translated

READ_LIMIT_BYTES = 4 * 1024 * 1024
LINES_LIMIT_BYTES = 256 * 1024 * 1024
ENTRIES_LIMIT = 1_000_000
_CHUNK_BYTES = 64 * 1024
# O_NONBLOCK: a file of /sys that is a FIFO in disguise (trace_pipe, kmsg) ends instead of blocking.
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class System:
    """Reads /proc, /sys and the host's root, wherever they are mounted or recorded."""

    def __init__(self, proc: str = "/proc", sys: str = "/sys", root: str = "/") -> None:
        self.proc = proc.rstrip("/")
        self.sys = sys.rstrip("/")
        self.root = root.rstrip("/")

    @property
    def is_live(self) -> bool:
        """Whether pids are those of this machine: False on a recorded tree (no pidfd then)."""
        return self.proc == "/proc"

    def _real(self, path: str) -> str:
        if path.startswith("/proc/") or path == "/proc":
            return self.proc + path[5:]
        if path.startswith("/sys/") or path == "/sys":
            return self.sys + path[4:]
        return self.root + path

    # Reading files of the kernel and the host

    def read_bytes(self, path: str, limit_bytes: int = READ_LIMIT_BYTES) -> bytes:
        """The whole file; LimitReached if it has more than `limit_bytes`.

        /dev/kmsg can be read so as well: each record it holds now, then it ends.
        """
        parts: list[bytes] = []
        total = 0
        for chunk in self.read_chunks(path):
            total += len(chunk)
            if total > limit_bytes:
                raise over_limit(path, limit_bytes)
            parts.append(chunk)
        return b"".join(parts)

    def read_text(self, path: str, limit_bytes: int = READ_LIMIT_BYTES) -> str:
        """As `read_bytes`, decoded; bytes that are not UTF-8 survive as lone surrogates."""
        return self.read_bytes(path, limit_bytes).decode("utf-8", "surrogateescape")

    def read_lines(self, path: str, limit_bytes: int = LINES_LIMIT_BYTES) -> Iterator[bytes]:
        """The lines without their newlines, in constant memory: smaps can have 100 MB."""
        return split_lines(self.read_chunks(path), path, limit_bytes)

    def read_chunks(self, path: str) -> Iterator[bytes]:
        """The content as the kernel hands it out, for parsers that cannot afford a call per line.

        No limit but the reader's own: stop iterating, and the file is closed.
        """
        try:
            fd = os.open(self._real(path), _READ_FLAGS)
            try:
                while True:
                    try:
                        chunk = os.read(fd, _CHUNK_BYTES)
                    except BlockingIOError:
                        return
                    except BrokenPipeError:
                        continue  # /dev/kmsg: records were overwritten; the next read goes on
                    if not chunk:
                        return
                    yield chunk
            finally:
                os.close(fd)
        except OSError as error:
            raise translated(error, path, self.proc) from error

    def open_kept(self, path: str, limit_bytes: int = READ_LIMIT_BYTES) -> KeptFile:
        """The file, kept open for cheap repeated reads: see `KeptFile` for what may be kept."""
        try:
            fd = os.open(self._real(path), _READ_FLAGS)
        except OSError as error:
            raise translated(error, path, self.proc) from error
        return KeptFile(fd, path, self.proc, limit_bytes)

    # Directories, links, status

    def list_directory(self, path: str, limit_entries: int = ENTRIES_LIMIT) -> list[str]:
        """The names in a directory, in the kernel's order."""
        names: list[str] = []
        try:
            with os.scandir(self._real(path)) as entries:
                for entry in entries:
                    names.append(entry.name)
                    if len(names) > limit_entries:
                        raise LimitReached(
                            f"{printable(path)} has more than {limit_entries} entries. "
                            "They are not listed; the rest of the capture is not affected."
                        )
        except OSError as error:
            raise translated(error, path, self.proc) from error
        return names

    def process_ids(self) -> list[int]:
        """The pids in /proc, ascending; those that hidepid hides are not among them."""
        return sorted(int(name) for name in self.list_directory("/proc") if name.isdigit())

    def read_link(self, path: str) -> str:
        """A link's text, such as ``socket:[4711]`` of a descriptor; it is not followed."""
        try:
            return os.readlink(self._real(path))
        except OSError as error:
            raise translated(error, path, self.proc) from error

    def status(self, path: str) -> os.stat_result:
        """stat(2), links followed: of ``/proc/PID/exe`` or ``/proc/PID/fd/N``, the file itself."""
        try:
            return os.stat(self._real(path))
        except OSError as error:
            raise translated(error, path, self.proc) from error

    # Files of the target, in its own root

    def open_target_file(self, pid: int, path: str) -> TargetFile:
        """The regular file that `path` names for the target: through its root and mounts.

        Links cannot lead out of that root. NotSupported when it is not a regular file.
        """
        return TargetFile(self._below_root(pid, path, rooted.open_file_below), path, self.proc)

    def open_target_directory(self, pid: int, path: str) -> TargetDirectory:
        """A directory of the target, through its root, for many small files in it."""
        fd = self._below_root(pid, path, rooted.open_directory_below)
        return TargetDirectory(fd, path, self.proc)

    def _below_root(self, pid: int, path: str, opener: Callable[[int, str], int]) -> int:
        root = f"/proc/{pid}/root"
        try:
            root_fd = rooted.open_root(self._real(root))
        except OSError as error:
            raise translated(error, root, self.proc) from error
        try:
            return opener(root_fd, path)
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise translated(error, root, self.proc) from error
            raise translated(error, f"{root}{path}", self.proc) from error
        finally:
            os.close(root_fd)

    def open_executable(self, pid: int) -> TargetFile:
        """The target's main program, the very inode it runs, though replaced or deleted since."""
        return self._open_magic_link(f"/proc/{pid}/exe")

    def open_map_file(self, pid: int, start: int, end: int) -> TargetFile:
        """The file mapped at exactly [start, end), though deleted or replaced since.

        Needs CAP_SYS_ADMIN or, from Linux 5.9 on, CAP_CHECKPOINT_RESTORE (proc(5)).
        """
        return self._open_magic_link(f"/proc/{pid}/map_files/{start:x}-{end:x}")

    def _open_magic_link(self, path: str) -> TargetFile:
        try:
            path_fd = os.open(self._real(path), os.O_PATH | os.O_CLOEXEC)
            try:
                fd = rooted.reopen_regular(path_fd)
            finally:
                os.close(path_fd)
        except OSError as error:
            raise translated(error, path, self.proc) from error
        return TargetFile(fd, path, self.proc)


class TargetDirectory:
    """A directory of the target whose files are read by name; a context manager."""

    def __init__(self, fd: int, path: str, proc: str) -> None:
        self._fd = fd
        self.path = path
        self._proc = proc

    def names(self) -> list[str]:
        try:
            return os.listdir(self._fd)
        except OSError as error:
            raise translated(error, self.path, self._proc) from error

    def read_bytes(self, name: str, limit_bytes: int = READ_LIMIT_BYTES) -> bytes:
        """A regular file right in this directory, no link followed; LimitReached beyond limit."""
        path = f"{self.path}/{name}"
        try:
            fd = rooted.open_entry(self._fd, name)
        except OSError as error:
            raise translated(error, path, self._proc) from error
        with TargetFile(fd, path, self._proc) as file:
            if file.size_bytes > limit_bytes:
                raise over_limit(path, limit_bytes)
            return file.read_at(0, limit_bytes)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> TargetDirectory:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()
