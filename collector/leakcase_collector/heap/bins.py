"""Large free chunks, by the lists that an arena keeps of them.

Bin 1 holds what was freed last, unsorted; the last bins hold sizes from 32 KiB on
(largebin_index_64 of glibc's malloc/malloc.c).
"""

from __future__ import annotations

from .arenas import Arena, Place
from .layout import HEADER_BYTES, SIZE_MASK, WORD_BYTES
from .pages import ResidentPages

LARGE_BYTES = 32 << 10
_UNSORTED = 1
_FIRST_OF_LARGE, _LAST = 118, 126
#: A list of more is not followed to its end.
_MOST_CHUNKS = 1 << 15


def large_free_chunks(pages: ResidentPages, place: Place, arena: Arena) -> list[tuple[int, int]]:
    """(start, end) of free chunks of at least `LARGE_BYTES`, ascending, as far as lists hold
    together."""
    found: dict[int, int] = {}
    for number in (_UNSORTED, *range(_FIRST_OF_LARGE, _LAST + 1)):
        pair = arena.address + place.layout.bins_offset + 2 * WORD_BYTES * (number - 1)
        bin_address = pair - HEADER_BYTES
        links = pages.words(pair, 1)
        at = bin_address if links is None else links[0]
        for _ in range(_MOST_CHUNKS):
            chunk = None if at == bin_address or at % HEADER_BYTES else pages.words(at, 3)
            if chunk is None:
                break
            size = chunk[1] & SIZE_MASK
            if size >= LARGE_BYTES and _is_free(pages, at, size):
                found[at] = size
            at = chunk[2]
    return [(start, start + found[start]) for start in sorted(found)]


def _is_free(pages: ResidentPages, at: int, size: int) -> bool:
    """Whether the chunk behind repeats its size (prev_size)."""
    behind = pages.words(at + size, 1)
    return behind is not None and behind[0] == size
