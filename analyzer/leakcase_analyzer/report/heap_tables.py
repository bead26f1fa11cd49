"""The heap's tables: its arenas, the sizes of blocks and the types of objects that grow."""

from __future__ import annotations

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.block_looks import LABELS, Holding
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.heap_looks import kept_bytes, used_bytes
from leakcase_analyzer.own_types import is_own
from leakcase_analyzer.report.units import PLAIN, Style, count, share, shortened, signed_size, size

MOST_ROWS, MOST_IN_LINE = 12, 4


def heap_line(analysis: Analysis) -> str | None:
    """In use, kept free, by how many arenas; None where memory was not read."""
    heap = analysis.heap
    if heap is None:
        return None
    parts = [f"in use {size(heap.in_use_bytes)}"]
    if heap.error_bytes:
        parts = [f"in use \u2248 {size(heap.in_use_bytes)} (\u00b1 {size(heap.error_bytes)})"]
    if heap.python_in_use_bytes:
        parts[0] += f" ({size(heap.python_in_use_bytes)} of it pymalloc's)"
    if heap.kept_bytes is not None:
        of_all = f" ({share(heap.kept_share)} of what it holds)" if heap.held_bytes else ""
        parts.append(f"kept free {size(heap.kept_bytes)}{of_all}")
    if heap.arenas:
        parts.append(count(heap.arenas, "arena"))
    return ", ".join(parts)


def arena_rows(evidence: Evidence) -> list[tuple[str, str, str, str, str]]:
    """Arena, its address space, resident, in use, kept free; those that keep most first."""
    if not evidence.heap:
        return []
    arenas = sorted(
        evidence.heap[-1].arenas,
        key=lambda arena: (kept_bytes(arena) or 0, used_bytes(arena)),
        reverse=True,
    )
    return [
        (
            "main" if arena.arena == 0 else str(arena.arena),
            size(arena.system_bytes),
            size(arena.resident_bytes),
            size(used_bytes(arena)),
            size(kept_bytes(arena)),
        )
        for arena in arenas[:MOST_ROWS]
    ]


_TOLD = {
    "in_use_bytes": "in use",
    "free_bytes": "free in it",
    "cached_bytes": "of that in caches",
    "active_bytes": "pages in use",
    "metadata_bytes": "its own books",
    "resident_bytes": "resident, at most",
    "mapped_bytes": "large blocks with mappings of their own",
    "system_bytes": "from the kernel",
    "retained_bytes": "given back, address space kept",
    "peak_bytes": "the most that was ever from the kernel",
}


def told_rows(evidence: Evidence) -> list[tuple[str, str, str]]:
    """What the allocator said of itself at the first and at the last answer."""
    if not evidence.words:
        return []
    first, last = evidence.words[0].total, evidence.words[-1].total
    return [
        (label, size(getattr(first, name)), size(value))
        for name, label in _TOLD.items()
        if (value := getattr(last, name)) is not None
    ]


def size_rows(analysis: Analysis, style: Style = PLAIN) -> list[tuple[str, str, str, str, str]]:
    """Size that the program asks for, more blocks, more bytes, share of all that classes grew,
    what most of the blocks hold."""
    parts = () if analysis.sizes is None else analysis.sizes.parts
    return [
        (
            f"{part.least_bytes:,} to {part.most_bytes:,} bytes",
            f"{part.count:+,}",
            signed_size(part.growth_bytes),
            share(part.share),
            "" if part.holding is None else _held(part.holding, style),
        )
        for part in parts
    ]


def _held(holding: Holding, style: Style) -> str:
    name = holding.class_name
    return f"{LABELS[holding.label] if name is None else style.name(name)} ({share(holding.share)})"


def type_rows(analysis: Analysis, style: Style = PLAIN) -> list[tuple[str, str, str]]:
    """Type, more objects, more bytes."""
    return [
        (style.name(one.name), f"{one.count:+,}", signed_size(one.growth_bytes))
        for one in analysis.types[:MOST_ROWS]
        if one.count > 0
    ]


def types_line(analysis: Analysis) -> str:
    """The types of which there are more, the largest growth first, and always the first that is
    the program's own; empty where none is known."""
    more = [one for one in analysis.types if one.count > 0]
    first = more[:MOST_IN_LINE]
    runtime = analysis.evidence.runtime
    kind = "" if runtime is None else runtime.kind
    own = next((one for one in more if is_own(one.name, kind)), None)
    if own is not None and own not in first:
        first[-1] = own
    return ", ".join(
        f"{one.count:+,} {shortened(one.name)}"
        + ("" if one.growth_bytes is None else f" ({size(one.growth_bytes)})")
        for one in first
    )
