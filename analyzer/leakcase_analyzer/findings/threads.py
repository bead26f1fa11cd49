"""The number of threads."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, Observation
from leakcase_analyzer.findings.tracks import THREADS
from leakcase_analyzer.findings.trends import Knowledge, ruled_out, trend
from leakcase_analyzer.sentences import Count, CountRate, Name, Sentence, say

#: Threads started per second beyond which it matters, leak or not.
BUSY_PER_SECOND = 1.0


def threads(evidence: Evidence) -> Iterator[Finding]:
    """A thread that never ends keeps its stack, its arena and what it refers to."""
    found = trend(evidence, THREADS)
    if found is None:
        return
    if found.rises:
        found = trend(evidence, THREADS, Knowledge(evidence_for=grown_names(evidence)))
    if found is not None:
        yield found
        excluded = ruled_out("a thread leak", found)
        if excluded is not None:
            yield excluded
    yield from _turnover(evidence)


def grown_names(evidence: Evidence) -> tuple[Sentence, ...]:
    """The name under which most threads were added."""
    groups = evidence.thread_groups
    before: dict[str, int] = {}
    for group in groups.first:
        before[group.name] = before.get(group.name, 0) + group.count
    after: dict[str, int] = {}
    for group in groups.last:
        after[group.name] = after.get(group.name, 0) + group.count
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    if not grown or max(grown.values()) <= 0:
        return ()
    name = max(grown, key=lambda n: grown[n])
    return (
        say(
            "most of them are named {name}: {before} at first, {after} at last",
            name=Name(name),
            before=Count(before.get(name, 0), ""),
            after=Count(after[name], ""),
        ),
    )


def _turnover(evidence: Evidence) -> Iterator[Finding]:
    columns = evidence.columns("threads")
    created = None if columns is None else columns.growth("created")
    if columns is None or created is None:
        return
    seconds = float(columns.seconds[-1] - columns.seconds[0])
    if seconds > 0 and created / seconds >= BUSY_PER_SECOND:
        yield Observation(
            topic="thread-turnover",
            claim=say(
                "{count} were started during the capture ({rate})",
                count=Count(created, "thread"),
                rate=CountRate(created / seconds, "thread"),
            ),
        )
