"""What an allocator says of itself when it is asked in its own process, and a core of the target.

Bytes are as the allocator counts them. What one of them does not tell is absent.
"""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import record, says, word
from leakcase_bundle.strings import PathToken


@record("allocator.words")
class AllocatorWords:
    """One answer: glibc's malloc_info(3), jemalloc's mallctl(3), tcmalloc's MallocExtension,
    mimalloc's mi_process_info."""

    look: int = says("0, 1, ...: the arenas of the same answer carry the same number.")
    taken_ns: int
    allocator: str = word("allocator")
    stopped_ns: int = says("How long the target stood still for this answer, all attempts.")
    attempts: int = says("Stops that it took to find a moment that was proven to be safe.")
    in_use_bytes: Optional[int] = says(
        "Handed out to the program. jemalloc: stats.allocated; tcmalloc: "
        "current_allocated_bytes; glibc: what the arenas have less what is free in them, with the "
        "mapped chunks: headers and the caches of threads are part of it.",
        default=None,
    )
    free_bytes: Optional[int] = says(
        "Freed, and kept for later. glibc: in bins, fastbins and tops; tcmalloc: in the page heap "
        "and all caches.",
        default=None,
    )
    system_bytes: Optional[int] = says(
        "What it has from the kernel, as address space. glibc: arenas and mapped chunks; jemalloc: "
        "stats.mapped; tcmalloc: heap_size; mimalloc: committed.",
        default=None,
    )
    active_bytes: Optional[int] = says("jemalloc: pages that hold blocks.", default=None)
    metadata_bytes: Optional[int] = says("jemalloc: its own books.", default=None)
    resident_bytes: Optional[int] = says("jemalloc: at most so much is in RAM.", default=None)
    retained_bytes: Optional[int] = says(
        "Given back to the kernel, its address space kept. jemalloc: stats.retained; tcmalloc: "
        "pageheap_unmapped_bytes.",
        default=None,
    )
    cached_bytes: Optional[int] = says(
        "Part of `free_bytes`. tcmalloc: in the caches of threads and between them.", default=None
    )
    peak_bytes: Optional[int] = says("mimalloc: the most that was ever committed.", default=None)
    mapped_chunks: Optional[int] = says("glibc: blocks with a mapping of their own.", default=None)
    mapped_bytes: Optional[int] = None
    profiler_built: Optional[bool] = says("jemalloc: config.prof.", default=None)
    profiler_on: Optional[bool] = says("jemalloc: opt.prof.", default=None)


@record("allocator.arena")
class AllocatorArena:
    """One arena by the allocator's own words: glibc, jemalloc."""

    look: int
    arena: int
    system_bytes: Optional[int] = says("glibc: what it has from the kernel.", default=None)
    in_use_bytes: Optional[int] = says("jemalloc: small and large blocks.", default=None)
    free_chunks: Optional[int] = says("glibc: in its bins, with the top.", default=None)
    free_bytes: Optional[int] = None
    fast_chunks: Optional[int] = None
    fast_bytes: Optional[int] = None
    active_bytes: Optional[int] = says("jemalloc: pages that hold blocks.", default=None)
    dirty_bytes: Optional[int] = says("jemalloc: free pages still in RAM.", default=None)
    retained_bytes: Optional[int] = None


@record("core")
class CoreDump:
    """A core file of the target was written beside the case. Nothing of it is in the case."""

    taken_ns: int
    path: PathToken
    size_bytes: int = says("As the file's length; never-touched memory is a hole in it.")
    disk_bytes: int = says("What it takes on the disk.")
    stopped_ns: int = says("How long the target stood still.")
    predicted_bytes: Optional[int] = None
    predicted_stop_ns: Optional[int] = None
    threads: Optional[int] = None
