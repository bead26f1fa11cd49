"""Freed chunks that look as if in use: those that a thread keeps (tcache), and fastbins.

Free keeps PREV_INUSE of the next chunk for both, so that only their lists tell. A thread's cache
is an in-use chunk of a known size whose lists hold together: every chunk of a list has the list's
size. Since 2.32 the links are stored as ``address_of_link >> 12 ^ next`` (PROTECT_PTR).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .layout import (
    ALIGNMENT,
    EXACT_LISTS,
    HEADER_BYTES,
    IS_MMAPPED,
    MIN_CHUNK_BYTES,
    SIZE_MASK,
    TCACHES,
    TcacheLayout,
    list_chunk_bytes,
)
from .pages import ResidentPages

#: A list that is torn while it is read may lead anywhere, but not for ever.
_LIST_LIMIT = 1 << 24


def tcache_chunks(pages: ResidentPages, address: int) -> Iterator[tuple[int, int]]:
    """(address, size) of what the cache in the chunk at `address` keeps; none if it is no cache."""
    header = pages.words(address, 2)
    if header is None:
        return
    for layout in TCACHES:
        content = pages.read(address + HEADER_BYTES, layout.entries_offset + 8 * layout.lists)
        if header[1] & SIZE_MASK != layout.chunk_bytes or content is None:
            continue
        counts, entries = _unpack(layout, content)
        for index, (count, entry) in enumerate(zip(counts, entries)):
            limit = _LIST_LIMIT if layout.is_slots else count
            wanted = list_chunk_bytes(index) if index < EXACT_LISTS else None
            yield from _follow(pages, entry, wanted, limit, HEADER_BYTES)


def _unpack(layout: TcacheLayout, content: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    code = "B" if layout.count_bytes == 1 else "H"
    counts = struct.unpack_from(f"={layout.lists}{code}", content)
    return counts, struct.unpack_from(f"={layout.lists}Q", content, layout.entries_offset)


def fastbin_chunks(pages: ResidentPages, heads: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(address, size) of what an arena's fastbins hold."""
    for index, head in enumerate(heads):
        yield from _follow(pages, head, list_chunk_bytes(index), _LIST_LIMIT, 0)


def _follow(
    pages: ResidentPages, head: int, wanted: int | None, limit: int, lead: int
) -> Iterator[tuple[int, int]]:
    """A list from its head on. It ends where the next would not be of the list's size.

    `lead`: how far into a chunk its links point, 16 to the block in a tcache, 0 in a fastbin.
    """
    chunk = head - lead if head else 0
    seen: set[int] = set()
    while chunk and chunk not in seen and len(seen) < limit:
        size = _listed_size(pages, chunk, wanted)
        if not size:
            return
        seen.add(chunk)
        yield chunk, size
        chunk = _after(pages, chunk, wanted, lead)


def _listed_size(pages: ResidentPages, chunk: int, wanted: int | None) -> int:
    """The size of a chunk that can be in this list, else 0."""
    if chunk % ALIGNMENT or chunk <= 0:
        return 0
    header = pages.words(chunk, 2)
    if header is None or header[1] & (IS_MMAPPED | 8):
        return 0
    size = header[1] & SIZE_MASK
    if wanted is None:
        return size if size >= list_chunk_bytes(EXACT_LISTS) else 0
    return size if size == wanted >= MIN_CHUNK_BYTES else 0


def _after(pages: ResidentPages, chunk: int, wanted: int | None, lead: int) -> int:
    """The next chunk of a list, 0 at its end; its link is stored plain or, since 2.32, mangled."""
    at = chunk + HEADER_BYTES
    link = pages.words(at, 1)
    if link is None or link[0] in (0, at >> 12):
        return 0
    for target in (link[0] ^ at >> 12, link[0]):
        if _listed_size(pages, target - lead, wanted):
            return target - lead
    return 0
