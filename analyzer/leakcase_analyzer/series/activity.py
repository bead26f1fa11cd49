"""When did the process work and when did it rest?

Two states are read from CPU time where they can be told apart, or taken from the marks that a
person set while capturing. Marks win: who loads a service knows better than its CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leakcase_analyzer.series.samples import Floats, clean

State: TypeAlias = Literal["active", "idle"]

TICKS_PER_SECOND = 100.0
SMOOTHED_SAMPLES = 5
SHORTEST_RUN_SECONDS = 5.0
# Cutting any one hump in two gives a D of 2.5 (normal) to 3.5 (even): two states show more.
LEAST_SEPARATION = 3.6
# Two levels that differ by less are one level and its jitter, however sharp their clusters.
LEAST_CONTRAST = 1.5
LEAST_TICKS = 0.3
LEAST_SHARE = 0.1
LEAST_EPISODES = 3
LEAST_EPISODE_SECONDS = 10.0


@dataclass(frozen=True)
class Episode:
    """A stretch of one state."""

    state: State
    start_seconds: float
    end_seconds: float

    @property
    def seconds(self) -> float:
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True)
class Segments:
    """Episodes in order; stretches of no known state are left out."""

    episodes: tuple[Episode, ...]
    source: Literal["marks", "cpu"]
    separation: float | None
    """Ashman's D of the two CPU levels; None for marks."""

    def seconds(self, state: State) -> float:
        """Time spent in a state."""
        return math.fsum(e.seconds for e in self.episodes if e.state == state)

    def count(self, state: State) -> int:
        """Episodes of a state that are long enough to be judged by themselves."""
        return sum(e.state == state and e.seconds >= LEAST_EPISODE_SECONDS for e in self.episodes)


def segments(
    t_seconds: ArrayLike,
    cpu_seconds: ArrayLike | None,
    marks: Sequence[tuple[float, str]] | None = None,
) -> Segments | None:
    """Cut a window into active and idle episodes; None where there are no two clear states.

    `cpu_seconds` is the running total of the process's CPU time. `marks` are (time, label) on
    the same clock; a label "active" or "idle" holds until the next of these, other labels are
    passed over. Raises SeriesError when the arrays do not fit together.
    """
    cpu = np.zeros(np.size(t_seconds)) if cpu_seconds is None else cpu_seconds
    samples = clean(t_seconds, cpu, cpu_seconds=cpu_seconds)
    if samples.t.size < 2:
        return None
    start, end = float(samples.t[0]), float(samples.t[-1])
    known = [(at, label) for at, label in marks or () if label in ("active", "idle")]
    if known:
        return _from_marks(sorted(known), start, end)
    return None if samples.cpu is None else _from_cpu(samples.t, samples.cpu)


def _from_marks(marks: list[tuple[float, str]], start: float, end: float) -> Segments | None:
    edges = [*(at for at, _ in marks), end]
    episodes: list[Episode] = []
    for (_, label), at, until in zip(marks, edges, edges[1:], strict=False):
        low, high = max(at, start), min(until, end)
        if high <= low:
            continue
        state: State = "active" if label == "active" else "idle"
        if episodes and episodes[-1].state == state and episodes[-1].end_seconds == low:
            low = episodes.pop().start_seconds
        episodes.append(Episode(state, low, high))
    return Segments(tuple(episodes), "marks", None) if episodes else None


def _from_cpu(t: Floats, cpu: Floats) -> Segments | None:
    """Two levels of the smoothed logarithm of CPU use, if they are two."""
    spans = np.diff(t)
    if spans.size < 2 * SMOOTHED_SAMPLES:
        return None
    ticks = np.diff(cpu) / spans * TICKS_PER_SECOND
    # The logarithm first: else one busy second makes five of them look busy.
    use = _smooth(np.log1p(ticks))
    threshold = _otsu(use)
    if threshold is None:
        return None
    active = use > threshold
    separation = _ashman(use[active], use[~active])
    if float(ticks[active].mean()) < LEAST_CONTRAST * float(ticks[~active].mean()) + LEAST_TICKS:
        return None
    active = _without_short_runs(active, spans)
    share = float(spans[active].sum() / spans.sum())
    found = Segments(_episodes(active, t), "cpu", separation)
    enough = min(found.count("active"), found.count("idle")) >= LEAST_EPISODES
    if separation < LEAST_SEPARATION or not LEAST_SHARE <= share <= 1 - LEAST_SHARE or not enough:
        return None
    return found


def _smooth(x: Floats) -> Floats:
    """Mean of five neighbours, of fewer at the ends."""
    window = np.ones(SMOOTHED_SAMPLES)
    counts = np.convolve(np.ones(x.size), window, mode="same")
    return np.convolve(x, window, mode="same") / counts


def _otsu(x: Floats) -> float | None:
    """The cut that leaves the least variance within both classes (Otsu 1979); None if one value."""
    ordered = np.sort(x)
    if ordered[0] == ordered[-1]:
        return None
    below = np.arange(1, x.size)
    sums = np.cumsum(ordered)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (x.size - below)
    between = below * (x.size - below) * (high - low) ** 2
    # Between equal values there is no cut.
    between[ordered[1:] == ordered[:-1]] = -1.0
    best = int(np.argmax(between))
    return float(ordered[best] + ordered[best + 1]) / 2


def _ashman(a: Floats, b: Floats) -> float:
    """Ashman's D, the distance of two levels in their spreads (Ashman, Bird and Zepf 1994)."""
    spread = math.hypot(float(a.std()), float(b.std()))
    distance = math.sqrt(2) * abs(float(a.mean() - b.mean()))
    return distance / spread if spread > 0 else math.inf


def _without_short_runs(active: NDArray[np.bool_], spans: Floats) -> NDArray[np.bool_]:
    """A run under five seconds belongs to the one before it (the first to the one after)."""
    starts = np.flatnonzero(np.concatenate(([True], active[1:] != active[:-1])))
    seconds = np.add.reduceat(spans, starts)
    lengths = np.diff(np.append(starts, active.size))
    long = seconds >= SHORTEST_RUN_SECONDS
    if not long.any():
        return active
    # Index of the last long run up to each run; before the first long one, that one.
    previous = np.maximum.accumulate(np.where(long, np.arange(long.size), -1))
    previous[previous < 0] = int(np.argmax(long))
    return np.repeat(active[starts][previous], lengths)


def _episodes(active: NDArray[np.bool_], t: Floats) -> tuple[Episode, ...]:
    starts = np.flatnonzero(np.concatenate(([True], active[1:] != active[:-1])))
    edges = np.append(starts, active.size)
    return tuple(
        Episode("active" if active[first] else "idle", float(t[first]), float(t[after]))
        for first, after in zip(edges, edges[1:], strict=False)
    )
