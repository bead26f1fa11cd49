"""Layouts of releases whose libraries cannot be had: doubles, built from glibc's declarations.

2.23 to 2.25: no tcache. 2.26: tcache with counts of one byte. 2.27 to 2.29: have_fastchunks before
the fastbins. 2.30: counts of two bytes. Links between freed chunks are plain in all of them.
"""

from __future__ import annotations

import struct
from typing import Optional

import pytest

from leakcase_collector.errors import NotSupported
from leakcase_collector.heap.arenas import HeapNotFound, HeapUnsound
from leakcase_collector.heap.census import Budget, take_census
from leakcase_collector.system.memory import MemoryMapping

DATA, HEAP = 0x7F0000000000, 0x555555000000
LIBC = b"/lib/x86_64-linux-gnu/libc-2.28.so"
# By release: where bins and fastbins are, the size of a thread cache's chunk, bytes of its counts.
RELEASES = {
    "2.24": (0x68, 0x08, None, 0),
    "2.26": (0x68, 0x08, 0x250, 1),
    "2.28": (0x70, 0x10, 0x250, 1),
    "2.30": (0x70, 0x10, 0x290, 2),
}


class Double:
    """A memory of the C library's data and of a heap."""

    pointer_bytes = 8

    def __init__(self, data: bytes, heap: bytes, path: bytes = LIBC) -> None:
        self._pieces = {DATA: data, HEAP: heap}
        self._path = path

    def mappings(self) -> list[MemoryMapping]:
        def line(start: int, path: bytes, inode: int) -> MemoryMapping:
            end = start + len(self._pieces[start])
            return MemoryMapping(start, end, True, True, False, True, 0, b"fd:00", inode, path)

        return [line(HEAP, b"[heap]", 0), line(DATA, self._path, 7)]

    def read(self, address: int, size: int) -> bytes:
        content = bytearray(size)
        if self.read_into(address, memoryview(content)) < size:
            raise NotSupported("not there")
        return bytes(content)

    def read_into(self, address: int, view: memoryview) -> int:
        for start, piece in self._pieces.items():
            if start <= address < start + len(piece):
                part = piece[address - start : address - start + len(view)]
                view[: len(part)] = part
                return len(part)
        return 0

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        pieces = [(s, s + len(piece)) for s, piece in self._pieces.items()]
        runs = [(max(start, low), min(end, high)) for low, high in pieces]
        return [run for run in runs if run[0] < run[1]]


def double(release: str, path: bytes = LIBC) -> Double:
    """A heap of 100 chunks of 64 bytes: five in a fastbin, three in the thread's cache."""
    bins_at, fastbins_at, cache_bytes, count_bytes = RELEASES[release]
    heap = bytearray(0x21000)
    at = 0
    if cache_bytes is not None:
        struct.pack_into("=QQ", heap, 0, 0, cache_bytes | 1)
        at = cache_bytes
    first = at
    for _ in range(100):
        struct.pack_into("=QQ", heap, at, 0, 64 | 1)
        at += 64
    struct.pack_into("=QQ", heap, at, 0, len(heap) - at | 1)
    chunks = [first + 64 * index for index in range(100)]
    _link(heap, chunks[10:15], 0)
    if cache_bytes is not None:
        _link(heap, chunks[20:23], 16)
        heap[16 + 2 * count_bytes] = 3
        struct.pack_into("=Q", heap, 16 + 64 * count_bytes + 2 * 8, HEAP + chunks[20] + 16)
    arena = DATA + 0x400
    data = bytearray(0x2000)
    _mp(data, 0x100, release)
    struct.pack_into("=Q", data, 0x400 + fastbins_at + 2 * 8, HEAP + chunks[10])
    struct.pack_into("=Q", data, 0x400 + bins_at - 16, HEAP + at)
    for index in range(127):
        pair = arena + bins_at + 16 * index
        struct.pack_into("=QQ", data, pair - DATA, pair - 16, pair - 16)
    after = 0x400 + bins_at + 254 * 8 + 16
    struct.pack_into("=5Q", data, after, arena, 0, 1, len(heap), len(heap))
    return Double(bytes(data), bytes(heap), path)


def _link(heap: bytearray, chunks: list[int], lead: int) -> None:
    """fd of each chunk to the next, plain."""
    for chunk, following in zip(chunks, chunks[1:]):
        struct.pack_into("=Q", heap, chunk + 16, HEAP + following + lead)


def _mp(data: bytearray, at: int, release: str) -> None:
    """n_mmaps, n_mmaps_max, max_n_mmaps, no_dyn_threshold; mmapped_mem, its maximum, sbrk_base."""
    struct.pack_into("=5Q", data, at, 0x20000, 0x20000, 0x20000, 8, 0)
    struct.pack_into("=4i3Q", data, at + 40, 0, 65536, 0, 0, 0, 0, HEAP)


@pytest.mark.parametrize("release", RELEASES)
def test_a_heap_of_an_old_release_is_counted_to_the_byte(release: str) -> None:
    census = take_census(double(release), Budget(1 << 40, 1 << 40))
    (arena,) = census.arenas
    cached: Optional[int] = 3 if RELEASES[release][2] else 0
    assert census.is_complete
    assert arena.system_bytes == 0x21000
    assert (arena.fast_chunks, arena.fast_bytes) == (5, 5 * 64)
    assert arena.cached_chunks == cached
    assert arena.in_use[64] == 100 - 5 - (cached or 0)


@pytest.mark.parametrize("path", [b"/usr/bin/static-program", b"/opt/lib/libc-2.24.so (deleted)"])
def test_the_arena_is_found_in_a_static_program_and_in_a_replaced_library(path: bytes) -> None:
    assert take_census(double("2.28", path), Budget(1 << 40, 1 << 40)).is_complete


def test_a_ring_that_does_not_close_is_no_arena() -> None:
    made = double("2.28")
    data = bytearray(made.read(DATA, 0x2000))
    struct.pack_into("=Q", data, 0x400 + 0x70 + 254 * 8 + 16, DATA + 0x1000)
    with pytest.raises(HeapNotFound):
        take_census(Double(bytes(data), made.read(HEAP, 0x21000)), Budget(1 << 40, 1 << 40))


def test_a_layout_that_is_not_known_is_refused_rather_than_guessed() -> None:
    """Eight bytes more between top and bins than any release has."""
    made = double("2.28")
    data = made.read(DATA, 0x2000)
    moved = data[: 0x400 + 0x60] + bytes(8) + data[0x400 + 0x60 : -8]
    with pytest.raises(HeapNotFound):
        take_census(Double(moved, made.read(HEAP, 0x21000)), Budget(1 << 40, 1 << 40))


def test_a_heap_whose_top_was_overwritten_is_refused() -> None:
    made = double("2.28")
    heap = bytearray(made.read(HEAP, 0x21000))
    heap[0x300:0x3000] = bytes(0x2D00)
    with pytest.raises(HeapUnsound):
        take_census(Double(made.read(DATA, 0x2000), bytes(heap)), Budget(1 << 40, 1 << 40))
