"""What malloc_info(3) wrote, as figures. The text is the target's: nothing in it is trusted."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

_ARENAS_MAX = 65536
_HEAP, _HEAP_END = '<heap nr="', "</heap>"
_TOTAL = re.compile(r'<total type="(fast|rest|mmap)" count="(\d{1,18})" size="(\d{1,18})"/>')
_SYSTEM = re.compile(r'<system type="current" size="(\d{1,18})"/>')
_CHUNK_ALIGNMENT = 16


class ArenaWords(NamedTuple):
    """One arena. `free_chunks` and `free_bytes` are those in its bins, its top among them."""

    system_bytes: int
    free_chunks: int
    free_bytes: int
    fast_chunks: int
    fast_bytes: int


class MallocInfo(NamedTuple):
    """All of it."""

    arenas: list[ArenaWords]
    mapped_chunks: int
    mapped_bytes: int


def parse_malloc_info(text: str) -> Optional[MallocInfo]:
    """None where it is not what malloc_info(3) writes."""
    arenas: list[ArenaWords] = []
    at, last = text.find(_HEAP), 0
    while at >= 0:
        end = text.find(_HEAP_END, at)
        arena = _arena(text[at:end]) if end >= 0 else None
        if arena is None or len(arenas) >= _ARENAS_MAX:
            return None
        arenas.append(arena)
        last = end
        at = text.find(_HEAP, end)
    totals = _totals(text[last:])
    if not arenas or "mmap" not in totals:
        return None
    return MallocInfo(arenas, *totals["mmap"])


def _arena(text: str) -> Optional[ArenaWords]:
    system, totals = _SYSTEM.search(text), _totals(text)
    if system is None or "rest" not in totals:
        return None
    # Since 2.43 there are no fastbins, and no line of them.
    return ArenaWords(int(system.group(1)), *_plain(*totals["rest"]), *totals.get("fast", (0, 0)))


def _plain(count: int, size: int) -> tuple[int, int]:
    """It adds up the size words of the bins as they are, with PREV_INUSE, 1, in each but the top's
    (malloc_info in glibc's malloc.c): taken out where that is so."""
    flags = count - 1
    return (count, size - flags) if (size - flags) % _CHUNK_ALIGNMENT == 0 else (count, size)


def _totals(text: str) -> dict[str, tuple[int, int]]:
    found = ((kind, (int(count), int(size))) for kind, count, size in _TOTAL.findall(text))
    return dict(found)
