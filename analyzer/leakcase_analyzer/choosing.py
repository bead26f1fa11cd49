"""Which quantity decides the verdict, and what a bound of the program's own changes about it.

The order: memory of the target that grows for good; else threads or descriptors that do; else
memory that may; else memory that rose and stopped; else what is steady. Of several that grow the
one with the most bytes decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from leakcase_analyzer.findings.base import Bound, Finding, Trend
from leakcase_analyzer.findings.managed_heap import ManagedState
from leakcase_analyzer.findings.tracks import LEAST_COLLECTIONS
from leakcase_analyzer.kinds import (
    KindFound,
    first_of_type,
    of_type,
    per_thread,
    threads_explain,
)
from leakcase_analyzer.sentences import Count, Sentence, Size, say
from leakcase_analyzer.series.confidence import confidence
from leakcase_analyzer.series.growth import FULL_WINDOW_SECONDS, WATCH_FACTOR, Status

#: A program needs memory beside what it bounds: from this share of a bound on it is reached, and
#: up to this much beyond it, it holds.
REACHED, MARGIN, MARGIN_BYTES = 0.8, 1.25, 16 << 20
#: What the group's kernel memory tells is less sure than the process's own figures.
KERNEL_WEIGHT = 0.6
#: How sure it is that a bound stops what has stopped at it.
AT_BOUND_CONFIDENCE = 0.8
#: Files and shared memory come and go a little in any process; less than this decides nothing.
WORTH_TELLING_BYTES = 1 << 20
#: Reasons for which growth that stopped is undecided; a bound at that level decides it.
STOPPED = frozenset({"quiet", "decelerating"})


@dataclass(frozen=True)
class Choice:
    """The quantity that decides, and what is said of it."""

    status: Status
    main: Trend
    because: tuple[Sentence, ...] = ()
    weight: float = 1.0
    watch_longer_seconds: float | None = None
    bound: Bound | None = None
    """What the quantity is still below, and may fill up to."""
    confidence: float = 0.0
    """At least this sure, by other evidence than the series'."""
    headline: Sentence | None = None
    """What is said first, where the usual words do not fit."""


def choose(trends: Sequence[Trend], findings: Sequence[Finding]) -> Choice | None:
    """The choice among the target's own quantities; None where none was measured."""
    if not trends:
        return None
    return (
        _leak(trends, findings) or _retention(trends) or _undecided(trends) or _not_growing(trends)
    )


def _leak(trends: Sequence[Trend], findings: Sequence[Finding]) -> Choice | None:
    leaks = [trend for trend in trends if trend.status == "leak"]
    memory = sorted(
        (t for t in leaks if t.unit == "bytes" and t.subject != "kernel"), key=_rate, reverse=True
    )
    counts = {trend.subject: trend for trend in leaks if trend.unit != "bytes"}
    threads = counts.get("threads")
    anonymous = next((t for t in trends if t.subject == "anonymous"), None)
    most = memory[0] if memory else None
    only_memory = most is None or most is anonymous
    if threads is not None and only_memory and threads_explain(anonymous, threads, findings):
        because = () if most is None else (per_thread(most, threads),)
        return Choice("leak", threads, because)
    if most is not None:
        return Choice("leak", most, _beside(most, leaks))
    if "descriptors" in counts:
        return Choice("leak", counts["descriptors"], _beside(counts["descriptors"], leaks))
    if leaks:
        return Choice("leak", max(leaks, key=_rate), weight=KERNEL_WEIGHT)
    return None


def _beside(main: Trend, leaks: Sequence[Trend]) -> tuple[Sentence, ...]:
    others = [trend.claim for trend in leaks if trend is not main]
    return (say("it is not the only thing that grows"), *others) if others else ()


def _retention(trends: Sequence[Trend]) -> Choice | None:
    kept = next((trend for trend in trends if trend.status == "retention"), None)
    if kept is None:
        return None
    sure = confidence("retention", kept.growth.window_seconds, books_agree=True)
    return Choice("retention", kept, confidence=sure)


def _undecided(trends: Sequence[Trend]) -> Choice | None:
    open_ones = [
        trend
        for trend in trends
        if trend.status == "undecided"
        and (trend.subject == "anonymous" or trend.growth.steady_no_bound_seen)
    ]
    if not open_ones:
        return None
    main = max(open_ones, key=lambda trend: (trend.subject == "anonymous", _rate(trend)))
    longer = main.growth.watch_longer_seconds
    if longer is None:
        longer = max(FULL_WINDOW_SECONDS, (WATCH_FACTOR - 1) * main.growth.window_seconds)
    return Choice("undecided", main, watch_longer_seconds=longer)


def _not_growing(trends: Sequence[Trend]) -> Choice:
    """Memory that rose and stopped is told rather than memory that did not move."""
    memory = [t for t in trends if t.unit == "bytes" and t.subject != "kernel"]
    rose = [
        t
        for t in memory
        if t.status == "bounded"
        and (t.subject == "anonymous" or t.last - t.first >= WORTH_TELLING_BYTES)
    ]
    steady = [t for t in memory or trends if t.status in ("stable", "bounded")]
    told = rose or steady
    if not told:
        return Choice("undecided", trends[0], watch_longer_seconds=FULL_WINDOW_SECONDS)
    main = max(told, key=lambda t: (t.subject == "anonymous", t.last - t.first))
    return Choice(main.status, main)


def _rate(trend: Trend) -> float:
    return trend.growth.rate_per_second or 0.0


def respect_bounds(choice: Choice, kind: KindFound, findings: Sequence[Finding]) -> Choice:
    """Growth below a bound that the program was given is what the bound allows, and growth that
    stopped there has stopped for good."""
    if kind.kind not in ("heap", "managed-heap", "mmap"):
        return choice
    for bound in of_type(findings, Bound):
        if bound.managed_only and kind.kind != "managed-heap":
            continue
        room = bound.bound_bytes * MARGIN + MARGIN_BYTES - choice.main.last
        full = _full_of_kept(bound, findings) if bound.managed_only else None
        if choice.status == "leak" and room > 0:
            left = _left_by_collections(bound, findings) if bound.managed_only else ()
            if left:
                return replace(choice, because=(*choice.because, *left))
            return _below(choice, bound, room)
        reached = choice.main.last >= REACHED * bound.bound_bytes and room > 0
        if choice.status == "undecided" and choice.main.growth.reason in STOPPED and reached:
            if full is not None:
                return replace(choice, because=(bound.claim, full, *choice.because))
            return replace(
                choice,
                status="bounded",
                because=(bound.claim, say("it stopped where that bound stops it")),
                watch_longer_seconds=None,
                confidence=AT_BOUND_CONFIDENCE,
            )
    return choice


def _left_by_collections(bound: Bound, findings: Sequence[Finding]) -> tuple[Sentence, ...]:
    """Why growth towards the limit of a collected heap is no collector's putting off; empty: it
    may be. At that limit nothing is dropped as a cache would: the program runs out of memory."""
    state = first_of_type(findings, ManagedState)
    change = None if state is None else state.change
    if change is None or not change.is_confirmed or (change.collections or 0) < LEAST_COLLECTIONS:
        return ()
    return (
        bound.claim,
        say(
            "that only bounds it: {count} left what grew, so it is not garbage that piles up until "
            "the bound is met",
            count=Count(change.collections or 0, "collection"),
        ),
    )


def _full_of_kept(bound: Bound, findings: Sequence[Finding]) -> Sentence | None:
    """That a collected heap stands at its limit because collections free hardly any of it."""
    state = first_of_type(findings, ManagedState)
    kept = None if state is None else state.heap.kept_bytes
    if kept is None or kept < REACHED * bound.bound_bytes:
        return None
    return say(
        "collections leave {kept} of that: it is full, and stopped for want of room",
        kept=Size(kept),
    )


def _below(choice: Choice, bound: Bound, room_bytes: float) -> Choice:
    rate = _rate(choice.main)
    return replace(
        choice,
        status="undecided",
        because=(
            bound.claim,
            say("filling up to that is no leak, and it is not reached yet"),
            *choice.because,
        ),
        watch_longer_seconds=room_bytes / rate if rate > 0 else FULL_WINDOW_SECONDS,
        bound=bound,
    )
