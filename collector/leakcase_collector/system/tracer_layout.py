"""The structures of collector/bpf/maps.h, packed and unpacked, and what they mean."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Optional

from leakcase_collector.system.entry_point import EntryPoint

#: In the order of the numbers in alloc.bpf.c; words of the vocabulary ``allocator_call``.
CALLS = (
    "malloc", "calloc", "realloc", "reallocarray", "memalign", "aligned-alloc", "posix-memalign",
    "valloc", "pvalloc", "free", "operator-new", "operator-delete", "mmap", "munmap", "mremap",
    "python-new", "python-free",
)  # fmt: skip
FREES = ("free", "operator-delete", "munmap", "python-free")
#: Calls that give back one block and hand out another.
MOVES = ("realloc", "reallocarray", "mremap")

CONTROL = struct.Struct("<IIQQQQQIIII")
PROGRESS = struct.Struct("<QQQQ")
BLOCK = struct.Struct("<QQQII")
SITE = struct.Struct("<QQQQQ")
COUNTERS = struct.Struct("<24Q64Q13Q")
SAMPLE = struct.Struct("<QQQQIIII33Q528s")
ADDRESS = struct.Struct("<Q")
ZERO = bytes(4)
_CODE_RANGES = 64
_PAGE_WORDS = 1024
_HIGHEST = (1 << 63) - 1
_MAY_THROW = 32
#: Sizes without a limit.
ANY_SIZE = (1 << 64) - 1
_REGISTERS = {"x86_64": 17, "aarch64": 33}


class TracerLimits(NamedTuple):
    """How much is kept; all of it is memory of the kernel's but `ring_bytes`, which is ours too."""

    live_blocks: int = 65_536
    sites: int = 16_384
    ring_bytes: int = 2 * 1024 * 1024
    threads: int = 4096
    #: Copied of each new stack: 4096, 8192, 16384 or 32768 (libuv has a frame of 15.7 KB).
    stack_bytes: int = 8192
    #: Of the stack, what its key is made of: 256 to 2048, in steps of 256.
    key_bytes: int = 2048
    #: Whether the kernel sets the memory for `live_blocks` aside at once: quicker, and it cannot
    #: run short later.
    preallocated: bool = True

    @property
    def samples_at_a_time(self) -> int:
        """Copies of stacks that are taken off the ring at once: half a megabyte of them."""
        return max((512 << 10) // self.stack_bytes, 1)


class StackSample(NamedTuple):
    """One allocation as its caller sees it right after the return.

    `registers` are by DWARF number: 17 of x86-64 with rip as 16, 33 of aarch64 with sp as 31 and pc
    as 32. The program counter is the return address; the stack pointer is already popped.
    """

    key: int
    time_ns: int
    tid: int
    call: str
    size: int
    address: int
    registers: tuple[int, ...]
    #: From the stack pointer upwards; short where the stack ends.
    stack: bytes
    #: ``struct python_frames`` of collector/bpf/python.h.
    python: Optional[bytes]

    @property
    def sp(self) -> int:
        return self.registers[7 if len(self.registers) == _REGISTERS["x86_64"] else 31]


class LiveBlock(NamedTuple):
    """A block that was handed out and not seen given back."""

    address: int
    key: int
    size: int
    #: CLOCK_MONOTONIC.
    time_ns: int
    tid: int
    call: str


class SiteCounts(NamedTuple):
    allocations: int
    allocated_bytes: int
    freed: int
    freed_bytes: int


class TracerCounters(NamedTuple):
    """Sums since the tracer was made; `first_ns`, `last_ns` and `is_capped` since it was armed."""

    #: By word; of calls within calls only the outermost counts. Failed ones are among them.
    calls: dict[str, int]
    #: Allocations whose size's highest bit is bit i; those of 0 bytes are in the first.
    size_log2: list[int]
    allocations: int
    allocated_bytes: int
    #: Calls that give back, of whatever block.
    frees: int
    #: Blocks in `live` that were given back.
    freed_blocks: int
    freed_bytes: int
    failed: int
    nested: int
    #: By a process that shares the memory, as after vfork(2).
    foreign: int
    #: Blocks whose address was handed out again though no free of it was seen.
    reissued: int
    lost_live: int
    lost_sites: int
    lost_samples: int
    #: Calls that were not seen: more threads than kept, or the kernel could not run the program.
    missed: int
    is_capped: bool
    first_ns: Optional[int]
    last_ns: Optional[int]
    #: Allocations that were not counted for their size.
    passed_over: int = 0


def cookie(point: EntryPoint) -> int:
    """What alloc.bpf.c has to know of a probe: the call, and where its arguments are."""
    packed = CALLS.index(point.call) | (_MAY_THROW if point.may_throw else 0)
    for index, register in enumerate(point.arguments[:4]):
        packed |= register << 8 + 8 * index
    return packed


def pack_code_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """``struct code_ranges``; where there are too many, the nearest are taken for one.

    The kernel's page of old system calls, [vsyscall], is left out: the programs compare addresses
    as signed numbers, and nothing returns there.
    """
    merged = merge_ranges((r for r in ranges if r[1] <= _HIGHEST), _CODE_RANGES)
    if not merged:
        return bytes(16 + 16 * _CODE_RANGES + 8 * _PAGE_WORDS)
    pages = bytearray(8 * _PAGE_WORDS)
    for start, end in merged:
        for page in range(start >> 12, min((end + 4095) >> 12, (start >> 12) + 64 * _PAGE_WORDS)):
            pages[page >> 3 & 8 * _PAGE_WORDS - 1] |= 1 << (page & 7)
    lowest = merged[0][0]
    unused = [_HIGHEST] * (_CODE_RANGES - len(merged))
    starts = [start for start, _ in merged] + unused
    ends = [end for _, end in merged] + unused
    numbers = struct.pack(f"<{2 + 2 * _CODE_RANGES}Q", lowest, merged[-1][1] - lowest,
                          *starts, *ends)  # fmt: skip
    return numbers + bytes(pages)


def merge_ranges(ranges: Iterable[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Ascending, adjacent ones joined; then the smallest gaps closed until there are `most`."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    while len(merged) > most:
        at = min(range(len(merged) - 1), key=lambda i: merged[i + 1][0] - merged[i][1])
        merged[at : at + 2] = [(merged[at][0], merged[at + 1][1])]
    return merged


def unpack_blocks(keys: bytes, values: bytes) -> Iterator[LiveBlock]:
    """Of the map `live`, keys in a row and values in a row."""
    for (address,), (key, size, time_ns, tid, call) in zip(
        ADDRESS.iter_unpack(keys), BLOCK.iter_unpack(values)
    ):
        yield LiveBlock(address, key, size, time_ns, tid, CALLS[call])


def unpack_sites(keys: bytes, values: bytes) -> Iterator[tuple[int, SiteCounts]]:
    """Of the map `sites`, likewise."""
    for (key,), counts in zip(ADDRESS.iter_unpack(keys), SITE.iter_unpack(values)):
        yield key, SiteCounts(*counts[:4])


def unpack_sample(record: bytes) -> StackSample:
    key, time_ns, size, address, tid, call, stack_bytes, has_python, *rest = SAMPLE.unpack_from(
        record
    )
    registers = tuple(rest[: _REGISTERS[os.uname().machine]])
    stack = record[SAMPLE.size : SAMPLE.size + stack_bytes]
    return StackSample(
        key, time_ns, tid, CALLS[call], size, address, registers, stack,
        rest[33] if has_python else None,
    )  # fmt: skip


def unpack_counters(values: bytes, progress: Sequence[int], missed: int) -> TracerCounters:
    """Of the values of all CPUs."""
    sums = [sum(column) for column in zip(*COUNTERS.iter_unpack(values))]
    calls = {word: count for word, count in zip(CALLS, sums) if count}
    events, first_ns, last_ns, is_capped = progress
    (allocations, allocated_bytes, freed, freed_bytes, failed, nested, foreign, reissued,
     lost_live, lost_sites, lost_samples, lost_threads, passed_over) = (
        count & ANY_SIZE for count in sums[88:]
    )  # fmt: skip
    return TracerCounters(
        calls, sums[24:88], allocations, allocated_bytes, sum(calls.get(word, 0) for word in FREES),
        freed, freed_bytes, failed, nested, foreign, reissued, lost_live, lost_sites, lost_samples,
        lost_threads + missed, bool(is_capped), first_ns or None, last_ns or None, passed_over,
    )  # fmt: skip
