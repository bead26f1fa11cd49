"""The least rate that a window would have shown is one that it does show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from leakcase_analyzer.series.growth import judge
from leakcase_analyzer.series.samples import Floats
from tests.analyzer.series.shapes import BASE, KB, MB, noise, sawtooth, seconds

RNG = np.random.default_rng(17)


def white(count: int) -> Floats:
    return RNG.normal(0, 60 * KB, count)


def wandering(count: int) -> Floats:
    return np.cumsum(RNG.normal(0, 4 * KB, count))


def buffered(count: int) -> Floats:
    phase = RNG.uniform(0, 7)
    return 2 * MB * (((np.arange(count) + phase) % 7) / 7) + RNG.normal(0, 20 * KB, count)


@pytest.mark.parametrize("kind", [white, wandering, buffered])
@pytest.mark.parametrize("count", [60, 120])
def test_a_leak_of_the_rate_named_is_called_nine_times_in_ten(
    kind: Callable[[int], Floats], count: int
) -> None:
    t = seconds(count)
    called, called_far_below = [], []
    for _ in range(40):
        rate = judge(t, BASE + kind(count)).least_detectable_rate_per_second
        assert rate is not None
        called.append(judge(t, BASE + kind(count) + rate * t).status == "leak")
        called_far_below.append(judge(t, BASE + kind(count) + rate / 10 * t).status == "leak")
    # 90 % are promised; of 40, 30 or fewer would be three standard errors below that.
    assert sum(called) >= 31
    assert sum(called_far_below) <= 13


def test_a_silent_process_shows_what_amounts_to_the_growth_that_is_called() -> None:
    t = seconds(120)
    rate = judge(t, 0 * t + BASE).least_detectable_rate_per_second
    # 256 KB over eleven twelfths of 120 s, on a grid of ten per cent.
    assert rate == pytest.approx(256 * KB / 110, rel=0.12)


def test_a_longer_window_shows_slower_leaks_and_noise_hides_them() -> None:
    def least(count: int, sd: float) -> float:
        t = seconds(count)
        rate = judge(t, BASE + noise(count, sd)).least_detectable_rate_per_second
        assert rate is not None
        return rate

    assert least(600, 40 * KB) < least(120, 40 * KB) < least(120, 400 * KB)


def test_counts_have_their_own_least_rate() -> None:
    t = seconds(120)
    rate = judge(t, 0 * t + 30, unit="count").least_detectable_rate_per_second
    # Most blocks must gain a whole unit or so; a descriptor every few seconds.
    assert rate is not None and 0.03 < rate < 0.5


def test_swings_of_a_buffer_raise_the_least_rate() -> None:
    t = seconds(120)
    calm = judge(t, BASE + noise(120, 20 * KB)).least_detectable_rate_per_second
    swinging = judge(t, sawtooth(t, 17.3, 20 * MB)).least_detectable_rate_per_second
    assert calm is not None and swinging is not None
    assert swinging > 3 * calm
