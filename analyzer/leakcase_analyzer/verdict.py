"""The verdict: findings weighed into one answer, with how sure it is and why.

The order of weight: memory of the target that grows for good; else threads or descriptors that
do; else memory that may; else what rose and stopped; else nothing grows. Of several that grow the
one with the most bytes decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import (
    Activity,
    Attribution,
    Bound,
    Finding,
    NotSeen,
    Observation,
    TimeToLimit,
    Trend,
)
from leakcase_analyzer.headline import headline
from leakcase_analyzer.kinds import Kind, KindFound, kind_of, of_type, per_thread, threads_explain
from leakcase_analyzer.sentences import Sentence, say
from leakcase_analyzer.series.growth import FULL_WINDOW_SECONDS, Status
from leakcase_analyzer.series.trigger import When

#: A bound counts as one until memory is this far beyond it: programs need some for themselves.
BOUND_MARGIN = 1.25
#: What the group's kernel memory tells is less sure than the process's own figures.
KERNEL_WEIGHT = 0.6
#: Limits that lie further ahead than a month are listed, but are no part of the answer.
WORTH_A_WORD_SECONDS = 30 * 86_400.0


@dataclass(frozen=True)
class Verdict:
    """The answer. Rates are of memory, None where memory is not what grows or is not known."""

    status: Status
    kind: Kind
    confidence: float
    headline: Sentence
    rate_bytes_per_hour: float | None
    rate_interval_bytes_per_hour: tuple[float, float] | None
    trigger: When
    watch_longer_seconds: float | None
    reasons: tuple[Sentence, ...]
    main: Trend | None
    """The quantity that decided; None where there was nothing to judge."""
    bound: Bound | None = None
    """A bound of the program's own that it is still below."""
    not_seen: tuple[NotSeen, ...] = ()
    """What the choice of the kind leaves open."""


@dataclass(frozen=True)
class _Choice:
    """The quantity that decides, and what is said of it."""

    status: Status
    main: Trend
    because: tuple[Sentence, ...] = ()
    weight: float = 1.0
    watch_longer_seconds: float | None = None
    bound: Bound | None = None
    """What the quantity is still below, and may fill up to."""


def weigh(evidence: Evidence, findings: Sequence[Finding]) -> Verdict:
    """One verdict from all findings."""
    trends = [trend for trend in of_type(findings, Trend) if trend.counts]
    choice = _choose(trends, findings)
    if choice is None:
        return _nothing_to_judge()
    kind = _kind(evidence, findings, choice)
    choice = _respect_bounds(choice, kind, findings)
    memory = _memory_behind(choice, trends)
    confidence = _confidence(choice, kind, findings)
    activity = [a for a in of_type(findings, Activity) if a.subject == choice.main.subject]
    return Verdict(
        status=choice.status,
        kind=kind.kind,
        confidence=confidence,
        headline=headline(
            choice.status,
            kind.kind,
            choice.main,
            memory,
            confidence,
            choice.watch_longer_seconds,
            None if choice.bound is None else choice.bound.bound_bytes,
        ),
        rate_bytes_per_hour=_per_hour(memory),
        rate_interval_bytes_per_hour=_interval(memory),
        trigger=activity[0].trigger if activity and choice.main.rises else "unknown",
        watch_longer_seconds=choice.watch_longer_seconds,
        reasons=_reasons(choice, kind, findings, activity),
        main=choice.main,
        bound=choice.bound,
        not_seen=kind.not_seen if choice.status in ("leak", "undecided") else (),
    )


def _nothing_to_judge() -> Verdict:
    return Verdict(
        status="undecided",
        kind="none",
        confidence=0.0,
        headline=say("Undecided: the case holds no memory figures of the process to judge."),
        rate_bytes_per_hour=None,
        rate_interval_bytes_per_hour=None,
        trigger="unknown",
        watch_longer_seconds=FULL_WINDOW_SECONDS,
        reasons=(say("not one sample of the process's memory is in the case"),),
        main=None,
    )


# --- which quantity decides ---------------------------------------------------------------------


def _choose(trends: Sequence[Trend], findings: Sequence[Finding]) -> _Choice | None:
    if not trends:
        return None
    return (
        _leak(trends, findings) or _retention(trends) or _undecided(trends) or _not_growing(trends)
    )


def _leak(trends: Sequence[Trend], findings: Sequence[Finding]) -> _Choice | None:
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
        return _Choice("leak", threads, because)
    if most is not None:
        return _Choice("leak", most, _beside(most, leaks))
    if "descriptors" in counts:
        return _Choice("leak", counts["descriptors"], _beside(counts["descriptors"], leaks))
    if leaks:
        return _Choice("leak", max(leaks, key=_rate), weight=KERNEL_WEIGHT)
    return None


def _beside(main: Trend, leaks: Sequence[Trend]) -> tuple[Sentence, ...]:
    others = [trend.claim for trend in leaks if trend is not main]
    return (say("it is not the only thing that grows"), *others) if others else ()


def _retention(trends: Sequence[Trend]) -> _Choice | None:
    kept = [trend for trend in trends if trend.status == "retention"]
    return _Choice("retention", kept[0]) if kept else None


def _undecided(trends: Sequence[Trend]) -> _Choice | None:
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
    return _Choice("undecided", main, watch_longer_seconds=longer)


def _not_growing(trends: Sequence[Trend]) -> _Choice | None:
    """What rose and stopped is told rather than what did not move."""
    for status in ("bounded", "stable"):
        found = [t for t in trends if t.status == status and t.subject != "kernel"]
        if found:
            memory = [t for t in found if t.unit == "bytes"]
            main = max(memory or found, key=lambda t: (t.subject == "anonymous", t.last - t.first))
            return _Choice(main.status, main)
    return _Choice("undecided", trends[0], watch_longer_seconds=FULL_WINDOW_SECONDS)


def _rate(trend: Trend) -> float:
    return trend.growth.rate_per_second or 0.0


# --- what it is, and how sure -------------------------------------------------------------------


def _kind(evidence: Evidence, findings: Sequence[Finding], choice: _Choice) -> KindFound:
    if choice.status == "stable":
        return KindFound("none")
    return kind_of(evidence, findings, choice.main)


def _respect_bounds(choice: _Choice, kind: KindFound, findings: Sequence[Finding]) -> _Choice:
    """Growth below a bound that the program was given is what the bound allows."""
    if choice.status != "leak" or kind.kind not in ("heap", "managed-heap", "mmap"):
        return choice
    for bound in of_type(findings, Bound):
        room = bound.bound_bytes * BOUND_MARGIN - choice.main.last
        applies = kind.kind == "managed-heap" or not bound.managed_only
        if applies and room > 0:
            rate = choice.main.growth.rate_per_second or 0.0
            longer = room / rate if rate > 0 else FULL_WINDOW_SECONDS
            because = say("filling up to that is no leak, and it is not reached yet")
            return replace(
                choice,
                status="undecided",
                because=(bound.claim, because, *choice.because),
                watch_longer_seconds=longer,
                bound=bound,
            )
    return choice


def _confidence(choice: _Choice, kind: KindFound, findings: Sequence[Finding]) -> float:
    if choice.status == "undecided":
        return 0.0
    weights = [missing.weight for missing in of_type(findings, NotSeen)]
    # A bound that does not move is a fact, however short the series is.
    base = max(choice.main.growth.confidence, 0.7 if choice.main.bounded_by is not None else 0.0)
    unsure = prod([*weights, choice.weight, kind.weight if choice.status == "leak" else 1.0])
    return round(base * unsure, 2)


def _memory_behind(choice: _Choice, trends: Sequence[Trend]) -> Trend | None:
    """The memory whose rate is reported: that of the leak, or what grows with a count."""
    main = choice.main
    if main.unit == "bytes":
        # Of what stopped rising, or rose in a way that nobody can judge yet, the mean rate over
        # the window says nothing about the hours to come.
        steady = main.growth.steady_no_bound_seen or main.growth.reason in ("flat", "falls-back")
        return main if steady and main.bounded_by is None else None
    leaks = [t for t in trends if t.subject == "anonymous" and t.status == "leak"]
    return leaks[0] if leaks else None


def _per_hour(memory: Trend | None) -> float | None:
    if memory is None or memory.growth.rate_per_second is None:
        return None
    return memory.growth.rate_per_second * 3600


def _interval(memory: Trend | None) -> tuple[float, float] | None:
    if memory is None or memory.growth.rate_low is None or memory.growth.rate_high is None:
        return None
    return memory.growth.rate_low * 3600, memory.growth.rate_high * 3600


def _reasons(
    choice: _Choice,
    kind: KindFound,
    findings: Sequence[Finding],
    activity: Sequence[Activity],
) -> tuple[Sentence, ...]:
    main = choice.main
    reasons = [main.claim, *main.evidence_against, *main.evidence_for, *choice.because]
    for attribution in of_type(findings, Attribution):
        if attribution.subject == main.subject and choice.status != "stable":
            reasons += [attribution.claim, *attribution.evidence_against]
    reasons += kind.because
    for found in activity if choice.status == "leak" else ():
        reasons += [found.claim, *found.evidence_for]
    reasons += [observation.claim for observation in of_type(findings, Observation)]
    limits = sorted(of_type(findings, TimeToLimit), key=lambda limit: limit.seconds)
    reasons += [limit.claim for limit in limits[:2] if limit.seconds < WORTH_A_WORD_SECONDS]
    return tuple(dict.fromkeys(reasons))
