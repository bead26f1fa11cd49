"""What Go's runtime counts of its heap, found in a program's data by its shape.

``runtime.memstats`` begins, since Go 1.19, with ``heapStats``: three sets of counters that writers
take in turn, whose sum is the truth, and which of them is in turn (runtime/mstats.go,
consistentHeapStats). That the sums agree with each other in some dozen ways is a pattern that
nothing else in a program's data has, so that no symbol is needed: most Go programs are stripped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from leakcase_collector.system.memory import Memory, MemoryMapping

from .resident import total

#: class_to_size of runtime/sizeclasses.go, the same from Go 1.16 to 1.24.
CLASS_BYTES = (
    0, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320,
    352, 384, 416, 448, 480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048,
    2304, 2688, 3072, 3200, 3456, 4096, 4864, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240,
    10880, 12288, 13568, 14336, 16384, 18432, 19072, 20480, 21760, 24576, 27264, 28672, 32768,
)  # fmt: skip
_CLASSES = len(CLASS_BYTES)
# heapStatsDelta: committed, released, inHeap, inStacks, inWorkBufs, inPtrScalarBits;
# tinyAllocCount, largeAlloc, largeAllocCount, smallAllocCount[]; largeFree, largeFreeCount,
# smallFreeCount[].
_WORDS = 6 + 3 + _CLASSES + 2 + _CLASSES
_SETS = 3
_PAGE_BYTES = 8192
_LEAST_BYTES = 64 << 10
_MOST_BYTES = 1 << 46
#: Data with more than this is not searched.
DATA_LIMIT_BYTES = 32 << 20
# From the start of memstats to numgc and numforcedgc, in words: stats, gen, noPLock, six sizes,
# last_gc_unix, pause_total_ns, pause_ns and pause_end of 256 each.
_LAST_GC = _SETS * _WORDS + 2 + 6
_NUMGC = _LAST_GC + 2 + 512
_ENABLED = _NUMGC + 4
_YEAR_2001_NS, _YEAR_2100_NS = 978_307_200 * 10**9, 4_102_444_800 * 10**9


class GoHeap(NamedTuple):
    """`committed_bytes` without what was given back; None: not known for this version."""

    used_bytes: int
    committed_bytes: int
    stack_bytes: int
    collections: Optional[int]


def go_heap(memory: Memory, mappings: Sequence[MemoryMapping], inode: int) -> Optional[GoHeap]:
    """The figures of the program whose file is `inode`; None where they are not found."""
    for start, end in _data_spans(mappings, inode):
        for low, high in memory.resident_runs(start, end):
            content = bytearray(high - low)
            got = memory.read_into(low, memoryview(content))
            found = find_go_heap(memoryview(content)[: got // 8 * 8])
            if found is not None:
                return found
    return None


def resident_bytes(memory: Memory, mappings: Sequence[MemoryMapping]) -> int:
    """What of Go's arenas is in RAM: they begin at 0x00c0 << 32, or at another 0x??c0 << 32 where
    that was taken (runtime/malloc.go, arenaHints)."""
    return sum(
        total(memory.resident_runs(m.start, m.end))
        for m in mappings
        if m.writable and not m.path.startswith(b"/") and (m.start >> 32) & 0xFF == 0xC0
        and m.start >> 40 < 0x7F
    )  # fmt: skip


def _data_spans(mappings: Sequence[MemoryMapping], inode: int) -> Iterator[tuple[int, int]]:
    """The program's writable data, with its .bss, which follows without a name."""
    for index, mapping in enumerate(mappings):
        if mapping.inode != inode or not mapping.writable:
            continue
        end = mapping.end
        for following in mappings[index + 1 : index + 2]:
            if following.start == end and following.writable and not following.path:
                end = following.end
        yield mapping.start, min(end, mapping.start + DATA_LIMIT_BYTES)


def find_go_heap(content: memoryview) -> Optional[GoHeap]:
    """The figures in a program's data, whose first byte is at a multiple of 8."""
    words = content.cast("q")
    thirds = zip(words, words[_WORDS:], words[2 * _WORDS :])
    for at, three in enumerate(thirds):
        committed = sum(three)
        if committed & 4095 or not _LEAST_BYTES <= committed < _MOST_BYTES:
            continue
        if at + _SETS * _WORDS + 2 > len(words):
            return None
        turn = words[at + _SETS * _WORDS] & 0xFFFFFFFF
        sums = _sums(words, at)
        if turn < _SETS and _are_sound(sums):
            # Where two sets are empty, one or two too few look the same: what follows decides.
            later = [at + shift * _WORDS for shift in range(_SETS)]
            places = [place for place in later if _is_followed(words, place)]
            return _figures(sums, _collections(words, places[0]) if len(places) == 1 else None)
    return None


def _sums(words: memoryview, at: int) -> list[int]:
    second, third = at + _WORDS, at + 2 * _WORDS
    return [words[at + i] + words[second + i] + words[third + i] for i in range(_WORDS)]


def _is_followed(words: memoryview, at: int) -> bool:
    """By what spans, caches, profiling's buckets, the collector and others have, none of it 0, and
    behind the collections by ``enablegc``."""
    if at + _ENABLED >= len(words):
        return False
    return min(words[at + _LAST_GC - 5 : at + _LAST_GC]) > 0 and words[at + _ENABLED] & 0xFF == 1


def _are_sound(sums: list[int]) -> bool:
    committed, released, in_heap, in_stacks, in_buffers, in_bits = sums[:6]
    held = in_heap + in_stacks + in_buffers + in_bits
    allocated, freed = sums[9 : 9 + _CLASSES], sums[11 + _CLASSES :]
    return (
        min(sums) >= 0
        and in_heap > 0
        and in_stacks > 0
        and not (in_heap | in_stacks | in_buffers) % _PAGE_BYTES
        and not released % 4096
        and held <= committed
        and all(gone <= made for gone, made in zip(freed, allocated))
        and any(allocated)
        and sums[9 + _CLASSES] <= sums[7]
        and sums[10 + _CLASSES] <= sums[8]
        and _live_bytes(sums) <= in_heap
    )


def _live_bytes(sums: list[int]) -> int:
    """As ReadMemStats counts HeapAlloc, but that what a thread has in hand is not counted yet."""
    allocated, freed = sums[9 : 9 + _CLASSES], sums[11 + _CLASSES :]
    small = sum(s * (made - gone) for s, made, gone in zip(CLASS_BYTES, allocated, freed))
    return small + sums[7] - sums[9 + _CLASSES]


def _figures(sums: list[int], collections: Optional[int]) -> GoHeap:
    return GoHeap(_live_bytes(sums), sums[0], sums[3], collections)


def _collections(words: memoryview, at: int) -> Optional[int]:
    """numgc, where what stands around it is what it should be."""
    counts = struct.pack("=q", words[at + _NUMGC])
    done, forced = struct.unpack("=II", counts)
    last_ns = words[at + _LAST_GC]
    is_sound = _YEAR_2001_NS < last_ns < _YEAR_2100_NS if done else last_ns == 0
    return done if is_sound and forced <= done else None
