"""Freed chunks that look as if in use: those that a thread keeps (tcache), and fastbins.

Free keeps PREV_INUSE of the next chunk for both, so that only their lists tell. A thread's cache
is an in-use chunk of a known size whose lists hold together: every chunk of a list has the list's
size. Since 2.32 the links are stored as ``address_of_link >> 12 ^ next`` (PROTECT_PTR).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from .layout import (
    ALIGNMENT,
    EXACT_LISTS,
    HEADER_BYTES,
    IS_MMAPPED,
    SIZE_MASK,
    TCACHES,
    TcacheLayout,
    list_chunk_bytes,
)
from .pages import ResidentPages

#: Of what a cache says to keep, this share must be found for it to be believed.
_PROVEN_SHARE = 0.125
#: A list that is torn while it is read may lead anywhere, but not for ever.
_LIST_LIMIT = 1 << 24


class FreeList(NamedTuple):
    """One list of freed chunks: how many it says to hold, and those that were found in it.

    The two differ where its thread was at work on the list while it was read.
    """

    chunk_bytes: int | None
    length: int
    chunks: list[tuple[int, int]]


def tcache_lists(pages: ResidentPages, address: int) -> list[FreeList]:
    """What the cache in the chunk at `address` keeps; nothing if it is no cache."""
    header = pages.words(address, 2)
    if header is None:
        return []
    for layout in TCACHES:
        if header[1] & SIZE_MASK == layout.chunk_bytes:
            return _lists_of(pages, address + HEADER_BYTES, layout)
    return []


def _lists_of(pages: ResidentPages, cache: int, layout: TcacheLayout) -> list[FreeList]:
    packed = pages.fresh_words(cache, layout.entries_offset // 8)
    if packed is None:
        return []
    code = "B" if layout.count_bytes == 1 else "H"
    counts = struct.unpack(f"={layout.lists}{code}", struct.pack(f"={len(packed)}Q", *packed))
    if layout.is_slots:
        counts = tuple(max(counts) - count for count in counts)
    lists = []
    for index, count in enumerate(counts):
        wanted = list_chunk_bytes(index) if index < EXACT_LISTS else None
        entry = pages.fresh_words(cache + layout.entries_offset + 8 * index, 1) if count else None
        chunks = list(_follow(pages, entry[0], wanted, count, HEADER_BYTES)) if entry else []
        lists.append(FreeList(wanted, count, chunks))
    # Something else that has a cache's shape leads to no chunks of the right sizes.
    found = sum(len(free.chunks) for free in lists)
    return lists if _PROVEN_SHARE * sum(counts) <= found else []


def fastbin_lists(pages: ResidentPages, heads: tuple[int, ...]) -> list[FreeList]:
    """What an arena's fastbins hold; they do not say how much that is."""
    lists = []
    for index, head in enumerate(heads):
        wanted = list_chunk_bytes(index)
        chunks = list(_follow(pages, head, wanted, _LIST_LIMIT, 0))
        lists.append(FreeList(wanted, len(chunks), chunks))
    return lists


def _follow(
    pages: ResidentPages, head: int, wanted: int | None, limit: int, lead: int
) -> Iterator[tuple[int, int]]:
    """(address, size) of a list's chunks. It ends where the next would not be of its size.

    `lead`: how far into a chunk its links point, 16 to the block in a tcache, 0 in a fastbin.
    """
    targets = [head] if head else []
    seen: set[int] = set()
    while targets and len(seen) < limit:
        for chunk in (target - lead for target in targets):
            header = pages.fresh_words(chunk, 3) if chunk % ALIGNMENT == 0 else None
            size = _listed_size(header[1], wanted) if header is not None else 0
            if size and header is not None and chunk not in seen:
                seen.add(chunk)
                yield chunk, size
                targets = _next(chunk + HEADER_BYTES, header[2])
                break
        else:
            return


def _listed_size(head: int, wanted: int | None) -> int:
    """The size of a chunk that can be in such a list, else 0."""
    size = head & SIZE_MASK
    if head & (IS_MMAPPED | 8):
        return 0
    if wanted is None:
        return size if size >= list_chunk_bytes(EXACT_LISTS) else 0
    return size if size == wanted else 0


def _next(address: int, link: int) -> list[int]:
    """Where a link that is stored at `address` may lead: mangled since 2.32, plain before."""
    mangled = link ^ address >> 12
    return [target for target in (mangled, link) if target] if link and mangled else []
