"""What was found at each look into the target's memory: malloc's books, and CPython's objects.

The figures of a census are partly address space: what is free need not be resident. What a look
says here in bytes is resident, as far as the kernel told which pages are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from leakcase_bundle.records import HeapArena, HeapCensus, PythonCensus

#: An arena tells the same figures as the whole census.
Books: TypeAlias = HeapCensus | HeapArena


@dataclass(frozen=True, slots=True)
class Amount:
    """So many things, and their bytes together."""

    count: int
    size_bytes: int


NOTHING = Amount(0, 0)


@dataclass(frozen=True)
class HeapLook:
    """One walk over malloc's heaps."""

    seconds: float
    total: HeapCensus
    arenas: tuple[HeapArena, ...]
    sizes: Mapping[int, Amount]
    """What is in use by class of size: the class's smallest chunk, how many, how large."""

    @property
    def in_use_bytes(self) -> int:
        """Resident blocks in use, large ones with a mapping of their own included."""
        mapped = self.total.mapped_resident_bytes
        return used_bytes(self.total) + (self.total.mapped_bytes if mapped is None else mapped)

    @property
    def error_bytes(self) -> float:
        """A bound of the error of `in_use_bytes`; 0 where it was counted."""
        return (self.total.error_permille or 0) / 1000 * self.total.in_use_bytes

    @property
    def kept_bytes(self) -> int | None:
        """Resident memory that was freed and that malloc keeps; None: not known."""
        return kept_bytes(self.total)

    @property
    def returnable_bytes(self) -> int | None:
        """What malloc_trim(3) would give back.

        It gives back whole pages within free chunks of every arena, but the top of the main arena
        only (`mtrim`, glibc's malloc/malloc.c).
        """
        free = self.total.free_resident_bytes
        return None if free is None else free + (self.main_top_bytes or 0)

    @property
    def main_top_bytes(self) -> int | None:
        """What is resident of the main arena's top, its end that was never used or is free."""
        main = next((arena for arena in self.arenas if arena.arena == 0), self.total)
        return main.top_resident_bytes


def freed_bytes(books: Books) -> int:
    """Address space that was freed, or never handed out."""
    return books.cached_bytes + books.fast_bytes + books.free_bytes + books.top_bytes


def used_bytes(books: Books) -> int:
    """What blocks in use and the arena's own headers have resident."""
    held = books.in_use_bytes + books.overhead_bytes
    return held if books.resident_bytes is None else min(held, _not_surely_free(books))


def kept_bytes(books: Books) -> int | None:
    """What is resident and free; None: not known.

    At least what was seen: whole pages within free chunks, and the small blocks that were used a
    moment ago. Beyond that, what is resident and neither in use nor unread: free room beside
    blocks in use, in the same pages.
    """
    if books.resident_bytes is None:
        return None
    surely = books.resident_bytes - _not_surely_free(books)
    rest = books.resident_bytes - used_bytes(books) - books.skipped_bytes
    return max(surely, min(rest, freed_bytes(books)))


def _not_surely_free(books: Books) -> int:
    whole_pages = (books.free_resident_bytes or 0) + (books.top_resident_bytes or 0)
    surely = whole_pages + books.cached_bytes + books.fast_bytes
    return max(0, (books.resident_bytes or 0) - surely)


@dataclass(frozen=True)
class PythonLook:
    """One count of an interpreter's objects."""

    seconds: float
    total: PythonCensus
    types: Mapping[str, Amount]
    """The types with most bytes, objects that the collector tracks and others together."""
    folded: Amount
    """All other types."""
    least_listed_bytes: int
    """No type that is not listed has more than this."""

    @property
    def has_pools(self) -> bool:
        """Whether the books of pymalloc are known."""
        return self.total.pool_bytes is not None and self.total.block_bytes is not None

    @property
    def block_bytes(self) -> int:
        """Blocks in use in pymalloc's pools."""
        return self.total.block_bytes or 0

    @property
    def kept_bytes(self) -> int:
        """What pymalloc keeps free, in pools that are partly used and in empty ones."""
        pools = (self.total.pool_bytes or 0) + (self.total.free_pool_bytes or 0)
        return max(0, pools - self.block_bytes)

    @property
    def object_bytes(self) -> int:
        """All objects that were counted."""
        return (self.total.tracked_bytes or 0) + (self.total.untracked_bytes or 0)
