"""Hand-built series, one sample a second: the least that makes a step of the rule fire."""

from __future__ import annotations

import numpy as np

from leakcase_analyzer.series.samples import Floats

KB = 1024.0
MB = 1024.0 * KB
BASE = 50 * MB


def seconds(count: int) -> Floats:
    """`count` samples, one a second from 0."""
    return np.arange(float(count))


def steady(t: Floats, rate: float = 20 * KB) -> Floats:
    """A leak of `rate` bytes per second."""
    return BASE + rate * t


def stairs(t: Floats, height: float, every: float) -> Floats:
    """A leak in equal steps."""
    return BASE + height * np.floor(t / every)


def filled(t: Floats, full_at: float, bound: float = 4 * MB) -> Floats:
    """A cache that fills evenly and is then full."""
    return BASE + bound * np.minimum(t / full_at, 1.0)


def warm_up(t: Floats, tau: float, bound: float = 4 * MB) -> Floats:
    """An exponential approach to a bound."""
    return BASE + bound * (1 - np.exp(-t / tau))


def sawtooth(t: Floats, period: float, height: float = 8 * MB) -> Floats:
    """A buffer that fills and is emptied."""
    return BASE + height * ((t % period) / period)


def noise(count: int, sd: float = 20 * KB, seed: int = 1) -> Floats:
    """What comes and goes."""
    return np.random.default_rng(seed).normal(0, sd, count)
