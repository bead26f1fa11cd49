"""The stacks of a case with what each of them made, and what of that stayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.errors import UsageProblem
from leakcase_analyzer.findings.fates import coverages, fates_of, watched_seconds
from leakcase_analyzer.findings.mapped import counts_in
from leakcase_analyzer.trace_looks import Frame, Tracing, Watched


@dataclass(frozen=True)
class Weighted:
    """One stack, innermost frame first; `stayed` is alive at the last look, or is not freed."""

    frames: tuple[Frame, ...]
    made_blocks: int
    made_bytes: int
    stayed_blocks: int
    stayed_bytes: int


def weighted_stacks(analysis: Analysis) -> list[Weighted]:
    """Most of what stayed first. Raises UsageProblem where allocations were not traced."""
    found = [one for one in _all(analysis) if one.made_blocks or one.stayed_blocks]
    if not found:
        raise UsageProblem(
            "there is nothing to export: allocations were not traced in this case. Capture with "
            "--trace bursts --allow read-memory,trace."
        )
    return sorted(found, key=lambda one: (-one.stayed_bytes, -one.made_bytes))


def _all(analysis: Analysis) -> list[Weighted]:
    tracing = analysis.evidence.tracing
    stayed: dict[int, tuple[float, float]] = {}
    # Of several kinds of blocks with windows of their own: as if all had been watched as long.
    bursts = [one for one in tracing.windows if not one.outstanding and not one.maps]
    made = _made(tracing, bursts)
    seconds = max(watched_seconds(bursts).values(), default=0.0)
    for fate in fates_of(analysis.evidence):
        for stack, one in fate.staying.items():
            stayed[stack] = (one.blocks_per_second * seconds, one.bytes_per_second * seconds)
    counts = counts_in(analysis.evidence)
    for window in tracing.windows:
        if not window.outstanding or (window.maps and not _maps_count(analysis)):
            continue
        scale = seconds / window.duration_seconds if bursts and window.duration_seconds else 1.0
        for stack, held in window.outstanding[-1].rows.items():
            if window.maps and not counts(tracing.stack(stack)):
                continue
            blocks, size = stayed.get(stack, (0.0, 0.0))
            stayed[stack] = (blocks + scale * held.blocks, size + scale * held.held_bytes)
            if stack not in window.sites:
                count, made_bytes = made.get(stack, (0.0, 0.0))
                # How large freed blocks were is not told.
                made[stack] = (count + held.allocations, made_bytes + held.held_bytes)
    return [
        Weighted(
            tracing.stack(stack).frames,
            *(round(figure) for figure in made.get(stack, (0.0, 0.0))),
            *(round(figure) for figure in stayed.get(stack, (0.0, 0.0))),
        )
        for stack in sorted(made.keys() | stayed.keys())
    ]


def _maps_count(analysis: Analysis) -> bool:
    """Whether whole mappings are among the suspects; else blocks in them are."""
    found = analysis.code
    return found is not None and any(one.basis == "mappings" for one in found.suspects)


def _made(tracing: Tracing, bursts: Sequence[Watched]) -> dict[int, tuple[float, float]]:
    """Blocks and bytes by stack; what some windows did not watch as if they had."""
    covered, seconds = coverages(bursts), watched_seconds(bursts)
    found: dict[int, tuple[float, float]] = {}
    for window in tracing.windows:
        kind = window.total.watched
        for stack, site in window.sites.items():
            scale, coverage = 1.0, covered.get((stack, kind))
            if coverage is not None and not window.outstanding and not window.maps:
                is_counted = window.watched_all(coverage.sizes)
                scale = seconds[kind] / coverage.seconds if is_counted else 0.0
            blocks, size = found.get(stack, (0.0, 0.0))
            found[stack] = (
                blocks + scale * site.allocations,
                size + scale * site.allocated_bytes,
            )
    return found
