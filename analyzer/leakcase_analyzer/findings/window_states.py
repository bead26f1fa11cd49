"""In which windows of tracing the process worked, and in which it rested."""

from __future__ import annotations

from collections.abc import Sequence

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.fates import Batch
from leakcase_analyzer.findings.tracks import ANONYMOUS, growth_of
from leakcase_analyzer.sentences import Count, Sentence, say
from leakcase_analyzer.series.activity import Segments, State, segments
from leakcase_analyzer.series.trigger import When
from leakcase_analyzer.trace_looks import Watched

#: Windows of each state, and blocks that would be expected in the rarer one, to compare at all.
LEAST_WINDOWS, LEAST_EXPECTED = 2, 5.0
#: How many times as much must stay in one state as in the other; and how alike "constant" is.
CONTRAST, ALIKE = 5.0, 3.0
#: Between CPU per second of a window that works and one that rests.
CPU_CONTRAST = 4.0


def window_states(evidence: Evidence, windows: Sequence[Watched]) -> tuple[State | None, ...]:
    """The state of each window: as marked, or by the process's CPU time; None: not known."""
    judged = growth_of(evidence, ANONYMOUS)
    marks = [(seconds, str(mark.label)) for seconds, mark in evidence.marks]
    found = None
    if judged is not None:
        found = segments(judged[0].seconds, judged[0].cpu_seconds, marks)
    if found is not None:
        return tuple(_state_at(found, one.seconds + one.duration_seconds / 2) for one in windows)
    return _by_own_cpu(windows)


def _state_at(found: Segments, seconds: float) -> State | None:
    return next(
        (e.state for e in found.episodes if e.start_seconds <= seconds <= e.end_seconds), None
    )


def _by_own_cpu(windows: Sequence[Watched]) -> tuple[State | None, ...]:
    """Two clearly different levels of CPU per second, cut where the gap between them is widest."""
    loads = [
        None
        if one.total.target_cpu_ns is None or not one.total.duration_ns
        else one.total.target_cpu_ns / one.total.duration_ns
        for one in windows
    ]
    known = sorted(load for load in loads if load is not None)
    cut = max(
        range(LEAST_WINDOWS, len(known) - LEAST_WINDOWS + 1),
        key=lambda i: known[i] - known[i - 1],
        default=None,
    )
    if cut is None or known[cut] < CPU_CONTRAST * known[cut - 1] or known[cut] <= 0:
        return (None,) * len(windows)
    return tuple(
        None if load is None else "active" if load >= known[cut] else "idle" for load in loads
    )


def when(
    batches: Sequence[Batch], windows: Sequence[Watched], states: Sequence[State | None]
) -> tuple[When, Sentence | None]:
    """When the blocks that stay are allocated, and that in words."""
    batches = [batch for batch in batches if batch.counts]
    blocks = {"active": 0.0, "idle": 0.0}
    for batch in batches:
        state = states[batch.window]
        if state is not None:
            blocks[state] += batch.alive
    seconds = {"active": 0.0, "idle": 0.0}
    counts = {"active": 0, "idle": 0}
    kinds = {windows[batch.window].total.watched for batch in batches}
    sizes = {batch.coverage.sizes for batch in batches}
    for window, state in zip(windows, states, strict=True):
        is_one = window.total.watched in kinds and any(map(window.watched_all, sizes))
        if state is not None and is_one:
            seconds[state] += window.duration_seconds
            counts[state] += 1
    if min(counts.values()) < LEAST_WINDOWS or min(seconds.values()) <= 0:
        return "unknown", None
    rarer = min(seconds.values()) / sum(seconds.values())
    if sum(blocks.values()) * rarer < LEAST_EXPECTED:
        return "unknown", None
    rates = {state: blocks[state] / seconds[state] for state in blocks}
    more, less = max(rates.values()), min(rates.values())
    said = say(
        "{active} stayed of {working} while it worked, {idle} of {resting} while it rested",
        active=Count(blocks["active"], "block"),
        working=Count(counts["active"], "window"),
        idle=Count(blocks["idle"], "block"),
        resting=Count(counts["idle"], "window"),
    )
    if more >= CONTRAST * less:
        return ("active" if rates["active"] == more else "idle"), said
    return ("constant", said) if more <= ALIKE * less else ("unknown", None)
