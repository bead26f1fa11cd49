"""The floor of a series, block by block: what is still held when everything freeable was freed.

Garbage, buffers and pages that come and go lift a process's memory above its floor, never its
floor. The series is cut into K blocks; each one's minimum stands for the floor at the block's
start (a growing floor is lowest there), and the K - 1 increments between them are what is judged:
how large, how even, how far into the window, and in how many events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from leakcase_analyzer.series.samples import Floats

# Student's t, 97.5 % quantile for 1, 2, ... degrees of freedom (K - 2 of them, K <= 12).
# Importing scipy.special for these costs more than all judging does; a test compares them.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


# Each block of a sawtooth must hold a whole period of it, or its minimum is no floor.
PERIODS_PER_BLOCK = 1.3


@dataclass(frozen=True)
class Scale:
    """What is noise and what is growth, in the unit of the series."""

    grain: float
    """The least change that can be seen: a page, one thread."""
    least_growth: float
    """Growth below this is never called a leak (G_min)."""
    least_growth_share: float
    """The same as a share of the median level."""
    least_drop: float
    """A fall below this is no emptied buffer."""


BYTES = Scale(grain=4096.0, least_growth=131072.0, least_growth_share=0.002, least_drop=204800.0)
COUNT = Scale(grain=1.0, least_growth=4.0, least_growth_share=0.002, least_drop=2.0)


@dataclass(frozen=True)
class Floor:
    """The floor's growth and its shape. Increments are per block of mean length."""

    blocks: int
    increments: tuple[float, ...]
    growth: float
    rate: float
    rate_low: float
    rate_high: float
    end_error: float
    """What noise at both ends adds to the interval, per second."""
    least_growth: float
    last_third_ratio: float | None
    """Mean of the last third of the increments over the mean of all (q3); None if no growth."""
    last_third_z: float
    """How many standard errors the last third lies above the mean of all."""
    positive_share: float
    """Share of increments above the grain."""
    top_share: float | None
    """The largest increment's share of the growth; None if no growth."""
    effective_events: float
    """(sum of steps)^2 / sum of squared steps: how many equal events the growth amounts to."""
    quiet_chance: float
    """How likely so quiet an end would be, were the events spread evenly over the window (and
    over its CPU time, where that is known)."""
    big_drops: int
    block_seconds: float


def measure(t: Floats, y: Floats, scale: Scale, cpu: Floats | None = None) -> Floor:
    """The floor of a series of at least 8 samples, strictly ordered in time.

    Cost is linear in the number of samples.
    """
    drops = _big_drops(y, scale)
    blocks = _block_count(y.size, drops)
    edges = np.linspace(0, y.size, blocks + 1).round().astype(np.intp)[:-1]
    minima = np.minimum.reduceat(y, edges)
    spans = np.diff(t[edges])
    seconds = float(spans.sum())
    block_seconds = seconds / (blocks - 1)
    growth = float(minima[-1] - minima[0])
    # Per time, so that a pause of the collector is a long block and not a burst.
    g = np.diff(minima) / spans * block_seconds
    rate = growth / seconds
    end_error = 2 * max(scale.grain, _noise(y)) / float(t[-1] - t[0])
    error = math.hypot(float(spread_error(g, block_seconds)), end_error)
    q3, z = last_third(g)
    events, quiet_chance = _events(t, y, cpu)
    total = float(g.sum())
    return Floor(
        blocks=blocks,
        increments=tuple(float(x) for x in g),
        growth=growth,
        rate=rate,
        rate_low=rate - error,
        rate_high=rate + error,
        end_error=end_error,
        least_growth=max(
            scale.least_growth, scale.least_growth_share * float(np.median(y)), _phase(y, drops)
        ),
        last_third_ratio=float(q3) if total > 0 else None,
        last_third_z=float(z),
        positive_share=float(np.mean(g > scale.grain)),
        top_share=float(g.max()) / total if total > 0 else None,
        effective_events=events,
        quiet_chance=quiet_chance,
        big_drops=int(drops.size),
        block_seconds=block_seconds,
    )


def _big_drops(y: Floats, scale: Scale) -> Floats:
    """Positions of the falls that are no noise: a buffer was emptied, a collector ran."""
    low, high = np.percentile(y, (2, 98))
    least = max(0.3 * float(high - low), scale.least_drop)
    return np.flatnonzero(np.diff(y) < -least).astype(np.float64)


def _phase(y: Floats, drops: Floats) -> float:
    """How far two floors of a sawtooth may differ only because the looks fell otherwise.

    A tooth is first seen anywhere up to one sample's rise above its foot, so its foot is known to
    that uniform error; of the difference of two such minima three quarters of a rise are passed
    in about one case of twenty.
    """
    if drops.size < 3:
        return 0.0
    rises = np.diff(y)
    rises = rises[rises > 0]
    return 0.75 * float(np.median(rises)) if rises.size else 0.0


def _block_count(samples: int, drops: Floats) -> int:
    """As many blocks as there are, each long enough to hold one whole period of a sawtooth."""
    most = 8 if samples < 100 else 12
    if drops.size >= 3:
        period = float(np.diff(drops).max())
        return int(min(max(samples / (PERIODS_PER_BLOCK * period), 4), most))
    return min(most, 6) if drops.size else most


def _noise(y: Floats) -> float:
    """Standard deviation of what comes and goes from one sample to the next, robustly."""
    steps = np.diff(y)
    return 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2)


def _events(t: Floats, y: Floats, cpu: Floats | None) -> tuple[float, float]:
    """(n_eff, p_quiet) of the lower envelope: the level never again fallen below, less the last
    twelfth, where it is not known yet."""
    envelope = np.minimum.accumulate(y[::-1])[::-1][: y.size - max(1, y.size // 12)]
    rise = float(envelope[-1] - envelope[0])
    if rise <= 0:
        return 0.0, 1.0
    reached = int(np.argmax(envelope >= envelope[0] + 0.95 * rise))
    steps = np.diff(envelope[: reached + 1]) / rise
    events = float(steps.sum() ** 2 / np.square(steps).sum())
    end = envelope.size - 1
    share = float((t[reached] - t[0]) / (t[end] - t[0]))
    if cpu is not None and cpu[end] > cpu[0]:
        # A process that stopped working has not shown that its memory is bounded.
        share = max(share, float((cpu[reached] - cpu[0]) / (cpu[end] - cpu[0])))
    return events, share ** (0.95 * events)


# What follows takes one row of increments or many (along the last axis): the least detectable
# rate asks the same of the windows that it makes up.


def spread_error(g: Floats, block_seconds: float) -> Floats:
    """Half of the mean rate's 95 % interval by the increments' spread alone, per second."""
    count = g.shape[-1]
    half: Floats = g.std(axis=-1, ddof=1) * (T_975[count - 2] / math.sqrt(count) / block_seconds)
    return half


def last_third(g: Floats) -> tuple[Floats, Floats]:
    """(q3, z): mean of the last third over that of all (0 if that is 0), and its distance from
    it in standard errors (0 if all are equal)."""
    m = round(g.shape[-1] / 3)
    mean, last = g.mean(axis=-1), g[..., -m:].mean(axis=-1)
    error = g.std(axis=-1, ddof=1) * math.sqrt(1 / m - 1 / g.shape[-1])
    differ = error > 1e-9 * np.abs(mean)
    z = np.where(differ, last - mean, 0.0) / np.where(differ, error, 1.0)
    return np.where(mean != 0, last, 0.0) / np.where(mean != 0, mean, 1.0), z
