"""Series of known truth for `accuracy.py`: a shape that is known, noise that was measured.

Each kind is a function of (random generator, times) that gives the true level in bytes; noise is
a piece of a recorded level process. Amounts are drawn so that a kind
covers small and large processes, slow and fast growth.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Rng: TypeAlias = np.random.Generator
Truth: TypeAlias = Literal["leak", "innocent", "twin"]

KB = 1024.0
PAGE_BYTES = 4096.0
RECORDINGS = Path(__file__).parents[1] / "tests/analyzer/series/recordings"
# Recordings that are level from this time on: their wiggling is noise and nothing else.
NOISE_FROM = {
    "churn-malloc": 30, "churn-large": 60, "churn-objects": 60, "churn-cycles": 30,
    "database": 120, "nginx": 30, "redis-rewrites": 120, "short-threads": 60, "idle": 5,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A level in bytes over time; `rate` is the true rate of what never comes back, per second."""

    y: Floats
    rate: float = 0.0
    cpu: Floats | None = None


@dataclass(frozen=True)
class Case:
    """One series with its truth."""

    kind: str
    truth: Truth
    rate: float
    t: Floats
    y: Floats
    cpu: Floats | None


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _leak_rate(rng: Rng) -> float:
    return _log_uniform(rng, 4 * KB, 256 * KB)


def _events(rng: Rng, t: Floats, gap: float, sizes: Callable[[int], Floats]) -> Floats:
    """The sum of events that come at random, on average every `gap` seconds."""
    count = rng.poisson((t[-1] - t[0]) / gap)
    at = np.sort(rng.uniform(t[0], t[-1], count))
    total = np.concatenate(([0.0], np.cumsum(sizes(count))))
    return total[np.searchsorted(at, t, side="right")]


def _flushed(rng: Rng, t: Floats, height: float, period: float) -> Floats:
    """A buffer that fills and is emptied."""
    phase = rng.uniform(0, 1)
    return height * ((t / period + phase) % 1.0)


# Leaks.


def steady_leak(rng: Rng, t: Floats) -> Shape:
    rate = _leak_rate(rng)
    return Shape(rate * t, rate)


def stepwise_leak(rng: Rng, t: Floats) -> Shape:
    """The same amount at equal intervals."""
    rate, gap = _leak_rate(rng), rng.uniform(2, 10)
    return Shape(rate * gap * np.floor(t / gap + rng.uniform()), rate)


def request_leak(rng: Rng, t: Floats) -> Shape:
    """Each request leaks; requests come at random and differ in size."""
    rate, gap = _leak_rate(rng), rng.uniform(0.3, 3)
    y = _events(rng, t, gap, lambda n: rng.lognormal(-0.125, 0.5, n) * rate * gap)
    return Shape(y, rate)


def active_leak(rng: Rng, t: Floats) -> Shape:
    """Leaks while it works; works and rests in turns."""
    rate = 2 * _leak_rate(rng)
    edges = np.cumsum(rng.uniform(8, 20, size=int(t[-1] / 8) + 4)) - rng.uniform(0, 20)
    active = np.searchsorted(edges, t, side="right") % 2 == 0
    spent = np.concatenate(([0.0], np.cumsum(active[:-1] * np.diff(t))))
    return Shape(rate * spent, rate / 2, 0.3 * spent + 0.002 * t)


def sawtooth_leak(rng: Rng, t: Floats) -> Shape:
    rate = _leak_rate(rng)
    height = _log_uniform(rng, 500 * KB, 20_000 * KB)
    return Shape(rate * t + _flushed(rng, t, height, rng.uniform(3, t[-1] / 6)), rate)


def leak_after_warm_up(rng: Rng, t: Floats) -> Shape:
    rate = _leak_rate(rng)
    warm = _log_uniform(rng, 300 * KB, 8000 * KB) * (
        1 - np.exp(-t / (t[-1] * rng.uniform(0.01, 0.08)))
    )
    return Shape(rate * t + warm, rate)


def leak_under_spikes(rng: Rng, t: Floats) -> Shape:
    rate = _leak_rate(rng)
    return Shape(rate * t + spikes(rng, t).y, rate)


# Innocents.


def level(rng: Rng, t: Floats) -> Shape:
    return Shape(np.zeros_like(t))


def filled_cache(rng: Rng, t: Floats) -> Shape:
    """A linear fill that reaches its bound at 15 to 70 % of the window."""
    bound = _log_uniform(rng, 300 * KB, 30_000 * KB)
    return Shape(bound * np.minimum(t / (t[-1] * rng.uniform(0.15, 0.7)), 1.0))


def slowing_cache(rng: Rng, t: Floats) -> Shape:
    """Hits slow the fill down; it is over by the window's end."""
    bound = _log_uniform(rng, 300 * KB, 30_000 * KB)
    return Shape(
        bound * np.minimum((t / (t[-1] * rng.uniform(0.3, 0.9))) ** rng.uniform(0.4, 0.7), 1)
    )


def warm_up(rng: Rng, t: Floats) -> Shape:
    bound = _log_uniform(rng, 300 * KB, 30_000 * KB)
    return Shape(bound * (1 - np.exp(-t / (t[-1] * rng.uniform(0.03, 0.3)))))


def stepped_warm_up(rng: Rng, t: Floats) -> Shape:
    """Modules and pools load, ever more rarely."""
    bound, tau = _log_uniform(rng, 300 * KB, 30_000 * KB), t[-1] * rng.uniform(0.05, 0.25)
    at = rng.exponential(tau, size=rng.integers(5, 40))
    sizes = rng.lognormal(0, 1, at.size)
    y = (sizes[None, :] * (t[:, None] >= at[None, :])).sum(axis=1)
    return Shape(bound * y / sizes.sum())


def sawtooth(rng: Rng, t: Floats) -> Shape:
    height = _log_uniform(rng, 500 * KB, 20_000 * KB)
    return Shape(_flushed(rng, t, height, rng.uniform(3, t[-1] / 4)))


def spikes(rng: Rng, t: Floats) -> Shape:
    y = np.zeros_like(t)
    for _ in range(rng.integers(1, 5)):
        start = rng.uniform(0, t[-1])
        y += _log_uniform(rng, 500 * KB, 30_000 * KB) * (
            (t >= start) & (t < start + t[-1] * rng.uniform(0.01, 0.08))
        )
    return Shape(y)


def kept_spike(rng: Rng, t: Floats) -> Shape:
    """A burst of work; the allocator keeps a part of what it took."""
    height, start = _log_uniform(rng, 500 * KB, 30_000 * KB), t[-1] * rng.uniform(0.1, 0.6)
    kept = rng.uniform(0.2, 0.9)
    ramp = np.clip((t - start) / (t[-1] * 0.05), 0, 1)
    over = t > start + t[-1] * 0.1
    return Shape(height * np.where(over, kept, ramp))


def ring(rng: Rng, t: Floats) -> Shape:
    """Fills early, then holds its last N entries of varying size."""
    bound, full = _log_uniform(rng, 1000 * KB, 10_000 * KB), t[-1] * rng.uniform(0.02, 0.4)
    sway = np.cumsum(rng.normal(0, 1, t.size))
    sway -= np.linspace(sway[0], sway[-1], t.size)
    return Shape(bound * np.minimum(t / full, 1.0) * (1 + 0.002 * sway))


def doublings(rng: Rng, t: Floats) -> Shape:
    """A table that doubles whenever it is full: events at log-spaced times."""
    first, size = t[-1] * rng.uniform(0.01, 0.1), _log_uniform(rng, 30 * KB, 1000 * KB)
    times = first * 2.0 ** np.arange(12)
    full = np.searchsorted(times, t, side="right").astype(np.float64)
    return Shape(np.asarray(size * 2.0**full, dtype=np.float64))


def expiring_cache(rng: Rng, t: Floats) -> Shape:
    """Entries die of age; the load swings slowly about its mean."""
    mean, tau = _log_uniform(rng, 500 * KB, 10_000 * KB), t[-1] * rng.uniform(0.05, 0.4)
    step = np.median(np.diff(t))
    x, y = rng.normal(), np.empty(t.size)
    for i in range(t.size):
        x += -x * step / tau + rng.normal() * np.sqrt(2 * step / tau)
        y[i] = x
    return Shape(mean * np.maximum(1 + 0.25 * y, 0.0))


# Twins: no rule can tell these from leaks by this window alone.


def linear_fill(rng: Rng, t: Floats) -> Shape:
    """A cache far from its bound."""
    return Shape(_leak_rate(rng) * t)


def slow_warm_up(rng: Rng, t: Floats) -> Shape:
    """Saturates long after the window."""
    bound = _log_uniform(rng, 1000 * KB, 30_000 * KB)
    return Shape(bound * (1 - np.exp(-t / (t[-1] * rng.uniform(0.6, 2)))))


LEAKS = (
    steady_leak, stepwise_leak, request_leak, active_leak, sawtooth_leak, leak_after_warm_up,
    leak_under_spikes,
)  # fmt: skip
INNOCENTS = (
    level, filled_cache, slowing_cache, warm_up, stepped_warm_up, sawtooth, spikes, kept_spike,
    ring, doublings, expiring_cache,
)  # fmt: skip
TWINS = (linear_fill, slow_warm_up)


@dataclass(frozen=True)
class Recording:
    """One recorded process, once a second."""

    kind: str
    seed: int
    t: Floats
    anon_bytes: Floats
    threads: Floats
    descriptors: Floats
    cpu: Floats
    in_use_bytes: Floats
    free_bytes: Floats


def recordings(folder: Path = RECORDINGS) -> list[Recording]:
    """All recordings of a folder, by name."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        with path.open() as lines:
            rows = list(csv.DictReader(lines))
        column = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
        kind, seed = path.stem.rsplit("-", 1)
        found.append(
            Recording(
                kind, int(seed), column["t_ms"] / 1e3, column["anon_kb"] * KB,
                column["threads"], column["descriptors"], column["cpu_us"] / 1e6,
                column["in_use_kb"] * KB, column["free_kb"] * KB,
            )
        )  # fmt: skip
    return found


def noise_pieces(recorded: list[Recording]) -> list[Floats]:
    """What level processes do after their warm-up, less the level; slow drifts stay in."""
    return [
        one.anon_bytes[NOISE_FROM[one.kind] :] - np.median(one.anon_bytes[NOISE_FROM[one.kind] :])
        for one in recorded
        if one.kind in NOISE_FROM
    ]


def _noise(rng: Rng, pieces: list[Floats], length: int) -> Floats:
    """A piece from a random place on, there and back again until it is long enough."""
    piece = pieces[rng.integers(len(pieces))]
    there_and_back = np.concatenate((piece, piece[::-1]))
    start = int(rng.integers(there_and_back.size))
    repeats = -(-(start + length) // there_and_back.size)
    return np.tile(there_and_back, repeats)[start : start + length] * rng.uniform(0.5, 1.5)


def corpus(seed: int, seconds: float, each: int, pieces: list[Floats]) -> Iterator[Case]:
    """`each` series of every kind, sampled once a second with the jitter of a busy machine."""
    kinds_by_truth: dict[Truth, tuple[Callable[[Rng, Floats], Shape], ...]] = {
        "leak": LEAKS,
        "innocent": INNOCENTS,
        "twin": TWINS,
    }
    for truth, kinds in kinds_by_truth.items():
        for kind in kinds:
            for turn in range(each):
                rng = np.random.default_rng((seed, zlib.crc32(kind.__name__.encode()), turn))
                beats = np.arange(int(seconds) + 1, dtype=np.float64)
                t = beats + np.abs(rng.normal(0, 0.02, beats.size))
                shape = kind(rng, t - t[0])
                y = _log_uniform(rng, 3e6, 3e8) + shape.y + _noise(rng, pieces, t.size)
                y = np.round(y / PAGE_BYTES) * PAGE_BYTES
                yield Case(kind.__name__, truth, shape.rate, t, y, shape.cpu)
