"""Does memory grow when the process works, when it rests, or always?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leakcase_analyzer.series.activity import (
    LEAST_EPISODE_SECONDS,
    LEAST_EPISODES,
    Segments,
    State,
)
from leakcase_analyzer.series.samples import Floats, clean

When: TypeAlias = Literal["active", "idle", "constant", "unknown"]

STATES: tuple[State, State] = ("active", "idle")
LEAST_SAMPLES = 24
LEAST_RATIO = 2.0
SIGNIFICANT = 0.05
LEAST_BYTES_PER_SECOND = 1024.0
LEAST_COUNT_PER_SECOND = 1 / 60
# Marks of a person may be few and long; pieces of this length stand for episodes then.
MARKED_PIECE_SECONDS = 30.0


@dataclass(frozen=True)
class Trigger:
    """When the floor grows, with the evidence. Rates are per second, in the series' unit."""

    when: When
    rate_active: float | None
    rate_idle: float | None
    p_shift: float | None
    """Chance of as strong a contrast if the states were laid anywhere else over the series;
    None with fewer than three episodes of each state (marks only)."""
    p_welch: float | None
    """Chance of as large a difference between the episodes' rates (Welch's test)."""
    active_episodes: int
    idle_episodes: int


UNKNOWN = Trigger("unknown", None, None, None, None, 0, 0)


def trigger(
    t_seconds: ArrayLike,
    y: ArrayLike,
    found: Segments | None,
    *,
    unit: Literal["bytes", "count"] = "bytes",
) -> Trigger:
    """Compare the growth of the floor in both states. Raises SeriesError on arrays that differ.

    The floor is the level never again fallen below, less the last twelfth of the window, where
    it is not known yet.
    """
    samples = clean(t_seconds, y)
    size = samples.y.size
    if found is None or size < LEAST_SAMPLES:
        return UNKNOWN
    floor = np.minimum.accumulate(samples.y[::-1])[::-1][: size - max(1, size // 12)]
    t = samples.t[: floor.size]
    least = LEAST_BYTES_PER_SECOND if unit == "bytes" else LEAST_COUNT_PER_SECOND
    whole = _compare(t, floor, found, least)
    if whole.when != "unknown":
        return whole
    # A warm-up in the first episode can drown what the others show.
    part = size // 4
    later = _compare(t[part:], floor[part:], found, least)
    return whole if later.when == "unknown" else later


def _compare(t: Floats, floor: Floats, found: Segments, least: float) -> Trigger:
    spans, steps = np.diff(t), np.diff(floor)
    masks = {state: _mask(t, found, state) for state in STATES}
    time = {state: float(spans[mask].sum()) for state, mask in masks.items()}
    if min(time.values()) <= 0:
        return UNKNOWN
    rate = {state: float(steps[mask].sum()) / time[state] for state, mask in masks.items()}
    pieces = {state: _piece_rates(t, floor, found, state) for state in STATES}
    counts = {state: pieces[state].size for state in STATES}
    more: State = "active" if rate["active"] >= rate["idle"] else "idle"
    less: State = "idle" if more == "active" else "active"
    p_welch = _welch(pieces[more], pieces[less])
    if found.source == "cpu" or min(found.count(state) for state in STATES) >= LEAST_EPISODES:
        p_shift = _shift(steps, spans, masks[more], masks[less])
        credible = min(counts.values()) >= LEAST_EPISODES and p_shift < SIGNIFICANT
    else:
        # Growth that merely slows down is stronger in whichever state came first.
        p_shift, credible = None, _last(masks[more]) > _first(masks[less])
    sure = credible and p_welch is not None and p_welch < SIGNIFICANT
    when = _decide(more, rate[more], rate[less], least, sure)
    return Trigger(
        when, rate["active"], rate["idle"], p_shift, p_welch, counts["active"], counts["idle"]
    )


def _first(mask: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(mask)[0])


def _last(mask: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(mask)[-1])


def _decide(more: State, high: float, low: float, least: float, sure: bool) -> When:
    if high < least:
        return "unknown"
    if high >= LEAST_RATIO * max(low, 0.0):
        return more if sure else "unknown"
    return "constant" if low >= least else "unknown"


def _mask(t: Floats, found: Segments, state: State) -> NDArray[np.bool_]:
    """Which intervals between two samples lie in a state (by their middle)."""
    middles = (t[:-1] + t[1:]) / 2
    mask = np.zeros(middles.size, dtype=np.bool_)
    for episode in found.episodes:
        if episode.state == state:
            first, after = np.searchsorted(middles, (episode.start_seconds, episode.end_seconds))
            mask[first:after] = True
    return mask


def _piece_rates(t: Floats, floor: Floats, found: Segments, state: State) -> Floats:
    """The floor's rate in each episode of ten seconds or more."""
    rates = []
    for episode in found.episodes:
        if episode.state != state:
            continue
        whole = max(1, int(episode.seconds / MARKED_PIECE_SECONDS))
        pieces = whole if found.source == "marks" else 1
        edges = np.linspace(episode.start_seconds, episode.end_seconds, pieces + 1)
        edges = np.clip(edges, t[0], t[-1])
        levels = np.interp(edges, t, floor)
        for span, rise in zip(np.diff(edges), np.diff(levels), strict=True):
            if span >= LEAST_EPISODE_SECONDS:
                rates.append(float(rise / span))
    return np.array(rates)


def _shift(steps: Floats, spans: Floats, high: NDArray[np.bool_], low: NDArray[np.bool_]) -> float:
    """Share of all circular shifts of the states that show at least the contrast seen.

    Keeps both the states' and the growth's own rhythm, which a shuffle would destroy.
    """

    def under_every_shift(values: Floats, mask: NDArray[np.bool_]) -> Floats:
        spectrum = np.fft.rfft(values) * np.conj(np.fft.rfft(mask.astype(np.float64)))
        sums: Floats = np.fft.irfft(spectrum, values.size)
        return sums

    def rates(mask: NDArray[np.bool_]) -> Floats:
        time = under_every_shift(spans, mask)
        per_second: Floats = under_every_shift(steps, mask) / np.maximum(time, spans.min())
        return per_second

    contrast = rates(high) - rates(low)
    tolerance = 1e-9 * float(np.abs(contrast).max())
    return float(np.mean(contrast >= contrast[0] - tolerance))


def _welch(high: Floats, low: Floats) -> float | None:
    """One-sided p of Welch's t-test that `high` is no larger than `low`; None below two each."""
    if high.size < 2 or low.size < 2:
        return None
    a, b = float(high.var(ddof=1)) / high.size, float(low.var(ddof=1)) / low.size
    difference = float(high.mean() - low.mean())
    if a + b <= 0:
        return 0.0 if difference > 0 else 1.0
    freedom = (a + b) ** 2 / (a**2 / (high.size - 1) + b**2 / (low.size - 1))
    # Imported here: it costs more than all else in this package, and few cases need it.
    from scipy.special import stdtr

    return float(stdtr(freedom, -difference / math.sqrt(a + b)))
