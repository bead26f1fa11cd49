"""Where glibc's arenas are, found by their structure alone, and what memory each of them has.

An empty bin points at itself, so that the 127 bins of an arena that was ever used are a pattern
that nothing else in a library's data has. Where the arena begins is then told by its ring of
arenas, which must lead back to it: no symbol and no version is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.memory import PAGE_BYTES, Memory, MemoryMapping

from .layout import (
    ARENA_LAYOUTS,
    BIN_PAIRS,
    FASTBINS,
    HEADER_BYTES,
    HEAP_ALIGNMENT,
    HEAP_INFO_BYTES,
    MIN_CHUNK_BYTES,
    SIZE_MASK,
    WORD_BYTES,
    ArenaLayout,
)
from .pages import ResidentPages

_LIBC = re.compile(rb"/libc(\.so\.6|-2\.[0-9]+\.so)( \(deleted\))?\Z")
#: Data of the C library, or of a program that has it within; larger is no such data.
_DATA_LIMIT_BYTES = 64 << 20
#: Under heavy churn 34 of 127 bins were empty; a chain of lucky words has not even a handful.
_MIN_EMPTY_BINS = 8
_MAX_ARENAS = 1 << 16
_MAX_HEAPS = 1 << 16
_MAX_THREADS = 1 << 22


class HeapNotFound(NotSupported):
    """There is no arena of glibc's malloc that was ever used. `has_glibc`: its library is there."""

    def __init__(self, has_glibc: bool) -> None:
        #: A word of the vocabulary ``gap_detail``.
        self.gap_detail = "heap-not-found" if has_glibc else "heap-not-glibc"
        cause = (
            "glibc's malloc was never called: another allocator serves the program"
            if has_glibc
            else "the program has no glibc, neither as a library nor built in"
        )
        super().__init__(
            f"cannot take a census of the heap: {cause}. Other allocators' books are not read; "
            "the rest of the capture is not affected."
        )


class HeapUnsound(NotSupported):
    """Arenas were found, and they are not as they are known to be."""

    gap_detail = "heap-layout"


class Arena(NamedTuple):
    """One struct malloc_state as of one moment. `top` is 0 where the arena has no memory yet."""

    address: int
    is_main: bool
    top: int
    top_bytes: int
    system_bytes: int
    fastbins: tuple[int, ...]

    @property
    def top_end(self) -> int:
        return self.top + self.top_bytes


class Place(NamedTuple):
    """Where main_arena is, and the data around it, in which mp_ is as well."""

    address: int
    layout: ArenaLayout
    data_start: int
    data_words: memoryview


def find_main_arena(memory: Memory, mappings: Sequence[MemoryMapping]) -> Place:
    """HeapNotFound where there is none. Costs a read of the C library's data, or the program's."""
    spans, has_library = _data_spans(mappings)
    pages = ResidentPages(memory)
    for start, end in spans:
        for low, words in _resident_words(memory, start, end):
            for bins in _bins_candidates(words, low):
                for layout in ARENA_LAYOUTS:
                    address = bins - layout.bins_offset
                    if _ring(pages, address, layout):
                        return Place(address, layout, low, words)
    raise HeapNotFound(has_library)


def _data_spans(mappings: Sequence[MemoryMapping]) -> tuple[list[tuple[int, int]], bool]:
    """Writable data of libc, else of all modules (static programs); .bss follows it unnamed."""
    spans: list[tuple[int, int, bool]] = []
    for index, mapping in enumerate(mappings):
        if not (mapping.path.startswith(b"/") and mapping.writable and mapping.is_private):
            continue
        end = mapping.end
        for following in mappings[index + 1 : index + 3]:
            if following.start == end and following.writable and not following.path:
                end = following.end
        if end - mapping.start <= _DATA_LIMIT_BYTES:
            spans.append((mapping.start, end, bool(_LIBC.search(mapping.path))))
    has_library = any(_LIBC.search(mapping.path) for mapping in mappings)
    return [span[:2] for span in spans if span[2] or not has_library], has_library


def _resident_words(memory: Memory, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
    for low, high in memory.resident_runs(start, end):
        content = bytearray(high - low)
        count = memory.read_into(low, memoryview(content))
        yield low, memoryview(content)[: count // 8 * 8].cast("Q")


def _bins_candidates(words: memoryview, start: int) -> Iterator[int]:
    """Addresses where a bins[] may begin, the likeliest first.

    In bin i, fd and bk are the address of the pair less 16 where the bin is empty (bin_at).
    """
    selves = [
        start + WORD_BYTES * index
        for index, (fd, bk) in enumerate(zip(words, words[1:]))
        if fd == bk == start + WORD_BYTES * index - 2 * WORD_BYTES
    ]
    pair = 2 * WORD_BYTES
    for first in selves:
        near = sum(1 for a in selves if first <= a < first + BIN_PAIRS * pair)
        if near < _MIN_EMPTY_BINS:
            continue
        # Bins before the first empty one are in use: the array begins there or earlier.
        for before in range(BIN_PAIRS):
            yield first - before * pair
        return


def _ring(pages: ResidentPages, address: int, layout: ArenaLayout) -> list[int]:
    """The addresses of all arenas, main_arena first; empty if they are no ring of arenas."""
    found: list[int] = []
    at = address
    while len(found) < _MAX_ARENAS:
        state = pages.words(at + layout.next_offset, 5)
        if state is None or not _is_sound(state):
            return []
        found.append(at)
        at = state[0]
        if at == address:
            return found
        if at % PAGE_BYTES not in HEAP_INFO_BYTES:
            return []
    return []


def _is_sound(state: tuple[int, ...]) -> bool:
    """next, next_free, attached_threads, system_mem, max_system_mem as they can be together."""
    following, _, attached, system_bytes, most = state
    return (
        following % 16 == 0
        and attached < _MAX_THREADS
        and system_bytes <= most < 1 << 47
        and system_bytes % WORD_BYTES == 0
    )


def arena_addresses(pages: ResidentPages, place: Place) -> list[int]:
    """All arenas now, main_arena first. HeapUnsound where their ring does not hold together."""
    addresses = _ring(pages, place.address, place.layout)
    if not addresses:
        raise _unsound()
    return addresses


def read_arena(pages: ResidentPages, place: Place, address: int) -> Arena:
    """An arena as it is now. HeapUnsound where its top is no chunk."""
    layout, is_main = place.layout, address == place.address
    words = pages.words(address, layout.size_bytes // WORD_BYTES)
    if words is None:
        raise _unsound()
    top = words[layout.top_offset // WORD_BYTES]
    system_bytes = words[layout.next_offset // WORD_BYTES + 3]
    fastbins: tuple[int, ...] = ()
    if layout.fastbins_offset is not None:
        first = layout.fastbins_offset // WORD_BYTES
        fastbins = words[first : first + FASTBINS]
    if not system_bytes:  # initial_top points into the arena itself
        return Arena(address, is_main, 0, 0, 0, fastbins)
    header = pages.words(top, 2) if top % HEADER_BYTES == 0 else None
    if header is None or header[1] & SIZE_MASK < MIN_CHUNK_BYTES:
        raise _unsound()
    return Arena(address, is_main, top, header[1] & SIZE_MASK, system_bytes, fastbins)


def _unsound() -> HeapUnsound:
    return HeapUnsound(
        "cannot take a census of the heap: its arenas do not fit together, because they change, "
        "are swapped out or damaged. Try again, or do without this source."
    )


def heaps_of(pages: ResidentPages, arena: Arena) -> list[tuple[int, int]]:
    """The heaps of an arena that is not the main one, oldest first: (address, size in bytes).

    The newest holds the top; each leads to the one before it (heap_info.prev). Fewer than there
    are where one is not in RAM: the sum then falls short of what the arena has.
    """
    heaps: list[tuple[int, int]] = []
    at = arena.top & -HEAP_ALIGNMENT
    while at and len(heaps) < _MAX_HEAPS:
        info = pages.words(at, 3)
        if info is None or info[0] != arena.address or not 0 < info[2] <= HEAP_ALIGNMENT:
            break
        heaps.append((at, info[2]))
        at = info[1]
    return heaps[::-1]
