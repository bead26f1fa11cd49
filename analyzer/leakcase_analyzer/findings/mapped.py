"""Whole mappings of memory among the suspects, where blocks do not explain what grows.

What maps memory is often the allocator itself, for many blocks of anybody's at a time. So mappings
count only where the blocks that were followed leave most of the growth open: large blocks, vectors
that grow by rare reallocations, mmap itself. No window of a moment meets those.
"""

from __future__ import annotations

from dataclasses import replace

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.suspect import Suspect, Suspects
from leakcase_analyzer.sentences import say

#: Blocks that stay at this part of the heap's growth explain it.
EXPLAINED = 0.5
#: From this size on malloc maps a block by itself (M_MMAP_THRESHOLD, mallopt(3)), so that it is
#: told among the mappings too, and there exactly.
MAPPED_FROM_BYTES = 128 << 10
#: How sure it is that a mapping is for its stack's own use, with glibc's malloc and with others,
#: which take most of their memory so.
WITH_GLIBC, WITH_OTHERS = 0.9, 0.6


def with_mappings(
    evidence: Evidence, blocks: Suspects | None, mapped: Suspects | None
) -> Suspects | None:
    """The suspects of both, by what each adds; those of blocks alone where these explain it."""
    if mapped is None or not mapped.suspects:
        return blocks or mapped
    allocator = evidence.allocator
    sure = WITH_GLIBC if allocator is not None and allocator.kind == "glibc" else WITH_OTHERS
    added = [_less_sure(one, sure) for one in mapped.suspects]
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


def _less_sure(one: Suspect, sure: float) -> Suspect:
    said = say("an allocator maps memory for many blocks at a time, which may be of others")
    return replace(one, confidence=round(one.confidence * sure, 2), evidence=(*one.evidence, said))
