"""What the traced allocations say for an answer about anonymous memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leakcase_analyzer.code_names import place, whence
from leakcase_analyzer.findings.base import Finding, ObjectTypes
from leakcase_analyzer.findings.suspect import Suspects
from leakcase_analyzer.findings.suspect_words import named
from leakcase_analyzer.kinds import MOST_OF_IT, first_of_type
from leakcase_analyzer.own_types import UNTRACKED
from leakcase_analyzer.sentences import Name, Sentence, Share, Size, Span, say
from leakcase_analyzer.series.growth import Status

#: Where blocks come in so many times as fast as the heap grows, most of them must go later.
MUST_GO = 3.0
#: Suspects in words beside the first.
MOST_NAMED = 2
WORTH_A_WORD_SHARE = 0.05


def with_suspect(said: Sentence, findings: Sequence[Finding]) -> Sentence:
    """The answer, with the function in which most of what stays was allocated, if one is sure."""
    found = first_of_type(findings, Suspects)
    first = None if found is None else found.leading
    if first is None or first.frame is None or not said.template.endswith("."):
        return said
    where = whence(first.frame)
    text = "; {stays} of what stays was allocated in {function}"
    if _mostly_untracked(findings):
        text = "; {stays} of the objects that could be watched and stay were made in {function}"
    quantities = [
        *said.quantities,
        ("stays", Share(first.share or 0.0)),
        ("function", Name(place(first.frame))),
    ]
    if where is not None:
        text += " ({code})"
        quantities.append(("code", Name(where)))
    return Sentence(said.template[:-1] + text + ".", tuple(quantities))


def _mostly_untracked(findings: Sequence[Finding]) -> bool:
    """Whether much of what grows are objects of Python whose making nobody can watch."""
    types = first_of_type(findings, ObjectTypes)
    if types is None or types.runtime != "cpython":
        return False
    grown = sum(one.growth_bytes for one in types.types)
    unseen = sum(one.growth_bytes for one in types.types if one.name in UNTRACKED)
    return unseen > MOST_OF_IT * grown


def trace_reasons(findings: Sequence[Finding], status: Status) -> Iterator[Sentence]:
    """The sentences that belong to an answer with this status, the weightiest first."""
    found = first_of_type(findings, Suspects)
    if found is None or found.aside or status not in ("leak", "undecided"):
        return
    yield found.claim
    yield from found.evidence_for[:1]
    for other in found.suspects[1 : 1 + MOST_NAMED]:
        if (other.share or 0.0) >= WORTH_A_WORD_SHARE:
            what, names = named(other.frame)
            yield say("{share} was allocated in " + what, share=Share(other.share or 0.0), **names)
    growth, kept = found.growth_per_second, found.kept_per_second
    if growth and kept > MUST_GO * growth:
        yield say(
            "such blocks come in at {kept} an hour and the heap grows by {growth}: most of them "
            "must be freed at some age beyond {age}, as a cache's are",
            kept=Size(kept * 3600),
            growth=Size(growth * 3600),
            age=Span(found.followed_seconds),
        )
    if found.passing and not found.suspects:
        what, names = named(found.passing[0].frame)
        yield say(
            "most of what outlived the windows was allocated in " + what + " and was freed later: "
            "it is kept for a while, as in a cache, and is not what grows",
            **names,
        )
