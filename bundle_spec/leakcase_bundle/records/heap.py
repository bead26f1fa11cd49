"""The allocator's own books, read from outside: what is in use, what is kept free, by size.

A chunk is a block with its header, so that sizes are what the heap spends, not what was asked for.
"""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import record, says, word


@record("heap.census")
class HeapCensus:
    """One walk over all heaps of glibc's malloc; its other records carry the same number.

    In the arenas `in_use_bytes` + `cached_bytes` + `fast_bytes` + `free_bytes` + `top_bytes` +
    `overhead_bytes` + `skipped_bytes` add up to `system_bytes` where `complete`. Mapped chunks
    have mappings of their own and are not part of that sum.
    """

    census: int
    taken_ns: int
    method: str = word("heap_method", "Both give the same numbers.")
    complete: bool = says(
        "Every byte that the allocator has from the kernel was accounted for, in each arena and "
        "in its mapped chunks."
    )
    arenas: int
    system_bytes: int = says("What the arenas have from the kernel: address space, not memory.")
    in_use_chunks: int = says("Handed out to the program, in arenas.")
    in_use_bytes: int
    cached_chunks: int = says("Freed, and kept by a thread for itself (tcache).")
    cached_bytes: int
    fast_chunks: int = says("Freed, and not merged yet (fastbins).")
    fast_bytes: int
    free_chunks: int = says("Freed and merged, in the arena's bins.")
    free_bytes: int
    top_bytes: int = says("The wilderness at the end of each arena, never handed out or merged.")
    overhead_bytes: int = says("The headers of arenas and heaps, and what closes a full one.")
    mapped_chunks: int = says("Large blocks with a mapping of their own.")
    mapped_bytes: int
    skipped_bytes: int = says("Not accounted for: swapped out, or changing while it was read.")
    resyncs: int = says("How often the walk lost the chain of chunks and found it again.")
    resident_bytes: Optional[int] = says("Pages of the arenas that are in RAM.", default=None)
    free_resident_bytes: Optional[int] = says(
        "Pages in RAM that lie wholly within one free chunk: what malloc_trim(3) would give back.",
        default=None,
    )
    top_resident_bytes: Optional[int] = says("Pages in RAM within the tops.", default=None)
    mapped_resident_bytes: Optional[int] = None
    read_bytes: Optional[int] = says("How much of the target's memory was read.", default=None)
    duration_ns: Optional[int] = None
    attempts: Optional[int] = says(
        "Walks that were made; the best of them is told. More than one where the heap changed "
        "under the reader.",
        default=None,
    )
    sampled_permille: Optional[int] = says(
        "Of what the arenas have, how much was walked: windows at even distances. Figures of "
        "blocks are then estimates, scaled up, those of classes of size as well; the sum of all "
        "still is `system_bytes`. Absent: all of it was walked.",
        default=None,
    )
    error_permille: Optional[int] = says(
        "Bound of the error of `in_use_bytes` as a share of it, from how much the windows differ: "
        "19 of 20 estimates are nearer. Only where it is an estimate.",
        default=None,
    )


@record("heap.arena")
class HeapArena:
    """One arena at one census. The fields are those of the census, for this arena alone."""

    census: int
    arena: int = says("In the allocator's own order; 0 is the main arena.")
    complete: bool
    heaps: int = says("Separate stretches of memory that it consists of.")
    system_bytes: int
    in_use_chunks: int
    in_use_bytes: int
    cached_chunks: int
    cached_bytes: int
    fast_chunks: int
    fast_bytes: int
    free_chunks: int
    free_bytes: int
    top_bytes: int
    overhead_bytes: int
    skipped_bytes: int
    resident_bytes: Optional[int] = None
    free_resident_bytes: Optional[int] = None
    top_resident_bytes: Optional[int] = None


@record("heap.sizes")
class HeapSizes:
    """What is in use by size of chunk, mapped chunks included; entry i of each list goes together.

    Classes are the same in every census: each size of its own up to 4,096 bytes, from there on
    sixteen classes between a power of two and the next. Only those with chunks are listed,
    ascending. `in_use_bytes` by `in_use_chunks` is the mean size in a class.
    """

    census: int
    chunk_bytes: list[int] = says("The smallest size of the class.")
    in_use_chunks: list[int]
    in_use_bytes: list[int]
