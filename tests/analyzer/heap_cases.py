"""Looks into the heap for the captures of cases.py: what a census of such a heap would say.

case = Capture()
case.anonymous_bytes = case.stable(90 * MIB)
see(case, 0, Heap(in_use=4 * MIB, whole_pages=80 * MIB))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from leakcase_bundle import records as kinds
from leakcase_bundle.strings import SymbolToken
from tests.analyzer.cases import MIB, Capture, Mapping

OVERHEAD = 2192


@dataclass
class Heap:
    """malloc's books in bytes; all but `mapped` lies in arenas, and all of it is resident."""

    in_use: float = 0
    whole_pages: float = 0
    """Free, in pages that are wholly free."""
    scattered: float = 0
    """Free, in pages that blocks in use share."""
    top: float = 0
    cached: float = 0
    mapped: float = 0
    skipped: float = 0
    blocks: dict[int, int] = field(default_factory=dict)
    """How many chunks of each size are in use; empty: the sizes are not told."""
    thread_arenas: int = 0
    """So many arenas beside the main one share the free pages evenly."""
    resident: bool = True
    """Whether the kernel told which pages are in RAM."""


@dataclass
class Objects:
    """CPython's objects and pymalloc's books."""

    types: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Objects and their bytes by type, all visited on the collector's lists."""
    pools: float = 20 * MIB
    blocks: float = 19 * MIB
    empty_pools: float = 0
    has_pools: bool = True
    folded: tuple[int, int, int] = (0, 0, 0)
    """Types, objects and bytes that are not listed."""
    walked: bool = True
    """Whether the collector's lists could be walked; if not, all types are the pools'."""


def see(case: Capture, seconds: float, heap: Heap) -> None:
    """A census of malloc at a time."""
    number = sum(isinstance(record, kinds.HeapCensus) for record in case.extra)
    arenas = _arenas(heap)
    totals = {name: sum(arena[name] for arena in arenas) for name in arenas[0]}
    resident = _resident(heap, totals)
    case.extra.append(
        kinds.HeapCensus(
            census=number,
            taken_ns=case.at(seconds),
            method="python",
            complete=heap.skipped == 0,
            arenas=len(arenas),
            mapped_chunks=round(heap.mapped / MIB),
            mapped_bytes=int(heap.mapped),
            mapped_resident_bytes=int(heap.mapped) if heap.resident else None,
            resyncs=0,
            **totals,
            **resident,
        )
    )
    for place, arena in enumerate(arenas):
        case.extra.append(
            kinds.HeapArena(
                census=number,
                arena=place,
                complete=heap.skipped == 0,
                heaps=1,
                **arena,
                **_resident(heap, arena),
            )
        )
    if heap.blocks:
        sizes = sorted(heap.blocks)
        counts = [heap.blocks[size] for size in sizes]
        sums = [size * heap.blocks[size] for size in sizes]
        case.extra.append(kinds.HeapSizes(number, sizes, counts, sums))


def _arenas(heap: Heap) -> list[dict[str, int]]:
    arenas = 1 + heap.thread_arenas
    found = []
    for place in range(arenas):
        main = place == 0
        one = {
            "in_use_chunks": sum(heap.blocks.values()) if main else 0,
            "in_use_bytes": int(heap.in_use) if main else 0,
            "cached_chunks": 0,
            "cached_bytes": int(heap.cached) if main else 0,
            "fast_chunks": 0,
            "fast_bytes": 0,
            "free_chunks": 100,
            "free_bytes": int((heap.whole_pages + heap.scattered) / arenas),
            "top_bytes": int(heap.top) if main else 0,
            "overhead_bytes": OVERHEAD,
            "skipped_bytes": int(heap.skipped) if main else 0,
        }
        one["system_bytes"] = sum(size for name, size in one.items() if name.endswith("_bytes"))
        found.append(one)
    return found


def _resident(heap: Heap, books: dict[str, int]) -> dict[str, int]:
    if not heap.resident:
        return {}
    free = heap.whole_pages + heap.scattered
    whole = books["free_bytes"] * heap.whole_pages / free if free else 0
    return {
        "resident_bytes": books["system_bytes"] - books["skipped_bytes"],
        "free_resident_bytes": int(whole),
        "top_resident_bytes": books["top_bytes"],
    }


def count(case: Capture, seconds: float, objects: Objects) -> None:
    """A census of CPython's objects at a time."""
    number = sum(isinstance(record, kinds.PythonCensus) for record in case.extra)
    rows = sorted(objects.types.items(), key=lambda row: -row[1][1])
    pools: dict[str, Any] = {}
    if objects.has_pools:
        pools = {
            "pool_bytes": int(objects.pools),
            "free_pool_bytes": int(objects.empty_pools),
            "block_bytes": int(objects.blocks),
            "blocks": int(objects.blocks) // 64,
        }
    case.extra.append(
        kinds.PythonCensus(
            census=number,
            taken_ns=case.at(seconds),
            tracked_complete=objects.walked,
            tracked_objects=sum(n for _, (n, _) in rows) if objects.walked else None,
            tracked_bytes=sum(size for _, (_, size) in rows) if objects.walked else None,
            lost_places=0,
            **pools,
        )
    )
    case.extra.append(
        kinds.PythonTypes(
            number,
            [SymbolToken(name) for name, _ in rows],
            ["gc" if objects.walked else "pymalloc"] * len(rows),
            [objects_ for _, (objects_, _) in rows],
            [size for _, (_, size) in rows],
            *objects.folded,
        )
    )


def leaked(case: Capture, *, chunk_bytes: int, chunks: int, complete: bool = True) -> None:
    """What --reachability found at the end: blocks of one size, or none."""
    size = chunk_bytes * chunks
    case.extra.append(
        kinds.HeapUnreachable(
            taken_ns=case.at(case.seconds),
            method="python",
            passes=2,
            complete=complete,
            looked_at_chunks=100_000,
            looked_at_bytes=30 * MIB,
            unreachable_chunks=chunks,
            unreachable_bytes=size,
            direct_chunks=chunks,
            direct_bytes=size,
            unsteady_chunks=0,
            root_bytes=MIB,
            threads=1,
            running_threads=0,
            chunk_bytes=[chunk_bytes] if chunks else [],
            class_chunks=[chunks] if chunks else [],
            class_bytes=[size] if chunks else [],
        )
    )


def allow(case: Capture) -> Capture:
    """The capture was allowed to read memory."""
    header = case.header

    def with_level() -> Any:
        written = header()
        written.levels.append("read-memory")
        return written

    case.header = with_level  # type: ignore[method-assign]
    return case


# --- processes ------------------------------------------------------------------------------------


def spike_that_is_kept(*, kept: float = 76 * MIB, seconds: int = 120) -> Capture:
    """A spike at the beginning, freed but for 4 MiB: the allocator keeps the rest."""
    case = allow(Capture(seconds=seconds))
    start = 10 * MIB
    rise = (case.t / 8).clip(0, 1)
    case.anonymous_bytes = case.stable(start) + rise * (kept + 4 * MIB)
    case.mappings = [Mapping("main-heap", 2 * MIB, 6 * MIB + kept)]
    see(case, 0, Heap(in_use=2 * MIB))
    see(case, seconds, Heap(in_use=5 * MIB, whole_pages=kept))
    return case


def spike_that_is_not_freed() -> Capture:
    """The same resident memory, and all of it in use."""
    case = spike_that_is_kept()
    case.extra = []
    see(case, 0, Heap(in_use=2 * MIB))
    see(case, case.seconds, Heap(in_use=81 * MIB))
    return case


def growing(per_second: float = 400_009, **options: Any) -> Capture:
    """Resident memory that grows steadily; what grows is left to the looks."""
    case = allow(Capture(**options))
    case.anonymous_bytes = case.leak(20 * MIB, per_second)
    grown = per_second * case.seconds
    case.mappings = [Mapping("main-heap", 10 * MIB, 10 * MIB + grown)]
    return case


def python_leak(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> Capture:
    """pymalloc's blocks grow as resident memory does."""
    case = growing(255_000, runtime="cpython")
    grown = 255_000 * 120
    case.mappings = [Mapping("anonymous", 10 * MIB, 10 * MIB + grown)]
    see(case, 0, Heap(in_use=5 * MIB, blocks={64: 10_000}))
    see(case, 120, Heap(in_use=5 * MIB, blocks={64: 10_000}))
    count(case, 0, Objects(types=before, pools=8 * MIB, blocks=7 * MIB))
    count(case, 120, Objects(types=after, pools=8 * MIB + grown, blocks=7 * MIB + 0.97 * grown))
    return case
