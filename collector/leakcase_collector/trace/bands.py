"""Which sizes grow, as censuses of glibc's heap tell, and what of the allocations they are.

A window that watches those sizes alone costs less for each second, so that it can be longer, and
leaves fewer blocks to follow. It may miss what grows all the same: the heap may have grown by
something else so far. So some windows always watch all sizes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from leakcase_bundle.records import HeapCensus, HeapSizes
from leakcase_collector.heap.sizes import last_of_class

#: Of the growth, what a band holds at least.
_GROWTH_SHARE = 0.9
#: Of all allocations, what it holds at most: else too little is saved.
_MOST_CALLS = 0.5
#: More chunks by so many times the square root of their number are no chance.
_SURE = 2.0
_LOOKS_MAX = 16
#: A census that could not make sense of more than this says too little of single sizes.
_SKIPPED_SHARE = 0.01
#: A chunk of glibc's has its size in front (8 bytes), is a multiple of 16, and keeps a rest that
#: is no chunk itself (16 bytes; _int_malloc); one that is mapped has 8 more, and is a number of
#: pages (sysmalloc_mmap).
_HEADER_BYTES, _ROUNDED_BYTES = 8, 39
#: The smallest chunk has 32 bytes.
_OF_ANY_BYTES = 64
_MAPPED_FROM_BYTES, _MAPPED_ROUNDED_BYTES = 128 << 10, 4096 + 23


class Band(NamedTuple):
    """Sizes as they are asked for, both ends included."""

    smallest_bytes: int
    largest_bytes: int

    def holds(self, size_bytes: int) -> bool:
        return self.smallest_bytes <= size_bytes <= self.largest_bytes


#: Of each class of chunk sizes, by its smallest: chunks and bytes in use.
Look = Mapping[int, tuple[int, int]]


class SizeGrowth:
    """What censuses and windows say of sizes, in the order in which they come."""

    def __init__(self) -> None:
        self._looks: list[Look] = []
        self._is_exact = False
        self._made: Counter[int] = Counter()
        #: By band, of windows that watched it: allocations in it, and all.
        self._seen: dict[Band, tuple[int, int]] = {}
        self._is_settled = True
        self._band: Optional[Band] = None

    def learn(self, record: Any) -> None:
        """A record of the heap's census, as they come. What a sample told of the heap is not
        taken: it is wrong by more than what grows."""
        if isinstance(record, HeapCensus):
            skipped = record.skipped_bytes > _SKIPPED_SHARE * record.system_bytes
            self._is_exact = record.sampled_permille is None and not skipped
        elif isinstance(record, HeapSizes) and self._is_exact:
            rows = zip(record.chunk_bytes, record.in_use_chunks, record.in_use_bytes)
            self.take_look({size: (chunks, held) for size, chunks, held in rows})

    def take_look(self, look: Look) -> None:
        """A census."""
        self._is_settled = False
        self._looks.append(look)
        if len(self._looks) > _LOOKS_MAX:
            del self._looks[1::2]

    def take_made(self, made: Mapping[int, int]) -> None:
        """A window that watched all sizes: how many blocks of each were asked for."""
        self._is_settled = False
        self._made.update(made)

    def take_seen(self, band: Band, inside: int, passed_over: int) -> None:
        """A window that watched a band: how many allocations were in it, and how many not."""
        self._is_settled = False
        before, whole = self._seen.get(band, (0, 0))
        self._seen[band] = (before + inside, whole + inside + passed_over)

    def share_of(self, band: Band) -> float:
        """Of the allocations that windows saw, those in a band; 1 where there were none."""
        inside, whole = self._seen.get(band, (0, 0))
        if whole:
            return inside / whole
        whole = sum(self._made.values())
        inside = sum(count for size, count in self._made.items() if band.holds(size))
        return inside / whole if whole else 1.0

    def band(self) -> Optional[Band]:
        """The sizes that hold nearly all that grows, few of what is allocated among them; None
        where there are none, or no two censuses yet."""
        if not self._is_settled:
            self._band, self._is_settled = self._narrowest(), True
        return self._band

    def _narrowest(self) -> Optional[Band]:
        grown = sorted(growth(self._looks).items())
        wanted = _GROWTH_SHARE * sum(held for _, held in grown)
        best: Optional[tuple[float, int, Band]] = None
        for first, (smallest, _) in enumerate(grown):
            held = 0
            for chunk_bytes, more in grown[first:]:
                held += more
                if held >= wanted:
                    band = Band(least_request(smallest), greatest_request(chunk_bytes))
                    width = band.largest_bytes - band.smallest_bytes
                    best = min(best or (math.inf, 0, band), (self.share_of(band), width, band))
                    break
        return None if best is None or best[0] > _MOST_CALLS else best[2]


def growth(looks: Sequence[Look]) -> dict[int, int]:
    """By class, the bytes by which what is always in use became more: the least of the later half
    of the looks over the least of the earlier; only classes where that is no chance. The first
    third is left out: a program that was started just now grows by what it needs for its work."""
    looks = looks[len(looks) // 3 :]
    middle = len(looks) // 2
    if not middle:
        return {}
    found = {}
    for size in set().union(*looks):
        chunks, held = zip(*(look.get(size, (0, 0)) for look in looks))
        before, after = min(chunks[:middle]), min(chunks[middle:])
        more = min(held[middle:]) - min(held[:middle])
        if more > 0 and after - before > _SURE * math.sqrt(before + after):
            found[size] = more
    return found


def least_request(chunk_bytes: int) -> int:
    """The smallest size asked for that a chunk of this size is handed out for."""
    if chunk_bytes >= _MAPPED_FROM_BYTES:
        return chunk_bytes - _MAPPED_ROUNDED_BYTES
    return 0 if chunk_bytes < _OF_ANY_BYTES else chunk_bytes - _ROUNDED_BYTES


def greatest_request(chunk_bytes: int) -> int:
    """The largest size that a chunk of the class that begins with this one has room for."""
    return last_of_class(chunk_bytes) - _HEADER_BYTES
