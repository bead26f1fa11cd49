"""Whole mappings of memory among the suspects, where blocks do not explain what grows.

What maps memory is often the allocator itself, for many blocks of anybody's at a time. So mappings
count only where the blocks that were followed leave most of the growth open: large blocks, vectors
that grow by rare reallocations, mmap itself. No window of a moment meets those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from leakcase_analyzer.code_names import maps_for_itself
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.outstanding import outstanding
from leakcase_analyzer.findings.suspect import Suspects
from leakcase_analyzer.trace_looks import Watched

#: Blocks that stay at this part of the heap's growth explain it.
EXPLAINED = 0.5
#: From this size on malloc maps a block by itself (M_MMAP_THRESHOLD, mallopt(3)), so that it is
#: told among the mappings too, and there exactly.
MAPPED_FROM_BYTES = 128 << 10


def mappings(
    evidence: Evidence, windows: Sequence[Watched], growth: float | None
) -> Suspects | None:
    """Who maps memory for itself; None where that was not watched."""
    allocator = evidence.allocator
    has_glibc = allocator is not None and allocator.kind == "glibc"
    return outstanding(
        evidence.tracing, windows, growth, partial(maps_for_itself, has_glibc=has_glibc)
    )


def with_mappings(blocks: Suspects | None, mapped: Suspects | None) -> Suspects | None:
    """The suspects of both, by what each adds; those of blocks alone where these explain it."""
    if mapped is None or not mapped.suspects:
        return blocks or mapped
    added = [one for one in mapped.suspects if one.fate != "early"]
    if blocks is None or not blocks.suspects:
        passing = () if blocks is None else blocks.passing
        return replace(mapped, suspects=tuple(added), passing=(*passing, *mapped.passing))
    growth = mapped.growth_per_second
    if growth is None or blocks.kept_per_second >= EXPLAINED * growth:
        return blocks
    twice = {one.frame for one in mapped.suspects}
    kept = [
        one
        for one in blocks.suspects
        if one.frame not in twice or one.held_bytes < MAPPED_FROM_BYTES * one.blocks
    ]
    rates = [
        *((one, (one.share or 0.0) * blocks.kept_per_second) for one in kept),
        *((one, (one.share or 0.0) * mapped.kept_per_second) for one in added),
    ]
    total = sum(rate for _, rate in rates)
    suspects = [
        replace(one, share=rate / total, bytes_per_second=rate / total * growth)
        for one, rate in sorted(rates, key=lambda item: -item[1])
        if total > 0
    ]
    first_is_mapped = bool(suspects) and suspects[0].basis == "mappings"
    return replace(
        blocks,
        claim=mapped.claim if first_is_mapped else blocks.claim,
        evidence_for=suspects[0].evidence if suspects else (),
        suspects=tuple(suspects),
        passing=(*blocks.passing, *mapped.passing),
        kept_per_second=total,
    )
