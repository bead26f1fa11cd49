"""Which chunks refer to which, and what can be reached from the roots.

Any aligned word that lies within a chunk's block counts as a reference to it, wherever in the block
it points: such marking is conservative, in that it may take a number for a reference, but not the
other way round. Each block is read once, in the order of addresses; its references are kept as a
list of edges, so that chains of any depth are followed without reading again. ``mark.c`` of the
native part does the same over the same arrays.
"""

from __future__ import annotations

import ctypes
import mmap
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from leakcase_collector.errors import OverBudget
from leakcase_collector.system.memory import PAGE_BYTES

from .chunks import Chunks
from .layout import HEADER_BYTES

#: What is known of a chunk: nothing refers to it; a root does, at last; only an unreachable one.
UNSEEN, REACHED, REFERRED = 0, 1, 2
#: The first word of the chunk behind is the block's last one (prev_size, malloc/malloc.c).
_BEYOND_BYTES = 8
#: A chunk says with 31 bits how many it has; chunks are fewer.
EDGES_MAX = (1 << 31) - 1
_MIX = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


class Marking(Protocol):
    """One marking: `scan` all blocks and `roots` in any order, then `spread` once."""

    marks: bytearray

    def roots(self, content: bytearray, length: int) -> None:
        """Every chunk that one of these words points into is reached."""
        ...

    def scan(self, content: bytearray, base: int, length: int) -> None:
        """Take the references out of blocks. Windows must come by ascending address."""
        ...

    def next_address(self) -> int:
        """What lies before it was taken, or holds no block; beyond all memory at the end."""
        ...

    def spread(self) -> None:
        """Follow the references; after that `marks` tells what is reached."""
        ...

    def prints(self, low: int, high: int) -> array[int]:
        """Fingerprints of the blocks from `low` to before `high`, of 32 bits each."""
        ...


def _end(chunks: Chunks, chunk: int) -> int:
    return chunks.addresses[chunk] + chunks.sizes[chunk] + _BEYOND_BYTES


def _low(chunks: Chunks) -> int:
    return _next_address(chunks, 0)


def _high(chunks: Chunks) -> int:
    return _end(chunks, len(chunks.addresses) - 1) if chunks.addresses else 0


def _next_address(chunks: Chunks, cursor: int) -> int:
    return chunks.addresses[cursor] + HEADER_BYTES if cursor < len(chunks.addresses) else _WORD


class PythonMarking:
    """The twin in Python."""

    def __init__(self, chunks: Chunks) -> None:
        self.marks = bytearray(len(chunks.addresses))
        self._chunks = chunks
        self._low, self._high = _low(chunks), _high(chunks)
        self._rows = array("I", [0])
        self._prints = array("I")
        self._edges = array("I")
        self._print = 0
        self._stack: list[int] = []

    def roots(self, content: bytearray, length: int) -> None:
        for word in memoryview(content)[: length & ~7].cast("Q"):
            if self._low <= word < self._high:
                self._reach(self._chunk_of(word))

    def _chunk_of(self, word: int) -> int:
        """The chunk within whose block `word` points; -1 where there is none."""
        index = bisect_right(self._chunks.addresses, word - HEADER_BYTES) - 1
        return index if index >= 0 and word < _end(self._chunks, index) else -1

    def _reach(self, chunk: int) -> None:
        if chunk >= 0 and self.marks[chunk] != REACHED:
            self.marks[chunk] = REACHED
            self._stack.append(chunk)

    def scan(self, content: bytearray, base: int, length: int) -> None:
        words = memoryview(content)[: length & ~7].cast("Q")
        end = base + length
        while len(self._prints) < len(self.marks):
            cursor = len(self._prints)
            low = self._chunks.addresses[cursor] + HEADER_BYTES
            high = _end(self._chunks, cursor)
            if low >= end:
                break
            start, stop = max(low, base), min(high, end)
            if start < stop:
                self._take(words[(start - base) >> 3 : (stop - base) >> 3], cursor)
            if high > end:
                break
            self._prints.append(self._print >> 32)
            self._rows.append(len(self._edges))
            self._print = 0

    def _take(self, words: memoryview, cursor: int) -> None:
        mixed, edges, row = self._print, self._edges, self._rows[-1]
        for word in words:
            mixed = (mixed ^ word) * _MIX & _WORD
            mixed ^= mixed >> 29
            if self._low <= word < self._high:
                chunk = self._chunk_of(word)
                is_repeated = len(edges) > row and edges[-1] == chunk
                if chunk not in (-1, cursor) and not is_repeated:
                    edges.append(chunk)
        self._print = mixed

    def next_address(self) -> int:
        return _next_address(self._chunks, len(self._prints))

    def spread(self) -> None:
        _fill(self._rows, len(self.marks) + 1, len(self._edges))
        _fill(self._prints, len(self.marks), 0)
        rows, edges, marks = self._rows, self._edges, self.marks
        while self._stack:
            chunk = self._stack.pop()
            for to in edges[rows[chunk] : rows[chunk + 1]]:
                self._reach(to)
        for chunk, mark in enumerate(marks):
            if mark != REACHED:
                for to in edges[rows[chunk] : rows[chunk + 1]]:
                    marks[to] = marks[to] or REFERRED

    def prints(self, low: int, high: int) -> array[int]:
        return self._prints[low:high]


def _fill(entries: array[int], length: int, value: int) -> None:
    """Blocks at the end, of pages that are not there, refer to nothing."""
    entries.extend([value] * (length - len(entries)))


class MarkState(ctypes.Structure):
    """struct leakcase_mark of collector/native/mark.c: every field a word of 64 bits."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "addresses sizes chunks spans span_count first_of_page low high rows prints edges "
            "edge_count edge_capacity cursor first_edge print marks stack stacked last_span"
        ).split()
    ]


class NativeMarking:
    """The twin in C: 34 bytes of our memory for each chunk, and four for each reference of those
    that have more than one.

    OverBudget where that much cannot be had.
    """

    def __init__(
        self, chunks: Chunks, spans: Sequence[tuple[int, int]], library: ctypes.CDLL
    ) -> None:
        count = len(chunks.addresses)
        self.marks = bytearray(count)
        self._chunks = chunks
        self._library = library
        pages, flat = 0, array("Q")
        for start, end in spans:
            flat.extend((start, end, pages))
            pages += (end - start) // PAGE_BYTES + 1
        # So many words there are; room that is never written to costs nothing.
        edges = min(sum(chunks.sizes) // 8 + count, EDGES_MAX)
        sizes = {"first_of_page": pages + 1, "rows": 2 * count, "prints": count, "edges": edges,
                 "stack": count}  # fmt: skip
        self._rooms = {name: _room(4 * entries) for name, entries in sizes.items()}
        self._spans = flat
        self._state = MarkState(
            addresses=chunks.addresses.buffer_info()[0],
            sizes=chunks.sizes.buffer_info()[0],
            chunks=count,
            spans=flat.buffer_info()[0],
            span_count=len(spans),
            low=_low(chunks),
            high=_high(chunks),
            edge_capacity=edges,
            marks=_address(self.marks) if count else 0,
            **{name: _address(room) for name, room in self._rooms.items()},
        )
        self._call("index")

    def _call(self, name: str, *arguments: int) -> int:
        function = getattr(self._library, f"leakcase_mark_{name}")
        types = (ctypes.POINTER(MarkState), ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
        function.argtypes = types[: len(arguments) + 1]
        function.restype = ctypes.c_int if name == "scan" else None
        return int(function(self._state, *arguments) or 0)

    def roots(self, content: bytearray, length: int) -> None:
        if length:
            self._call("roots", _address(content), length & ~7)

    def scan(self, content: bytearray, base: int, length: int) -> None:
        if not self._call("scan", _address(content), base, length & ~7):
            raise OverBudget(
                "cannot look for unreachable memory: its blocks refer to each other more often "
                "than can be noted. Do without this source."
            )

    def next_address(self) -> int:
        return _next_address(self._chunks, self._state.cursor)

    def spread(self) -> None:
        self._call("spread")

    def prints(self, low: int, high: int) -> array[int]:
        return array("I", self._rooms["prints"][4 * low : 4 * high])


def _room(size: int) -> mmap.mmap:
    try:
        room = mmap.mmap(-1, max(size, 4), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise OverBudget(
            f"cannot look for unreachable memory: {size >> 20} MiB of our own are not to be had "
            "for its tables. Do without this source, or capture where there is more memory."
        ) from error
    # Tables are looked up at random: of small pages each look-up would miss the TLB as well.
    with suppress(AttributeError, OSError):  # Python 3.9 has no name for it everywhere
        room.madvise(mmap.MADV_HUGEPAGE)
    return room


def _address(room: mmap.mmap | bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))
