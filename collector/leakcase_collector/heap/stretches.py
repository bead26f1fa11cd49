"""Which stretches of memory an arena's chunks lie in."""

from __future__ import annotations

from collections.abc import Sequence

from leakcase_collector.system.memory import MemoryMapping

from .arenas import Arena, heaps_of
from .layout import (
    ALIGNMENT,
    MIN_CHUNK_BYTES,
    NON_MAIN_ARENA,
    PREV_INUSE,
    SIZE_MASK,
    ArenaLayout,
)
from .mapped import Parameters
from .pages import ResidentPages
from .walk import Stretch


def heap_stretches(
    pages: ResidentPages, arena: Arena, layout: ArenaLayout
) -> tuple[list[Stretch], int]:
    """Of an arena that is not the main one: its heaps, and the bytes of their own headers."""
    stretches = []
    overhead_bytes = 0
    first_heap = arena.address - arena.address % 4096
    info_bytes = arena.address - first_heap
    for address, size in heaps_of(pages, arena):
        # The arena itself stands in its first heap, right behind heap_info.
        in_front = info_bytes + (layout.size_bytes if address == first_heap else 0)
        start = _aligned(address + in_front)
        end = address + size
        overhead_bytes += start - address
        top_end = end if start <= arena.top < end else 0
        stretches.append(Stretch(start, end, top_end, 0, arena.top if top_end else 0))
    return stretches, overhead_bytes


def main_stretches(
    pages: ResidentPages,
    arena: Arena,
    mappings: Sequence[MemoryMapping],
    parameters: Parameters | None,
) -> tuple[list[Stretch], int]:
    """Of the main arena: one that ends with its top and is as long as all that it has.

    Unless the heap could not grow in place, because something was mapped behind it: then sysmalloc
    closes it and goes on elsewhere, and only its first and its last part are known.
    """
    if not arena.top:
        return [], 0
    raw = arena.top_end - arena.system_bytes
    begin = parameters.heap_start if parameters is not None and parameters.heap_start else raw
    span = _span(mappings, arena.top)
    if span is None:
        return [], 0
    if begin == raw and span[0] <= raw and _begins(pages, _aligned(raw)):
        start = _aligned(raw)
        whole = Stretch(start, arena.top_end, arena.top_end, NON_MAIN_ARENA, arena.top)
        return [whole], start - raw
    first = _span(mappings, begin) or span
    start = _aligned(max(begin, first[0]))
    if first == span:
        return [Stretch(start, span[1], arena.top_end, NON_MAIN_ARENA, arena.top)], 0
    return [
        Stretch(start, first[1], 0, NON_MAIN_ARENA),
        Stretch(_aligned(span[0]), span[1], arena.top_end, NON_MAIN_ARENA, arena.top),
    ], 0


def _aligned(address: int) -> int:
    return -(-address // ALIGNMENT) * ALIGNMENT


def _begins(pages: ResidentPages, address: int) -> bool:
    """Whether a first chunk may be here; one that is not in RAM may, too."""
    header = pages.words(address, 2)
    if header is None:
        return True
    head = header[1]
    return bool(head & PREV_INUSE) and not head & 0xE and head & SIZE_MASK >= MIN_CHUNK_BYTES


def _span(mappings: Sequence[MemoryMapping], address: int) -> tuple[int, int] | None:
    """The private anonymous mappings around `address` that follow each other without a gap."""
    start = end = 0
    for mapping in mappings:
        if not mapping.writable or not mapping.is_private or mapping.path.startswith(b"/"):
            continue
        if mapping.start != end:
            if start <= address < end:
                break
            start = mapping.start
        end = mapping.end
    return (start, end) if start <= address < end else None
