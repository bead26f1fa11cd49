"""When it grows: while the process works, while it rests, or always."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Activity, Finding, Trend
from leakcase_analyzer.findings.mapped_extent import capped_trend
from leakcase_analyzer.findings.tracks import (
    ANONYMOUS,
    DESCRIPTORS,
    FILE,
    SHARED,
    THREADS,
)
from leakcase_analyzer.findings.trends import amount_rate
from leakcase_analyzer.sentences import Count, Sentence, say
from leakcase_analyzer.series.activity import Segments, segments
from leakcase_analyzer.series.trigger import Trigger, trigger

WHEN = {
    "active": "it grows while the process works, not while it rests",
    "idle": "it grows while the process rests, not while it works",
    "constant": "it grows whether the process works or rests",
}
SOURCES = {"marks": "as marked", "cpu": "told by its CPU time"}


def activity(evidence: Evidence) -> Iterator[Finding]:
    """One finding for each subject that grows, where two states of activity can be told apart."""
    marks = [(seconds, str(mark.label)) for seconds, mark in evidence.marks]
    for quantity in (ANONYMOUS, SHARED, FILE, THREADS, DESCRIPTORS):
        found = capped_trend(evidence, quantity)
        if found is None or not found.rises:
            continue
        track = found.track
        states = segments(track.seconds, track.cpu_seconds, marks)
        said = trigger(
            track.seconds,
            track.values,
            states,
            unit="bytes" if found.unit == "bytes" else "count",
        )
        if states is not None and said.when != "unknown":
            yield _finding(found, states, said)


def _finding(found: Trend, states: Segments, said: Trigger) -> Activity:
    return Activity(
        claim=say(WHEN[said.when]),
        evidence_for=tuple(_rates(found, states, said)),
        trigger=said.when,
        subject=found.subject,
    )


def _rates(found: Trend, states: Segments, said: Trigger) -> Iterator[Sentence]:
    if said.rate_active is None or said.rate_idle is None:
        return
    yield say(
        "{active} in {working}, {idle} in {resting} (" + SOURCES[states.source] + ")",
        active=amount_rate(found.unit, said.rate_active),
        idle=amount_rate(found.unit, said.rate_idle),
        working=Count(said.active_episodes, "active episode"),
        resting=Count(said.idle_episodes, "idle episode"),
    )
