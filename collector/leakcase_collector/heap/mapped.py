"""Large blocks with a mapping of their own (IS_MMAPPED), found by their headers.

Such a block begins with a header at the start of a page, or, where it was aligned, further in, by
as much as its prev_size says. The kernel joins neighbouring mappings, so that one line of maps may
hold several. How many there are, and of how many bytes, the allocator counts itself (mp_): with
those figures the search ends early, and is known to be complete.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple, Protocol

from leakcase_collector.system.memory import PAGE_BYTES, Memory, MemoryMapping

from .arenas import Place
from .layout import HEADER_BYTES, IS_MMAPPED, SIZE_MASK
from .pages import ResidentPages

_MMAPS_MAX_DEFAULT = 65536
_INT = (1 << 32) - 1
#: How far into its first page an aligned block may push the header: alignments 32 to 4096.
_PADDINGS = (0, *(alignment - HEADER_BYTES for alignment in (32, 64, 128, 256, 512, 1024, 2048)),
             PAGE_BYTES - HEADER_BYTES)  # fmt: skip
_SCAN_BYTES = 1 << 20
_LOOK_ALIKES = 2
_CHUNKS_COMPARED = 1000


class Parameters(NamedTuple):
    """Of struct malloc_par mp_: how many mapped chunks there are now, their bytes with all padding,
    and where the main heap began (0: it never did)."""

    mapped_chunks: int
    mapped_bytes: int
    heap_start: int


class MappedChunk(NamedTuple):
    """`start` and `end` bound its pages; `size_bytes` is what its header, at `header`, says."""

    start: int
    end: int
    header: int
    size_bytes: int


class Spending(Protocol):
    """Is told of every read before it is made; raises OverBudget where it may not be."""

    def spend(self, size: int) -> None: ...


def find_parameters(place: Place, mappings: Sequence[MemoryMapping]) -> Parameters | None:
    """mp_, by its fields; None if it is not found.

    n_mmaps, n_mmaps_max, max_n_mmaps and no_dyn_threshold, each an int, then mmapped_mem,
    max_mmapped_mem and sbrk_base. In front of them 2.35 added another int (hp_flags).
    """
    heaps = [(m.start, m.end) for m in mappings if m.writable and not m.path.startswith(b"/")]
    words = place.data_words
    for index in range(5, len(words)):
        bytes_now, bytes_most, start = words[index - 2], words[index - 1], words[index]
        if bytes_now > bytes_most or bytes_most >> 47 or (bytes_now | bytes_most) % PAGE_BYTES:
            continue
        ints = [half for word in words[index - 5 : index - 2] for half in (word & _INT, word >> 32)]
        for count, most_allowed, most, fixed in (ints[1:5], ints[2:6]):
            if (
                (most_allowed == _MMAPS_MAX_DEFAULT or (most_allowed and start))
                and count <= most
                and fixed <= 1
                and bool(count) == bool(bytes_now)
                and bool(most) == bool(bytes_most)
                and (not start or any(low <= start < high for low, high in heaps))
            ):
                return Parameters(count, bytes_now, start)
    return None


def find_mapped_chunks(
    memory: Memory,
    spending: Spending,
    spans: Sequence[tuple[int, int]],
    known: Parameters | None,
) -> list[MappedChunk]:
    """The mapped chunks in `spans` (anonymous mappings that hold no arena), ascending.

    First where mappings begin and right behind a chunk; then, where mp_ says that there are more,
    at each page.
    """
    pages = ResidentPages(memory)
    found: dict[int, MappedChunk] = {}
    if known is not None and not known.mapped_chunks:
        return []
    for start, end in spans:
        for chunk in _chain(pages, start, end):
            found[chunk.start] = chunk
    if known is not None and not _is_all(found, known):
        for start, end in spans:
            _scan(memory, spending, pages, (start, end), found)
            if _is_all(found, known):
                break
        _drop_look_alikes(found, known)
    return [found[start] for start in sorted(found)]


def _drop_look_alikes(found: dict[int, MappedChunk], known: Parameters) -> None:
    """Two words of other memory may look like a header: where the allocator's own figures fit
    without one or two of what was found, and in one way only, those are none."""
    excess = len(found) - known.mapped_chunks
    excess_bytes = sum(chunk.end - chunk.start for chunk in found.values()) - known.mapped_bytes
    if not 0 < excess <= _LOOK_ALIKES or len(found) > _CHUNKS_COMPARED:
        return
    ways = [
        chunks
        for chunks in combinations(found.values(), excess)
        if sum(chunk.end - chunk.start for chunk in chunks) == excess_bytes
    ]
    if len(ways) == 1:
        for chunk in ways[0]:
            del found[chunk.start]


def _is_all(found: dict[int, MappedChunk], known: Parameters) -> bool:
    return is_complete(list(found.values()), known)


def is_complete(found: Sequence[MappedChunk], known: Parameters) -> bool:
    """Whether these are as many, and of as many bytes, as the allocator counts."""
    size = sum(chunk.end - chunk.start for chunk in found)
    return len(found) == known.mapped_chunks and size == known.mapped_bytes


def _chain(pages: ResidentPages, start: int, end: int) -> Iterator[MappedChunk]:
    at = start
    while at < end:
        chunk = _chunk_at(pages, at, end)
        if chunk is None:
            return
        yield chunk
        at = chunk.end


def _chunk_at(pages: ResidentPages, start: int, end: int) -> MappedChunk | None:
    """The chunk whose first page is at `start`. Bit 0 of prev_size: huge pages (since 2.43)."""
    for padding in _PADDINGS:
        header = pages.words(start + padding, 2)
        if header is None:
            return None
        if header[0] & ~1 == padding:
            chunk = _judged(start, padding, header[1], end)
            if chunk is not None:
                return chunk
    return None


def _judged(start: int, padding: int, head: int, end: int) -> MappedChunk | None:
    size = head & SIZE_MASK
    if head & ~SIZE_MASK != IS_MMAPPED or size < PAGE_BYTES - HEADER_BYTES - padding:
        return None
    # Up to 2.42 the size reaches to the mapping's end; since 2.43 it is 16 less (mmap_set_chunk).
    for closing in (0, HEADER_BYTES):
        stop = start + padding + size + closing
        if stop % PAGE_BYTES == 0 and start < stop <= end:
            return MappedChunk(start, stop, start + padding, size)
    return None


def _scan(
    memory: Memory,
    spending: Spending,
    pages: ResidentPages,
    span: tuple[int, int],
    found: dict[int, MappedChunk],
) -> None:
    """Look at every resident page outside of what was found."""
    starts = sorted(found)
    at = span[0]
    for low, high in memory.resident_runs(*span):
        at = max(at, low)
        while at < high:
            index = bisect_right(starts, at) - 1
            if index >= 0 and found[starts[index]].end > at:
                at = found[starts[index]].end
                continue
            size = min(_SCAN_BYTES, high - at)
            spending.spend(size)
            at = _scan_window(memory, pages, (at, at + size), span, found)


def _scan_window(
    memory: Memory,
    pages: ResidentPages,
    window: tuple[int, int],
    span: tuple[int, int],
    found: dict[int, MappedChunk],
) -> int:
    """Look at the pages of a window up to the first chunk; returns where to go on."""
    low, high = window
    content = bytearray(high - low)
    got = memory.read_into(low, memoryview(content)) // PAGE_BYTES * PAGE_BYTES
    words = memoryview(content)[:got].cast("Q")
    step = PAGE_BYTES // 8
    # Headers in a page's last 16 bytes are those of blocks aligned to a page and more.
    for page, (first, last) in enumerate(zip(words[1::step], words[step - 1 :: step])):
        start = low + page * PAGE_BYTES
        chunk = None
        if first & ~SIZE_MASK == IS_MMAPPED or (
            not first and any(words[page * step + p // 8] & ~1 == p for p in _PADDINGS[1:])
        ):
            chunk = _chunk_at(pages, start, span[1])
        if chunk is None and last & ~SIZE_MASK == IS_MMAPPED:
            padding = words[(page + 1) * step - 2] & ~1
            begin = start + PAGE_BYTES - HEADER_BYTES - padding
            if begin % PAGE_BYTES == 0 and begin >= span[0]:
                chunk = _judged(begin, padding, last, span[1])
        if chunk is not None:
            found[chunk.start] = chunk
            return chunk.end
    return high
