"""What the looks into the heap say for an answer about anonymous memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leakcase_analyzer.findings.allocator_words import AllocatorTold
from leakcase_analyzer.findings.base import (
    CppClasses,
    Finding,
    HeapState,
    ObjectTypes,
    SizeClasses,
    SizeGrowth,
)
from leakcase_analyzer.findings.cpp_classes import is_telling
from leakcase_analyzer.findings.managed_heap import ManagedState
from leakcase_analyzer.findings.retention import LEAST_GROWTH_BYTES, growth_in_words
from leakcase_analyzer.kinds import HARDLY_ANY, first_of_type
from leakcase_analyzer.own_types import own_type
from leakcase_analyzer.sentences import Count, Name, Sentence
from leakcase_analyzer.series.growth import Status

#: A type of which fewer were added is not told in the first line.
WORTH_COUNTING = 100
#: From this share of what the process holds on, memory that is kept free is told in any case.
TELLING_SHARE = 0.25


def heap_reasons(findings: Sequence[Finding], status: Status) -> Iterator[Sentence]:
    """The sentences that belong to an answer with this status, the weightiest first."""
    state = first_of_type(findings, HeapState)
    rises = status in ("leak", "undecided")
    managed = first_of_type(findings, ManagedState)
    of_runtime = managed is not None and managed.change is not None and managed.change.is_most
    if state is not None:
        change = None if of_runtime else state.change
        if status == "retention" or state.kept_share >= TELLING_SHARE:
            yield state.claim
            yield from state.evidence_for
        if change is not None and status != "stable" and change.held_bytes >= LEAST_GROWTH_BYTES:
            yield growth_in_words(change)
    told = first_of_type(findings, AllocatorTold)
    if told is not None and (status == "retention" or (rises and not of_runtime)):
        if state is None or told.agrees is not None or told.in_use_bytes is None:
            yield told.claim  # Else the heap's state is by these words.
        yield from told.evidence_for
    if managed is not None and rises:
        yield managed.claim
        yield from managed.evidence_for
    types = first_of_type(findings, ObjectTypes)
    if types is not None and rises:
        yield types.claim
        yield from types.evidence_for
    objects = first_of_type(findings, CppClasses)
    if objects is not None and rises and is_telling(objects.classes[0]):
        yield objects.claim
        yield from objects.evidence_for
    classes = first_of_type(findings, SizeClasses)
    if classes is not None and rises and growing_sizes(findings):
        yield classes.claim
        yield from classes.evidence_for


def with_type(said: Sentence, findings: Sequence[Finding]) -> Sentence:
    """The answer, with the program's own type of which there are more."""
    types = first_of_type(findings, ObjectTypes)
    own = None if types is None else own_type(types)
    if own is None or own.count < WORTH_COUNTING:
        return said
    text = said.template.removesuffix(".") + "; {added} of {type_name} are there."
    added = ("added", Count(own.count, "more object"))
    return Sentence(text, (*said.quantities, added, ("type_name", Name(own.name))))


def growing_sizes(findings: Sequence[Finding]) -> tuple[SizeGrowth, ...]:
    """The classes of size that grow, where they are part of what memory grows by."""
    classes, state = first_of_type(findings, SizeClasses), first_of_type(findings, HeapState)
    if classes is None or state is None or state.change is None:
        return ()
    all_of_them = classes.parts[0].growth_bytes / classes.parts[0].share
    held = state.change.held_bytes
    return classes.parts if 0 < HARDLY_ANY * held <= all_of_them else ()
