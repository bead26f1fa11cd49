"""The verdict: findings weighed into one answer, with how sure it is and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from leakcase_analyzer.choosing import Choice, choose, respect_bounds
from leakcase_analyzer.core_answer import CoreAnswer, answer_of_core
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import (
    Activity,
    Attribution,
    Bound,
    Finding,
    HeapState,
    NotSeen,
    Observation,
    TimeToLimit,
    Trend,
)
from leakcase_analyzer.headline import headline
from leakcase_analyzer.heap_reasons import heap_reasons, with_type
from leakcase_analyzer.kinds import Kind, KindFound, first_of_type, kind_of, of_type
from leakcase_analyzer.leaked import heed_references
from leakcase_analyzer.sentences import Sentence, say
from leakcase_analyzer.series.growth import FULL_WINDOW_SECONDS, Status
from leakcase_analyzer.series.trigger import When
from leakcase_analyzer.trace_reasons import trace_reasons, with_suspect

#: How sure it is that mappings which do not grow bound what is resident of them.
EXTENT_CONFIDENCE = 0.7
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


def weigh(evidence: Evidence, findings: Sequence[Finding]) -> Verdict:
    """One verdict from all findings."""
    trends = [trend for trend in of_type(findings, Trend) if trend.counts]
    choice = choose(trends, findings)
    if choice is None:
        is_core = evidence.header is not None and evidence.header.core
        return _of_core(answer_of_core(evidence, findings)) if is_core else _nothing_to_judge()
    kind = _kind(evidence, findings, choice)
    choice = heed_references(respect_bounds(choice, kind, findings), findings)
    memory = _memory_behind(choice, trends)
    confidence = _confidence(choice, kind, findings)
    activity = [a for a in of_type(findings, Activity) if a.subject == choice.main.subject]
    return Verdict(
        status=choice.status,
        kind=kind.kind,
        confidence=confidence,
        headline=_headline(choice, kind, memory, confidence, findings),
        rate_bytes_per_hour=_per_hour(memory),
        rate_interval_bytes_per_hour=_interval(memory),
        trigger=activity[0].trigger if activity and choice.main.rises else "unknown",
        watch_longer_seconds=choice.watch_longer_seconds,
        reasons=_reasons(choice, kind, findings, activity),
        main=choice.main,
        bound=choice.bound,
        not_seen=kind.not_seen if choice.status in ("leak", "undecided") else (),
    )


def _headline(
    choice: Choice,
    kind: KindFound,
    memory: Trend | None,
    confidence: float,
    findings: Sequence[Finding],
) -> Sentence:
    said = choice.headline or headline(
        choice.status,
        kind.kind,
        choice.main,
        memory,
        confidence,
        choice.watch_longer_seconds,
        None if choice.bound is None else choice.bound.bound_bytes,
        first_of_type(findings, HeapState),
    )
    if choice.status != "leak" or choice.main.subject != "anonymous":
        return said
    named = with_suspect(said, findings)
    return with_type(said, findings) if named is said and kind.kind == "managed-heap" else named


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


def _of_core(answer: CoreAnswer) -> Verdict:
    return Verdict(
        status=answer.status,
        kind=answer.kind,
        confidence=answer.confidence,
        headline=answer.headline,
        rate_bytes_per_hour=None,
        rate_interval_bytes_per_hour=None,
        trigger="unknown",
        watch_longer_seconds=None if answer.status == "leak" else FULL_WINDOW_SECONDS,
        reasons=answer.reasons,
        main=None,
    )


# --- what it is, and how sure -------------------------------------------------------------------


def _kind(evidence: Evidence, findings: Sequence[Finding], choice: Choice) -> KindFound:
    if choice.status == "stable":
        return KindFound("none")
    if choice.status == "retention":
        return _who_keeps(first_of_type(findings, HeapState))
    return kind_of(evidence, findings, choice.main)


def _who_keeps(state: HeapState | None) -> KindFound:
    """malloc, or the interpreter's own allocator where more of it is that one's."""
    kept = None if state is None else state.kept_bytes
    managed = state is not None and state.python_kept_bytes > 0.5 * (kept or 0.0)
    return KindFound("managed-heap" if managed else "heap")


def _confidence(choice: Choice, kind: KindFound, findings: Sequence[Finding]) -> float:
    if choice.status == "undecided":
        return 0.0
    weights = [missing.weight for missing in of_type(findings, NotSeen)]
    by_extent = EXTENT_CONFIDENCE if choice.main.bounded_by is not None else 0.0
    base = max(choice.main.growth.confidence, choice.confidence, by_extent)
    unsure = prod([*weights, choice.weight, kind.weight if choice.status == "leak" else 1.0])
    return round(base * unsure, 2)


def _memory_behind(choice: Choice, trends: Sequence[Trend]) -> Trend | None:
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
    choice: Choice,
    kind: KindFound,
    findings: Sequence[Finding],
    activity: Sequence[Activity],
) -> tuple[Sentence, ...]:
    main = choice.main
    reasons = [main.claim, *main.evidence_against, *main.evidence_for, *choice.because]
    if main.subject == "anonymous":
        reasons += trace_reasons(findings, choice.status)
        reasons += heap_reasons(findings, choice.status)
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
