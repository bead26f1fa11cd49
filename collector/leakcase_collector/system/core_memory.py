"""The memory of a process that is no more: a core file, read like a live one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.core_file import (
    AT_EXECFN,
    AT_PAGESZ,
    AT_SYSINFO_EHDR,
    CoreFile,
    CoreMapping,
)
from leakcase_collector.system.elf import PF_W, PF_X
from leakcase_collector.system.memory import PAGE_BYTES, MemoryMapping

_PF_R = 4
_DEVICE = b"core"
#: Shared, whoever maps it: NT_FILE does not say so of a mapping, but these names do.
_SHARED = (b"/dev/zero", b"/memfd:", b"/dev/shm/", b"/SYSV")


class Source(Protocol):
    """A file: a core file, or one that was mapped (`files.TargetFile`)."""

    size_bytes: int

    def read_into(self, offset: int, view: memoryview) -> int: ...


class Piece(NamedTuple):
    """[start, end) of memory, which lies in `source` from `offset` on."""

    start: int
    end: int
    offset: int
    source: Source


class CoreMemory:
    """The memory that a core file holds. What it left out is a hole: mapped, never resident.

    Code and other unchanged parts of mapped files are left out as a rule (core(5),
    coredump_filter); `fill` takes them from the files. An inode, which no core tells, is a number
    for each path here. A page that was never touched is in the file where the writer put it there,
    so that "resident" is at most.
    """

    pointer_bytes = 8

    def __init__(self, core: CoreFile) -> None:
        page_bytes = core.auxiliary.get(AT_PAGESZ, PAGE_BYTES)
        if page_bytes != PAGE_BYTES:
            raise core.bad(
                "its pages are of another size than this machine's",
                "Read it on a machine of the kind that it was written on.",
            )
        self._segments = core.segments
        self._pieces = [
            Piece(s.start, s.start + s.file_bytes, s.offset, core)
            for s in core.segments
            if s.file_bytes
        ]
        self._starts = [piece.start for piece in self._pieces]
        self._mappings = _mappings(core)

    def mappings(self) -> list[MemoryMapping]:
        return list(self._mappings)

    def fill(self, files: Mapping[int, Source]) -> None:
        """Take what the core left out of files, given by inode, from these: never what is writable.

        Who calls knows that they are the files that were mapped.
        """
        added = []
        for mapping in self._mappings:
            source = files.get(mapping.inode)
            if source is None or mapping.writable or not mapping.inode:
                continue
            at = mapping.start
            for low, high in [*self.resident_runs(at, mapping.end), (mapping.end, mapping.end)]:
                if at < low:
                    offset = mapping.offset + at - mapping.start
                    end = min(low, at + max(source.size_bytes - offset, 0))
                    added.append(Piece(at, end // PAGE_BYTES * PAGE_BYTES, offset, source))
                at = high
        self._pieces = sorted(
            self._pieces + [piece for piece in added if piece.start < piece.end],
            key=lambda piece: piece.start,
        )
        self._starts = [piece.start for piece in self._pieces]

    @property
    def left_out_bytes(self) -> int:
        """Of the memory that the process could write, what is not in the file."""
        return sum(
            segment.end - segment.start - segment.file_bytes
            for segment in self._segments
            if segment.flags & PF_W
        )

    @property
    def writable_bytes(self) -> int:
        """What is in the file of memory that the process could write."""
        return sum(s.file_bytes for s in self._segments if s.flags & PF_W)

    def read(self, address: int, size: int) -> bytes:
        content = bytearray(size)
        if self.read_into(address, memoryview(content)) < size:
            raise NotSupported(
                f"cannot read {size} bytes of memory at {address:#x}: the core file does not hold "
                "all of them. Have one written with a wider coredump_filter."
            )
        return bytes(content)

    def read_into(self, address: int, view: memoryview) -> int:
        done = 0
        while done < len(view):
            at = address + done
            index = bisect_right(self._starts, at) - 1
            if index < 0 or at >= self._pieces[index].end:
                break
            piece = self._pieces[index]
            size = min(len(view) - done, piece.end - at)
            count = piece.source.read_into(
                piece.offset + at - piece.start, view[done : done + size]
            )
            done += count
            if count < size:
                break
        return done

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        for index in range(max(bisect_right(self._starts, start) - 1, 0), len(self._pieces)):
            piece = self._pieces[index]
            if piece.start >= end:
                break
            low, high = max(start, piece.start), min(end, piece.end)
            if low >= high:
                continue
            if runs and runs[-1][1] == low:
                runs[-1] = (runs[-1][0], high)
            else:
                runs.append((low, high))
        return runs

    def __enter__(self) -> CoreMemory:
        return self

    def __exit__(self, *unused: object) -> None:
        """The files stay open: who opened them closes them."""


def _mappings(core: CoreFile) -> list[MemoryMapping]:
    """Segments with the files' names, and parts of files for which there is no segment.

    gdb writes no segment for what it leaves out; of a mapped file that is what nobody changed.
    """
    inodes: dict[bytes, int] = {}
    for file in core.mappings:
        inodes.setdefault(file.path, len(inodes) + 1)
    starts = [file.start for file in core.mappings]
    stack, vdso = core.auxiliary.get(AT_EXECFN, 0), core.auxiliary.get(AT_SYSINFO_EHDR, 0)
    found = []
    for segment in core.segments:
        at = bisect_right(starts, segment.start) - 1
        named = core.mappings[at] if at >= 0 and segment.start < core.mappings[at].end else None
        path = b"" if named is None else named.path
        if segment.start <= stack < segment.end:
            path = path or b"[stack]"
        elif segment.start <= vdso < segment.end:
            path = path or b"[vdso]"
        found.append(
            MemoryMapping(
                segment.start, segment.end, bool(segment.flags & _PF_R),
                bool(segment.flags & PF_W), bool(segment.flags & PF_X),
                not path.startswith(_SHARED),
                0 if named is None else named.offset + segment.start - named.start,
                _DEVICE, inodes.get(path, 0), path,
            )
        )  # fmt: skip
    return sorted(found + _left_out(core, inodes))


def _left_out(core: CoreFile, inodes: dict[bytes, int]) -> list[MemoryMapping]:
    segment_starts = [segment.start for segment in core.segments]
    found = []
    for file in core.mappings:
        low = file.start
        first = max(bisect_right(segment_starts, file.start) - 1, 0)
        for index in range(first, len(core.segments)):
            segment = core.segments[index]
            if segment.start >= file.end:
                break
            if segment.end <= low:
                continue
            if low < segment.start:
                found.append(_hole(file, low, segment.start, inodes[file.path]))
            low = segment.end
        if low < file.end:
            found.append(_hole(file, low, file.end, inodes[file.path]))
    return found


def _hole(file: CoreMapping, start: int, end: int, inode: int) -> MemoryMapping:
    """Unchanged, so not writable; code as likely as constants, which are read alike."""
    offset = file.offset + start - file.start
    is_private = not file.path.startswith(_SHARED)
    return MemoryMapping(
        start, end, True, False, True, is_private, offset, _DEVICE, inode, file.path
    )
