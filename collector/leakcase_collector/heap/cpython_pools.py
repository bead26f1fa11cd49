"""pymalloc's pools: where CPython keeps all objects of up to 512 bytes, tracked or not.

A pool holds blocks of one size behind a header of 48 bytes (struct pool_header in
Objects/obmalloc.c, since 3.10 16 KB long, before 4 KB). The roots that lead to the pools are
static, so pools are found by their header: its size class, its last block's offset, which both are
functions of the pool's size, its count and its free list must agree.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional, Union

from leakcase_collector.system.clock import thread_cpu_ns
from leakcase_collector.system.memory import Memory, MemoryMapping

from .cpython_gc import Budget
from .cpython_types import PythonType, TypeTable

#: ref.count (and padding), freeblock, nextpool, prevpool, arenaindex, szidx, nextoffset,
#: maxnextoffset.
_HEADER = struct.Struct("=I4xQQQIIII")
HEADER_BYTES = 48
_POOL_SIZES = (16384, 4096)
_CLASSES = 32
_ALIGNMENT = 16
_ARENAS_MAX = 1 << 24
#: The smallest arena; neighbours are joined by the kernel, never cut.
_ARENA_BYTES = 256 << 10
_HEADERS_A_LOOK = 4096
#: Looked at first, to know the cost.
_TRIAL_POOLS = 64
_READS = 6
#: Of a block that are looked at: PyGC_Head, two words of an instance, ob_refcnt, ob_type.
_WORDS = 6
_OFTEN = 4
#: A reference count: above it is a pointer. Immortal objects of 3.12 and 3.13 have 2**32 - 1; since
#: 3.14 the highest 16 bits are flags, such as that the object is immortal (Include/refcount.h).
_REFERENCES_MAX = 1 << 40
_REFERENCES_MASK = (1 << 48) - 1


class _Header(NamedTuple):
    in_use: int
    first_free: int
    size_class: int
    #: How many blocks were handed out at least once; those behind them never were.
    carved: int

    @property
    def block_bytes(self) -> int:
        return block_bytes(self.size_class)


def block_bytes(size_class: int) -> int:
    """The size of the blocks of a class."""
    return (size_class + 1) * _ALIGNMENT


def parse_header(
    content: Union[bytes, bytearray], address: int, pool_bytes: int
) -> Optional[_Header]:
    """The header of a pool at `address`, or None where these 48 bytes are none."""
    count, free, following, previous, arena, index, next_at, last_at = _HEADER.unpack(content)
    size = block_bytes(index)
    if index >= _CLASSES or last_at != pool_bytes - size or arena >= _ARENAS_MAX:
        return None
    carved, rest = divmod(next_at - HEADER_BYTES, size)
    if rest or carved < 1 or next_at > last_at + size or count > carved:
        return None
    if following % 8 or previous % 8 or not (free == 0 or 0 < free - address < pool_bytes):
        return None
    return _Header(count, free, index, carved)


class Pools:
    """All pools of a target, and how many blocks are in use by size class: exact."""

    def __init__(self, memory: Memory, pool_bytes: int) -> None:
        self._memory = memory
        self.pool_bytes = pool_bytes
        self.addresses = array("Q")
        self._in_use = array("H")
        self._size_classes = array("B")
        self.free_pools = 0
        self.is_whole = True

    def find(self, mappings: Sequence[MemoryMapping], budget: Budget) -> None:
        header = bytearray(HEADER_BYTES)
        view = memoryview(header)
        for number, address in enumerate(self._places(mappings)):
            if number % _HEADERS_A_LOOK == 0 and budget.is_spent:
                self.is_whole = False
                return
            if self._memory.read_into(address, view) < HEADER_BYTES:
                continue
            found = parse_header(header, address, self.pool_bytes)
            if found is None:
                continue
            if found.in_use:
                self.addresses.append(address)
                self._in_use.append(found.in_use)
                self._size_classes.append(found.size_class)
            else:
                self.free_pools += 1

    def blocks(self, stride: int = 1) -> list[int]:
        """Blocks in use by size class, in every pool or in every `stride`-th."""
        out = [0] * _CLASSES
        first = stride // 2
        for in_use, size_class in zip(
            self._in_use[first::stride], self._size_classes[first::stride]
        ):
            out[size_class] += in_use
        return out

    def _places(self, mappings: Sequence[MemoryMapping]) -> Iterator[int]:
        """Where a pool may begin: in RAM, aligned to the size of pools."""
        size = self.pool_bytes
        for mapping in mappings:
            is_anonymous = not mapping.path or mapping.path.startswith(b"[anon:")
            is_data = mapping.readable and mapping.writable and mapping.is_private
            if not (is_anonymous and is_data and mapping.end - mapping.start >= _ARENA_BYTES):
                continue
            for low, high in self._memory.resident_runs(mapping.start, mapping.end):
                yield from range(-(-low // size) * size, high, size)


def find_pools(memory: Memory, budget: Budget) -> tuple[Optional[Pools], bool]:
    """The pools of whichever size there are, None where there are none; and whether there was time
    to find them all: if not, None as well, as a part of them would look like all."""
    mappings = memory.mappings()
    for pool_bytes in _POOL_SIZES:
        pools = Pools(memory, pool_bytes)
        pools.find(mappings, budget)
        if not pools.is_whole:
            return None, False
        if pools.addresses:
            return pools, True
    return None, True


class KnownTypes:
    """Tells types from other words fast: they are static data of a file, or heap types that were
    met on the collector's lists, or stand before many objects."""

    def __init__(
        self, types: TypeTable, heap_types: set[int], mappings: Sequence[MemoryMapping]
    ) -> None:
        self._types = types
        self._heap_types = heap_types
        self._starts: list[int] = []
        self._ends: list[int] = []
        for mapping in mappings:
            # What follows a file's data without a gap is its .bss.
            is_bss = not mapping.path and self._ends[-1:] == [mapping.start]
            if mapping.writable and (mapping.path.startswith(b"/") or is_bss):
                self._starts.append(mapping.start)
                self._ends.append(mapping.end)

    def find(self, address: int, times: int) -> Optional[PythonType]:
        """The type at `address`, a word that stands `times` times where one pool has types."""
        if address in self._heap_types or self._is_data(address):
            return self._types.find(address)
        if times < _OFTEN:
            return None
        found = self._types.find(address)
        if found is not None:
            self._heap_types.add(address)
        return found

    def _is_data(self, address: int) -> bool:
        index = bisect_right(self._starts, address) - 1
        return index >= 0 and address < self._ends[index]


class Contents:
    """What the blocks that were looked at hold: counts by (type's address, size class)."""

    def __init__(self, known: KnownTypes, stride: int = 1) -> None:
        self._known = known
        self.stride = stride
        self.types: dict[int, PythonType] = {}
        self.untracked: Counter[tuple[int, int]] = Counter()
        self.tracked: Counter[tuple[int, int]] = Counter()
        self.blocks = 0

    def add(self, pool: memoryview, header: _Header, free: bytearray) -> None:
        """Count the blocks of one pool; `free` has 1 for those that are not in use."""
        words = pool.cast("Q")
        self.blocks += header.in_use
        step = header.block_bytes // 8
        start, end = HEADER_BYTES // 8, HEADER_BYTES // 8 + header.carved * step
        for before in range(0, min(step, _WORDS) - 1, 2):
            self._count(words[start:end], header.size_class, free, before)

    def _count(self, blocks: memoryview, size_class: int, done: bytearray, before: int) -> None:
        """Count objects that begin `before` words within their blocks, but for those `done`."""
        step = block_bytes(size_class) // 8
        kinds = blocks[before + 1 :: step].tolist()
        wanted = {
            address
            for address, times in Counter(kinds).items()
            if (found := self._find(address, times)) and found.before_bytes == 8 * before
        }
        if not wanted:
            return
        references = blocks[before::step].tolist()
        # _gc_next, 0 where the collector does not track the object.
        links = blocks[before - 2 :: step].tolist() if before else None
        for number, kind in enumerate(kinds):
            count = references[number] & _REFERENCES_MASK
            if kind not in wanted or count >= _REFERENCES_MAX or done[number]:
                continue
            # A tuple of types would look like an instance two words on, and so would one that was
            # freed and is kept for the next.
            done[number] = 1
            if count:
                tally = self.tracked if links and links[number] else self.untracked
                tally[kind, size_class] += 1

    def _find(self, address: int, times: int) -> Optional[PythonType]:
        found = self._known.find(address, times)
        if found is not None:
            self.types[address] = found
        return found


def look_into(memory: Memory, pools: Pools, known: KnownTypes, cpu_ns: int) -> Contents:
    """Look at every pool, or at every n-th where every one would cost more than `cpu_ns`."""
    total = len(pools.addresses)
    buffer = bytearray(pools.pool_bytes)
    started_ns = thread_cpu_ns()
    largest = max(total // _TRIAL_POOLS, 1)
    trial = range(0, total, largest)
    for index in trial:
        _look(memory, pools.addresses[index], buffer, Contents(known))
    spent_ns = thread_cpu_ns() - started_ns
    needed_ns = spent_ns * total // len(trial)
    stride = min(-(-needed_ns // max(cpu_ns - spent_ns, 1)), largest) or 1
    contents = Contents(known, stride)
    for address in pools.addresses[stride // 2 :: stride]:
        _look(memory, address, buffer, contents)
    return contents


def _look(memory: Memory, address: int, buffer: bytearray, contents: Contents) -> None:
    """Read one pool. Left out: one that goes on changing while it is read, so that its books
    disagree, and one that is not all in RAM."""
    view = memoryview(buffer)
    for _ in range(_READS):
        if memory.read_into(address, view[:HEADER_BYTES]) < HEADER_BYTES:
            return
        header = parse_header(buffer[:HEADER_BYTES], address, len(buffer))
        if header is None or not header.in_use:
            return
        # Up to the first words of the last block; what lies behind was perhaps never touched.
        used = HEADER_BYTES + (header.carved - 1) * header.block_bytes
        used += min(header.block_bytes, 8 * _WORDS)
        # What is swapped out stays so; a page that the kernel moves just now comes back.
        if memory.resident_runs(address, address + used) != [(address, address + used)]:
            continue
        if memory.read_into(address, view[:used]) < used:
            return
        if parse_header(buffer[:HEADER_BYTES], address, len(buffer)) != header:
            continue
        free = _free_blocks(view, address, header)
        if free is not None:
            contents.add(view, header, free)
            return


def _free_blocks(view: memoryview, address: int, header: _Header) -> Optional[bytearray]:
    """For each block whether it is on the free list, whose links are the blocks' first words; None
    where that does not agree with the header."""
    free = bytearray(header.carved)
    link = header.first_free
    for _ in range(header.carved - header.in_use):
        number, rest = divmod(link - address - HEADER_BYTES, header.block_bytes)
        if rest or not 0 <= number < header.carved or free[number]:
            return None
        free[number] = 1
        at = link - address
        link = int.from_bytes(view[at : at + 8], "little")
    return free if link == 0 else None
