"""Who allocates what stays: blocks of short traced windows, looked at again later.

That a block is alive at the last look does not show that it is never freed: a cache whose entries
live longer looks the same. So the age up to which blocks were followed is part of every claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding
from leakcase_analyzer.findings.fates import PlaceFate, fates_of
from leakcase_analyzer.findings.in_work import EARLY_SECONDS, takes_in
from leakcase_analyzer.findings.managed_heap import lies_in_collected_heap
from leakcase_analyzer.findings.mapped import mappings, with_mappings
from leakcase_analyzer.findings.outstanding import outstanding
from leakcase_analyzer.findings.retention import heap_change
from leakcase_analyzer.findings.source_lines import source_lines
from leakcase_analyzer.findings.suspect import Basis, Suspect, Suspects
from leakcase_analyzer.findings.suspect_words import claim, evidence_of
from leakcase_analyzer.findings.trace_limits import trace_limits
from leakcase_analyzer.findings.tracks import ANONYMOUS
from leakcase_analyzer.findings.trends import trend
from leakcase_analyzer.findings.window_states import when, window_states
from leakcase_analyzer.series.activity import State
from leakcase_analyzer.trace_looks import Tracing, Watched

MOST_SUSPECTS = 32
#: A population of which less than this is alive at the first look is no cache, but in transit.
LINGERING = 0.05
#: Less of what stays than this is not listed.
LEAST_SHARE = 0.001
#: How sure so many blocks that stayed make, and so long a look; the first that is reached counts.
BY_BLOCKS = ((10, 1.0), (3, 0.85), (0, 0.5))
BY_AGE_SECONDS = ((300, 1.0), (60, 0.95), (25, 0.85), (9, 0.7), (0, 0.5))
BY_FATE = {"stays": 1.0, "early": 0.7, "unclear": 0.6, "dies": 0.0}
AT_BEST, AT_LEAST = 0.95, 0.2
#: Where the heap does not grow, what stays so far is sooner kept for a while than for good.
NOT_GROWING = 0.5
#: Windows are few and short: blocks come in at so many times the true rate by chance alone.
CHANCE = 1.5


def survivors(evidence: Evidence) -> Iterator[Finding]:
    """The suspects of a case in which allocations were watched, and what that cannot show."""
    tracing = evidence.tracing
    if not tracing.windows:
        return
    books = heap_change(evidence)
    aside = lies_in_collected_heap(evidence, 0.0 if books is None else books.in_use_bytes)
    growth = None if aside else growth_behind(evidence)
    told = [one for one in tracing.windows if one.outstanding]
    all_blocks = [one for one in told if not one.maps]
    found = _of_bursts(evidence, tracing, growth, aside)
    found = found or outstanding(tracing, all_blocks, growth)
    if not (aside and found is not None):
        found = with_mappings(found, mappings(evidence, [one for one in told if one.maps], growth))
    if found is not None:
        yield replace(found, aside=aside)
        yield from trace_limits(tracing, found)
        yield from source_lines(tracing, found)


def growth_behind(evidence: Evidence) -> float | None:
    """What the heap grows by, in bytes per second; None: it does not, or that is not known."""
    found = trend(evidence, ANONYMOUS)
    if found is None or not found.rises:
        return None
    change = heap_change(evidence)
    if change is not None and change.covers and change.seconds > 0 and change.in_use_bytes > 0:
        return change.in_use_bytes / change.seconds
    rate = found.growth.rate_per_second
    return rate if rate is not None and rate > 0 else None


def _of_bursts(
    evidence: Evidence, tracing: Tracing, growth: float | None, aside: bool
) -> Suspects | None:
    windows = [one for one in tracing.windows if not one.outstanding and not one.maps]
    if not windows or all(one.total.mode == "full" for one in windows):
        return None
    found = [fate for fate in fates_of(evidence) if fate.batches]
    basis: Basis = "survivors" if any(one.looks for one in windows) else "window"
    states = window_states(evidence, windows)
    staying = {id(fate): _staying(fate) for fate in found}
    in_work: list[Suspect] = []
    steady = growth is None and not aside  # Else memory does rise, if by what nobody watched.
    if steady and basis == "survivors" and not takes_in(evidence, sum(staying.values())):
        early = [one for one in found if _may_be_in_work(one)]
        in_work = [_suspect(one, tracing, windows, states, None, None, 0.0) for one in early]
        found = [one for one in found if not _may_be_in_work(one)]
        staying = {id(fate): _staying(fate) for fate in found}
    total = sum(staying.values())
    seconds = sum(one.duration_seconds for one in windows)
    sure = _sure_of_all(windows, growth, total)
    suspects: list[Suspect] = []
    passing: list[Suspect] = []
    for fate in sorted(found, key=lambda one: staying[id(one)], reverse=True):
        share = staying[id(fate)] / total if total else 0.0
        if fate.curve.pattern == "dies":
            if fate.curve.alive_shares[0] < LINGERING:
                continue
            passing.append(_suspect(fate, tracing, windows, states, None, None, 0.0))
        elif share >= LEAST_SHARE and len(suspects) < MOST_SUSPECTS:
            rate = None if growth is None else share * growth
            suspects.append(_suspect(fate, tracing, windows, states, share, rate, sure))
    passing.sort(key=lambda one: one.followed, reverse=True)
    in_work.sort(key=lambda one: one.held_bytes, reverse=True)
    last_age = max((look.age_seconds for one in windows for look in one.looks), default=0.0)
    allocations = sum(one.total.allocations for one in windows)
    return Suspects(
        claim=claim(
            basis, suspects, passing, in_work, len(windows), seconds, allocations, last_age
        ),
        evidence_for=suspects[0].evidence if suspects else (),
        basis=basis,
        suspects=tuple(suspects),
        passing=tuple(passing[:MOST_SUSPECTS]),
        in_work=tuple(in_work[:MOST_SUSPECTS]),
        windows=len(windows),
        window_seconds=seconds,
        allocations=allocations,
        followed_seconds=last_age,
        growth_per_second=growth,
        kept_per_second=total,
    )


def _may_be_in_work(fate: PlaceFate) -> bool:
    return fate.curve.pattern != "dies" and fate.curve.last_age_seconds < EARLY_SECONDS


def _staying(fate: PlaceFate) -> float:
    return 0.0 if fate.curve.pattern == "dies" else fate.staying_per_second


def _suspect(
    fate: PlaceFate,
    tracing: Tracing,
    windows: Sequence[Watched],
    states: Sequence[State | None],
    share: float | None,
    rate: float | None,
    sure: float,
) -> Suspect:
    main = fate.main_stack
    followed = sum(batch.cohort.size for batch in fate.batches)
    alive = sum(batch.alive for batch in fate.batches)
    weak = min(alive, sum(batch.weak for batch in fate.batches))
    trigger, said = when(fate.batches, windows, states)
    return Suspect(
        basis="survivors" if fate.curve.ages_seconds else "window",
        frame=fate.frames[main],
        stack=tracing.stack(main),
        stacks=len(fate.frames),
        fate=fate.curve.pattern,
        share=share,
        bytes_per_second=rate,
        confidence=_confidence(fate, alive, weak, followed, sure),
        held_bytes=sum(batch.alive_bytes for batch in fate.batches),
        blocks=alive,
        followed=followed,
        freed=max(0.0, followed - alive),
        curve=fate.curve,
        trigger=trigger,
        evidence=tuple(evidence_of(fate, alive, followed, weak, tracing.contents.get(main), said)),
    )


def _confidence(fate: PlaceFate, alive: float, weak: float, followed: float, sure: float) -> float:
    if not fate.curve.ages_seconds:
        return round(AT_LEAST * sure, 2)
    unknown = sum(batch.unknown for batch in fate.batches)
    marks = 1 - 0.5 * (weak / alive if alive else 0.0)
    seen = 1 - 0.5 * min(1.0, unknown / followed if followed else 0.0)
    value = AT_BEST * sure * BY_FATE[fate.curve.pattern] * marks * seen
    value *= _reached(BY_BLOCKS, alive) * _reached(BY_AGE_SECONDS, fate.curve.last_age_seconds)
    return round(value, 2)


def _reached(steps: Sequence[tuple[float, float]], value: float) -> float:
    return next(factor for least, factor in steps if value >= least)


def _sure_of_all(windows: Sequence[Watched], growth: float | None, kept: float) -> float:
    """What losses leave, and how much of what stays so far the heap's growth has room for."""
    totals = [one.total for one in windows]
    seen = sum(one.allocations for one in totals)
    lost = sum((one.lost_blocks or 0) + (one.lost_stacks or 0) for one in totals)
    whole = seen / (seen + lost) if seen + lost else 0.0
    if growth is None:
        return whole * NOT_GROWING
    room = min(1.0, CHANCE * growth / kept) if kept > 0 else 1.0
    return whole * max(AT_LEAST, room)
