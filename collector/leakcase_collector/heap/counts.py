"""What a census found: by arena, by size, and what is known of its completeness."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .mapped import MappedChunk
from .sampling import error_bytes
from .walk import Walked


@dataclass
class ArenaCount:
    """What one arena holds. All but `system_bytes` add up to it where `is_complete`."""

    is_main: bool
    system_bytes: int
    heaps: int = 0
    in_use: Counter[int] = field(default_factory=Counter)
    cached_chunks: int = 0
    cached_bytes: int = 0
    fast_chunks: int = 0
    fast_bytes: int = 0
    free_chunks: int = 0
    free_bytes: int = 0
    top_bytes: int = 0
    overhead_bytes: int = 0
    resyncs: int = 0
    resident_bytes: int = 0
    free_resident_bytes: int = 0
    top_resident_bytes: int = 0
    #: Of what was not walked as a whole: how much was, of how much, and the variance of in_use.
    looked_at_bytes: int = 0
    estimated_bytes: int = 0
    variance: float = 0.0

    @property
    def in_use_chunks(self) -> int:
        return sum(self.in_use.values())

    @property
    def in_use_bytes(self) -> int:
        return sum(size * count for size, count in self.in_use.items())

    @property
    def accounted_bytes(self) -> int:
        freed = self.cached_bytes + self.fast_bytes + self.free_bytes
        return self.in_use_bytes + freed + self.top_bytes + self.overhead_bytes

    @property
    def skipped_bytes(self) -> int:
        return max(self.system_bytes - self.accounted_bytes, 0)

    @property
    def is_complete(self) -> bool:
        return self.accounted_bytes == self.system_bytes and not self.estimated_bytes

    def add(self, walked: Walked) -> None:
        """Book one stretch of it."""
        self.heaps += 1
        self.in_use.update(walked.in_use)
        self.free_chunks += walked.free_chunks
        self.free_bytes += walked.free_bytes
        self.top_bytes += walked.top_bytes
        self.overhead_bytes += walked.closing_bytes
        self.resyncs += walked.resyncs
        self.resident_bytes += walked.resident_bytes
        self.free_resident_bytes += walked.free_resident_bytes
        self.top_resident_bytes += walked.top_resident_bytes
        if walked.estimate is not None:
            self.looked_at_bytes += walked.estimate.looked_at_bytes
            self.estimated_bytes += walked.estimate.body_bytes
            self.variance += walked.estimate.variance

    def take_out(self, size: int, is_fast: bool) -> None:
        """A chunk that looked as if in use is in a list of free ones."""
        if not self.in_use[size]:
            return  # It changed hands between the walk and now.
        self.in_use[size] -= 1
        if is_fast:
            self.fast_chunks += 1
            self.fast_bytes += size
        else:
            self.cached_chunks += 1
            self.cached_bytes += size


@dataclass
class Census:
    """All arenas, in the allocator's order, and the mapped chunks."""

    arenas: list[ArenaCount]
    mapped: list[MappedChunk]
    #: None where the allocator's own count of mapped chunks was not found.
    mapped_is_complete: bool | None
    mapped_resident_bytes: int
    attempts: int = 1

    @property
    def system_bytes(self) -> int:
        return sum(arena.system_bytes for arena in self.arenas)

    @property
    def skipped_bytes(self) -> int:
        return sum(arena.skipped_bytes for arena in self.arenas)

    @property
    def is_complete(self) -> bool:
        return bool(self.mapped_is_complete) and all(arena.is_complete for arena in self.arenas)

    @property
    def sampled_share(self) -> float | None:
        """How much of the arenas was walked; None: all of it."""
        estimated = sum(arena.estimated_bytes for arena in self.arenas)
        left_out = estimated - sum(arena.looked_at_bytes for arena in self.arenas)
        return 1 - left_out / self.system_bytes if estimated else None

    @property
    def error_bytes(self) -> int | None:
        """A bound of the error of all that is in use, in 19 of 20 cases; None: it has none."""
        if self.sampled_share is None:
            return None
        used = sum(arena.in_use_bytes for arena in self.arenas)
        return error_bytes(used, sum(arena.variance for arena in self.arenas))

    @property
    def mapped_bytes(self) -> int:
        return sum(chunk.end - chunk.start for chunk in self.mapped)

    def in_use_sizes(self) -> Counter[int]:
        """How many chunks of each size are in use, mapped ones (by their pages) among them."""
        sizes: Counter[int] = Counter()
        for arena in self.arenas:
            sizes.update({size: count for size, count in arena.in_use.items() if count})
        sizes.update(chunk.end - chunk.start for chunk in self.mapped)
        return sizes
