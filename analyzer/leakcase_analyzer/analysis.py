"""The whole way from an open case to an answer that reports can draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from leakcase_analyzer.action import Action
from leakcase_analyzer.actions import actions
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings import find_all
from leakcase_analyzer.findings.base import (
    Attribution,
    ClassGrowth,
    CppClasses,
    Finding,
    HeapState,
    NotSeen,
    ObjectTypes,
    RuledOut,
    SizeClasses,
    TimeToLimit,
    Trend,
    TypeGrowth,
)
from leakcase_analyzer.findings.regions import words
from leakcase_analyzer.findings.size_classes import words as size_words
from leakcase_analyzer.findings.suspect import Suspects
from leakcase_analyzer.findings.tracks import DESCRIPTORS
from leakcase_analyzer.gather import read_evidence
from leakcase_analyzer.heap_reasons import growing_sizes
from leakcase_analyzer.kinds import first_of_type, of_type
from leakcase_analyzer.memory import MemorySplit, split
from leakcase_analyzer.verdict import Verdict, weigh

if TYPE_CHECKING:
    from leakcase_analyzer.symbols.debug_files import DebugFiles


@dataclass(frozen=True)
class Growing:
    """One thing that grows; `share` is of all memory that grows, None for what is not memory.

    `part_of` names the entry that this one is a part of: parts are not to be added to it.
    """

    what: str
    unit: str
    rate_per_hour: float
    interval: tuple[float, float] | None
    share: float | None
    part_of: str | None = None


@dataclass(frozen=True)
class Analysis:
    """What there is to report about one case."""

    evidence: Evidence
    verdict: Verdict
    growing: tuple[Growing, ...]
    memory: MemorySplit
    heap: HeapState | None
    sizes: SizeClasses | None
    types: tuple[TypeGrowth | ClassGrowth, ...]
    code: Suspects | None
    """Who allocates what stays; None where allocations were not traced."""
    trends: tuple[Trend, ...]
    ruled_out: tuple[RuledOut, ...]
    not_seen: tuple[NotSeen, ...]
    time_to_limits: tuple[TimeToLimit, ...]
    actions: tuple[Action, ...]


def analyze(file: BinaryIO, debug_files: DebugFiles | None = None) -> Analysis:
    """Read and judge an open case. Raises NotACase, NewerFormat or CodecMissing.

    With `debug_files` native code is named by lines; else nothing but the case is looked at.
    """
    evidence = read_evidence(file)
    if debug_files is not None and evidence.tracing.windows:
        from leakcase_analyzer.symbols.source_lines import with_source_lines
        from leakcase_analyzer.symbols.symbolizers import find_symbolizer

        told = with_source_lines(evidence.tracing, debug_files, find_symbolizer)
        evidence = replace(evidence, tracing=told)
    return judge_evidence(evidence)


def judge_evidence(evidence: Evidence) -> Analysis:
    """Findings, verdict, and what follows from them."""
    findings = find_all(evidence)
    verdict = weigh(evidence, findings)
    blind = (*verdict.not_seen, *of_type(findings, NotSeen))
    limits = sorted(of_type(findings, TimeToLimit), key=lambda limit: limit.seconds)
    return Analysis(
        evidence=evidence,
        verdict=verdict,
        growing=tuple(_growing(findings)),
        memory=split(evidence),
        heap=first_of_type(findings, HeapState),
        sizes=first_of_type(findings, SizeClasses),
        types=_types(findings),
        code=first_of_type(findings, Suspects),
        trends=tuple(of_type(findings, Trend)),
        # That the verdict's own quantity is no leak is the verdict, not one cause among others.
        ruled_out=tuple(
            found
            for found in of_type(findings, RuledOut)
            if verdict.main is None or found.what != verdict.main.what
        ),
        # What weighs most comes first; the order among equals is that of the findings.
        not_seen=tuple(sorted(dict.fromkeys(blind), key=lambda missing: missing.weight)),
        time_to_limits=tuple(limits),
        actions=actions(evidence, findings, verdict),
    )


def _types(findings: Sequence[Finding]) -> tuple[TypeGrowth | ClassGrowth, ...]:
    """A runtime's types and C++ classes; those whose sizes are not known come last."""
    types, classes = first_of_type(findings, ObjectTypes), first_of_type(findings, CppClasses)
    found: tuple[TypeGrowth | ClassGrowth, ...] = (
        *(types.types if types else ()),
        *(classes.classes if classes else ()),
    )
    return tuple(sorted(found, key=lambda one: -(one.growth_bytes or 0)))


def _growing(findings: Sequence[Finding]) -> list[Growing]:
    rising = [t for t in of_type(findings, Trend) if t.rises and _is_the_targets(t)]
    total = sum(t.growth.rate_per_second or 0.0 for t in rising if t.counts and t.unit == "bytes")
    found: list[Growing] = []
    for trend in rising:
        rate = trend.growth.rate_per_second or 0.0
        is_memory = trend.counts and trend.unit == "bytes"
        found.append(
            Growing(
                what=trend.what,
                unit=trend.unit,
                rate_per_hour=rate * 3600,
                interval=_interval(trend),
                share=rate / total if is_memory and total > 0 else None,
                part_of=None if trend.counts else DESCRIPTORS.what,
            )
        )
        if is_memory:
            parts = _parts(findings, trend, rate, total)
            found += parts
            if trend.subject == "anonymous":
                # Blocks lie in the mappings that grow most: parts of those, not a second time
                # of the whole.
                whole = parts[0].what if parts else trend.what
                found += _sizes(findings, whole, rate, total)
    return found


def _is_the_targets(trend: Trend) -> bool:
    """Not the control group's, and not counted twice: a kind of descriptors is a part."""
    return trend.counts or trend.subject == "descriptors"


def _interval(trend: Trend) -> tuple[float, float] | None:
    growth = trend.growth
    if growth.rate_low is None or growth.rate_high is None:
        return None
    return growth.rate_low * 3600, growth.rate_high * 3600


def _parts(findings: Sequence[Finding], trend: Trend, rate: float, total: float) -> list[Growing]:
    return [
        Growing(
            what=words(part.kind),
            unit="bytes",
            rate_per_hour=part.rate_per_second * 3600,
            interval=None,
            share=part.share * rate / total if total > 0 else None,
            part_of=trend.what,
        )
        for attribution in of_type(findings, Attribution)
        if attribution.subject == trend.subject
        for part in attribution.regions
    ]


def _sizes(findings: Sequence[Finding], whole: str, rate: float, total: float) -> list[Growing]:
    return [
        Growing(
            what=size_words(part),
            unit="bytes",
            rate_per_hour=part.rate_per_second * 3600,
            interval=None,
            share=min(part.rate_per_second, rate) / total if total > 0 else None,
            part_of=whole,
        )
        for part in growing_sizes(findings)
    ]
