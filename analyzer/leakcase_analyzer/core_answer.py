"""The answer about a core file: one look, no series, so that only what is lost for good shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, HeapState, NotSeen, Observation
from leakcase_analyzer.findings.size_classes import class_words
from leakcase_analyzer.findings.unreachable import Unreachable
from leakcase_analyzer.kinds import Kind, first_of_type, of_type
from leakcase_analyzer.leaked import OPEN_CONFIDENCE
from leakcase_analyzer.sentences import Count, Name, Sentence, Share, Size, say
from leakcase_analyzer.series.growth import Status

#: A leak that matters has lost so much, and this share of all blocks in use: without a series
#: nothing else says that it is what the memory went to.
LEAST_LEAK_BYTES, LEAST_LEAK_SHARE = 1 << 20, 0.25
#: A class of size with this much of what is in use is worth naming.
LEADING_SHARE = 0.3
MOST_NAMED = 3


@dataclass(frozen=True)
class CoreAnswer:
    """What a verdict on a core file says."""

    status: Status
    kind: Kind
    confidence: float
    headline: Sentence
    reasons: tuple[Sentence, ...]


def answer_of_core(evidence: Evidence, findings: Sequence[Finding]) -> CoreAnswer:
    """Leak where nothing referred to a large part of the heap; else undecided, with its facts."""
    reasons = tuple(dict.fromkeys(_reasons(evidence, findings)))
    lost = _leak(evidence, findings)
    if lost is None:
        return CoreAnswer("undecided", "none", 0.0, _undecided(findings), reasons)
    weights = [missing.weight for missing in of_type(findings, NotSeen)]
    headline = say(
        "Leak: nothing referred any more to {blocks} of {size} when the core file was written.",
        blocks=Count(lost.blocks, "block"),
        size=Size(lost.size_bytes),
    )
    confidence = round(OPEN_CONFIDENCE * prod(weights), 2)
    return CoreAnswer("leak", "heap", confidence, headline, reasons)


def _leak(evidence: Evidence, findings: Sequence[Finding]) -> Unreachable | None:
    found, record = first_of_type(findings, Unreachable), evidence.unreachable
    if found is None or record is None or not found.certain:
        return None
    least = max(LEAST_LEAK_BYTES, LEAST_LEAK_SHARE * record.looked_at_bytes)
    return found if found.size_bytes >= least else None


def _undecided(findings: Sequence[Finding]) -> Sentence:
    state = first_of_type(findings, HeapState)
    if state is None:
        return say("Undecided: a core file is one look, and this one told nothing of the heap.")
    return say(
        "Undecided: a core file is one look, which shows no growth; {used} of its heap were in "
        "use.",
        used=Size(state.in_use_bytes),
    )


def _reasons(evidence: Evidence, findings: Sequence[Finding]) -> Iterator[Sentence]:
    yield from (one.claim for one in of_type(findings, Observation) if one.topic == "unreachable")
    state = first_of_type(findings, HeapState)
    if state is not None:
        yield state.claim
        yield from state.evidence_for
    yield from _sizes(evidence)
    yield from _types(evidence)
    yield from _classes(evidence)


def _sizes(evidence: Evidence) -> Iterator[Sentence]:
    sizes = evidence.heap[-1].sizes if evidence.heap else {}
    total = sum(amount.size_bytes for amount in sizes.values())
    for chunk, amount in sizes.items():
        if total and amount.size_bytes >= LEADING_SHARE * total:
            yield say(
                "{share} of what malloc had handed out were " + class_words(chunk) + " ({count})",
                share=Share(amount.size_bytes / total),
                count=Count(amount.count, "block"),
            )


def _types(evidence: Evidence) -> Iterator[Sentence]:
    types = evidence.python[-1].types if evidence.python else {}
    ordered = sorted(types.items(), key=lambda item: -item[1].size_bytes)
    for name, amount in ordered[:MOST_NAMED]:
        yield say(
            "of Python's objects {name} took {size}: {count}",
            name=Name(name),
            size=Size(amount.size_bytes),
            count=Count(amount.count, "object"),
        )


def _classes(evidence: Evidence) -> Iterator[Sentence]:
    classes = (evidence.blocks[-1].classes or {}) if evidence.blocks else {}
    ordered = sorted(classes.items(), key=lambda item: -item[1].count)
    for name, amount in ordered[:MOST_NAMED]:
        yield say(
            "of the C++ class {name} there were {count}",
            name=Name(name),
            count=Count(amount.count, "object"),
        )
