"""The pages of V8's heap, found by their headers.

V8 allocates its heap in pages that begin at multiples of 256 KiB, each with its size, its heap,
where its objects begin and end, and what of that is allocated (src/heap/memory-chunk-layout.h and
basic-memory-chunk.h of V8 11, which is Node 20's; later ones keep the header elsewhere).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from leakcase_collector.system.memory import PAGE_BYTES, Memory, MemoryMapping

from .pages import ResidentPages
from .resident import total

PAGE_ALIGNMENT = 256 << 10
_LARGEST_BYTES = 1 << 36
_HEADER_LIMIT_BYTES = 64 << 10
#: MemoryChunk::FROM_PAGE and TO_PAGE: pages of the young generation.
_YOUNG = 1 << 3 | 1 << 4
#: Fewer pages with one heap are no V8.
_LEAST_PAGES = 4


class V8Heap(NamedTuple):
    """`kept_bytes`: allocated in pages that are not of the young generation, as of the last sweep;
    `used_bytes`: these, and all of the young generation's pages."""

    used_bytes: int
    kept_bytes: int
    committed_bytes: int
    resident_bytes: int
    pages: int


class _Page(NamedTuple):
    heap: int
    is_young: bool
    allocated_bytes: int
    size_bytes: int
    start: int
    mapped_end: int


def v8_heap(memory: Memory, mappings: Sequence[MemoryMapping]) -> Optional[V8Heap]:
    """The heaps of all isolates together; None where no such pages are found."""
    found = list(_pages(ResidentPages(memory), mappings))
    heaps = Counter(page.heap for page in found)
    kept = [page for page in found if heaps[page.heap] >= _LEAST_PAGES]
    if not kept:
        return None
    old = sum(page.allocated_bytes for page in kept if not page.is_young)
    young = sum(page.allocated_bytes for page in kept if page.is_young)
    # Of a page of code only its header lies in this mapping; the rest is generated code.
    spans = [(page.start, min(page.start + page.size_bytes, page.mapped_end)) for page in kept]
    return V8Heap(
        used_bytes=old + young,
        kept_bytes=old,
        committed_bytes=sum(page.size_bytes for page in kept),
        resident_bytes=sum(total(memory.resident_runs(*span)) for span in spans),
        pages=len(kept),
    )


def _pages(pages: ResidentPages, mappings: Sequence[MemoryMapping]) -> Iterator[_Page]:
    for mapping in mappings:
        if not mapping.writable or mapping.path:
            continue
        at = -(-mapping.start // PAGE_ALIGNMENT) * PAGE_ALIGNMENT
        while at < mapping.end:
            page = _page_at(pages, at, mapping.end)
            if page is not None:
                yield page
            # A large object has a page of its own, whose rest has no further headers.
            size = PAGE_ALIGNMENT if page is None else page.size_bytes
            at += -(-size // PAGE_ALIGNMENT) * PAGE_ALIGNMENT


def _page_at(pages: ResidentPages, start: int, mapped_end: int) -> Optional[_Page]:
    header = pages.words(start, 6)
    if header is None:
        return None
    size, flags, heap, first, end, allocated = header
    if (
        not PAGE_BYTES <= size <= _LARGEST_BYTES
        or not start < first <= start + _HEADER_LIMIT_BYTES
        or not first < end <= start + size
        or allocated > end - first
        or not heap
        or heap % 8
    ):
        return None
    return _Page(heap, bool(flags & _YOUNG), allocated, size, start, mapped_end)
