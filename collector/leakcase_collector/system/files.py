"""Open files of the machine: one that is read again and again, one that is read at random."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from types import TracebackType

from leakcase_collector.errors import LimitReached
from leakcase_collector.system.os_errors import printable, translated

_CHUNK_BYTES = 64 * 1024
_FIRST_READ_BYTES = 8 * 1024
_LINE_LIMIT_BYTES = 1024 * 1024


class _OpenFile:
    """A descriptor, the path it was opened by, and where /proc is."""

    def __init__(self, fd: int, path: str, proc: str) -> None:
        self._fd = fd
        self.path = path
        self._proc = proc

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class KeptFile(_OpenFile):
    """A file of /proc or /sys that stays open, so that one sample is one or two system calls.

    A kept descriptor of ``/proc/PID/status``, ``stat``, ``statm``, ``io``, ``oom_score`` or
    ``cgroup`` belongs to that *process*, not to the number: the inode holds a ``struct pid``, and a
    read after the process was reaped fails with ESRCH even when the number is in use again
    (proc_single_show and get_proc_task in fs/proc/base.c and internal.h): here that is TargetGone.

    Do not keep ``maps``, ``smaps``, ``smaps_rollup``, ``pagemap``, ``environ``, ``auxv``, ``mem``:
    those bind to the address space at open (proc_mem_open), so that after an exec they go on
    describing the old, empty one. Open them anew for each sample.
    """

    def __init__(self, fd: int, path: str, proc: str, limit_bytes: int) -> None:
        super().__init__(fd, path, proc)
        self._limit_bytes = limit_bytes

    def __enter__(self) -> KeptFile:
        return self

    def read(self) -> bytes:
        """The whole file as of now; TargetGone when its process ended."""
        try:
            content = os.pread(self._fd, _FIRST_READ_BYTES, 0)
            # A seq_file may end a read at any record, so only an empty read is the end.
            while content:
                more = os.pread(self._fd, _CHUNK_BYTES, len(content))
                if not more:
                    break
                content += more
                if len(content) > self._limit_bytes:
                    break
        except OSError as error:
            raise translated(error, self.path, self._proc, is_kept=True) from error
        if len(content) > self._limit_bytes:
            raise over_limit(self.path, self._limit_bytes)
        return content


class TargetFile(_OpenFile):
    """A regular file of the target, read at random offsets and never as a whole."""

    def __init__(self, fd: int, path: str, proc: str) -> None:
        super().__init__(fd, path, proc)
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise translated(error, path, proc) from error
        self.size_bytes = status.st_size
        self.device = status.st_dev
        self.inode = status.st_ino
        self.owner = status.st_uid

    def __enter__(self) -> TargetFile:
        return self

    @property
    def descriptor_path(self) -> str:
        """Opens this very file, whatever its names come to mean; valid until it is closed."""
        return f"/proc/self/fd/{self._fd}"

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only where the file ends."""
        try:
            content = os.pread(self._fd, size, offset)
            while content and len(content) < size:
                more = os.pread(self._fd, size - len(content), offset + len(content))
                if not more:
                    break
                content += more
        except OSError as error:
            raise translated(error, self.path, self._proc) from error
        return content

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset`; how many bytes, fewer only where the file ends."""
        content = self.read_at(offset, len(view))
        view[: len(content)] = content
        return len(content)

    def lines(self, limit_bytes: int) -> Iterator[bytes]:
        """The file's lines without their newlines; LimitReached if it is larger than the limit."""
        chunks = (
            self.read_at(offset, _CHUNK_BYTES) for offset in range(0, self.size_bytes, _CHUNK_BYTES)
        )
        return split_lines(chunks, self.path, limit_bytes)


def split_lines(chunks: Iterable[bytes], path: str, limit_bytes: int) -> Iterator[bytes]:
    """The lines of a file that comes in pieces, in constant memory."""
    total = 0
    rest = b""
    for chunk in chunks:
        total += len(chunk)
        if total > limit_bytes or len(rest) > _LINE_LIMIT_BYTES:
            raise over_limit(path, limit_bytes)
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        yield from lines
    if rest:
        yield rest


def over_limit(path: str, limit_bytes: int) -> LimitReached:
    return LimitReached(
        f"{printable(path)} is larger than the {limit_bytes} bytes that are read of it. "
        "Do without this source; the rest of the capture is not affected."
    )
