"""Whole mappings of memory among the suspects, where blocks do not explain what grows.

What maps memory is often the allocator itself, for many blocks of anybody's at a time. So mappings
count only where the blocks that were followed leave most of the growth open: large blocks, vectors
that grow by rare reallocations, mmap itself. No window of a moment meets those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from leakcase_analyzer.code_names import maps_for_itself
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.fates import Place, place_of
from leakcase_analyzer.findings.outstanding import LEAST_SHARE, outstanding
from leakcase_analyzer.findings.suspect import Suspect, Suspects
from leakcase_analyzer.findings.suspect_words import claim
from leakcase_analyzer.trace_looks import Stack, Watched

#: Blocks that stay at this part of the heap's growth explain it.
EXPLAINED = 0.5
#: From this size on malloc maps a block by itself (M_MMAP_THRESHOLD, mallopt(3)), so that it is
#: told among the mappings too, and there exactly.
MAPPED_FROM_BYTES = 128 << 10


def mappings(
    evidence: Evidence, windows: Sequence[Watched], growth: float | None
) -> Suspects | None:
    """Who maps memory for itself; None where that was not watched."""
    return outstanding(evidence.tracing, windows, growth, counts_in(evidence))


def counts_in(evidence: Evidence) -> Callable[[Stack], bool]:
    """Whether what a stack of a case maps is its own."""
    allocator = evidence.allocator
    has_glibc = allocator is not None and allocator.kind == "glibc"
    return partial(maps_for_itself, has_glibc=has_glibc)


def with_mappings(blocks: Suspects | None, mapped: Suspects | None) -> Suspects | None:
    """The suspects of both, by what each adds; those of blocks alone where these explain it."""
    if mapped is None or not mapped.suspects:
        return blocks or mapped
    added = [one for one in mapped.suspects if one.fate != "early"]
    if blocks is None or not blocks.suspects:
        passing, in_work = ((), ()) if blocks is None else (blocks.passing, blocks.in_work)
        passing = (*passing, *mapped.passing)
        return replace(mapped, suspects=tuple(added), passing=passing, in_work=in_work)
    growth = mapped.growth_per_second
    if growth is None or blocks.kept_per_second >= EXPLAINED * growth:
        return blocks
    suspects = _shared(blocks, added, mapped.kept_per_second, growth)
    told = suspects[0].basis if suspects else blocks.basis
    return replace(
        blocks,
        claim=mapped.claim
        if told == "mappings"
        else claim(
            blocks.basis, suspects, blocks.passing, blocks.in_work, blocks.windows,
            blocks.window_seconds, blocks.allocations, blocks.followed_seconds,
        ),
        evidence_for=suspects[0].evidence if suspects else (),
        suspects=tuple(suspects),
        passing=(*blocks.passing, *mapped.passing),
        kept_per_second=blocks.kept_per_second + mapped.kept_per_second,
    )  # fmt: skip


def _shared(
    blocks: Suspects, mapped: list[Suspect], mapped_per_second: float, growth: float
) -> list[Suspect]:
    """What was mapped is known exactly; the rest of the growth is the blocks', by their shares."""
    known = sum(one.share or 0.0 for one in mapped) * mapped_per_second
    scale = mapped_per_second / max(growth, known)
    large = {
        place_of(one.frame)
        for one in blocks.suspects
        if one.held_bytes >= MAPPED_FROM_BYTES * one.blocks
    }
    twice = large & {place_of(one.frame) for one in mapped}
    kept = [one for one in blocks.suspects if place_of(one.frame) not in twice]
    rest = (1 - min(1.0, known / growth)) / (sum(one.share or 0.0 for one in kept) or 1.0)
    found: dict[Place, Suspect] = {}
    for one, factor in (*((one, rest) for one in kept), *((one, scale) for one in mapped)):
        share = (one.share or 0.0) * factor
        before = found.get(place_of(one.frame))
        if before is not None:
            share += before.share or 0.0
            evidence = (*before.evidence, *one.evidence)
            one = replace(before, evidence=tuple(dict.fromkeys(evidence)))
        if share >= LEAST_SHARE:
            one = replace(one, share=share, bytes_per_second=share * growth)
            found[place_of(one.frame)] = one
    return sorted(found.values(), key=lambda one: -(one.share or 0.0))
