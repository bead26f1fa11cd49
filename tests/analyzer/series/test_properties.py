"""What must hold for any series."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from leakcase_analyzer.series.activity import segments
from leakcase_analyzer.series.growth import judge
from leakcase_analyzer.series.persistence import Reason, Status
from leakcase_analyzer.series.samples import Floats
from leakcase_analyzer.series.trigger import trigger
from tests.analyzer.series.shapes import (
    BASE,
    KB,
    MB,
    filled,
    noise,
    sawtooth,
    seconds,
    stairs,
    steady,
    warm_up,
)

pytestmark = pytest.mark.filterwarnings("error")
T = seconds(120)
SHAPES: dict[str, Floats] = {
    "steady": steady(T),
    "stairs": stairs(T, 300 * KB, 7.0),
    "filled": filled(T, 50.0),
    "warm-up": warm_up(T, 15.0),
    "slow warm-up": warm_up(T, 100.0),
    "sawtooth": sawtooth(T, 9.0),
    "sawtooth leak": sawtooth(T, 8.0, 2 * MB) + 40 * KB * T,
    "noise": BASE + noise(120),
}
shapes = st.sampled_from(sorted(SHAPES))
few = settings(max_examples=25, deadline=None)


@few
@given(shapes, st.floats(-20 * MB, 10 * MB))
def test_the_level_of_a_process_does_not_change_the_answer(shape: str, shift: float) -> None:
    # Below 64 MB the least growth is 128 KB, whatever the level.
    before, after = judge(T, SHAPES[shape]), judge(T, SHAPES[shape] + shift)
    assert (before.status, before.reason) == (after.status, after.reason)
    assert after.rate_per_second == pytest.approx(before.rate_per_second, rel=1e-6, abs=1.0)


@few
@given(shapes, st.floats(0.05, 100.0), st.floats(-1e6, 1e6))
def test_a_slower_clock_scales_the_rate_and_keeps_the_answer(
    shape: str, factor: float, start: float
) -> None:
    before, after = judge(T, SHAPES[shape]), judge(start + T * factor, SHAPES[shape])
    assert (before.status, before.reason) == (after.status, after.reason)
    assert after.rate_per_second is not None and before.rate_per_second is not None
    assert after.rate_per_second * factor == pytest.approx(before.rate_per_second, rel=1e-4, abs=1)


@few
@given(st.integers(0, 2**32 - 1), st.floats(1 * KB, 4 * MB))
def test_shuffled_noise_is_never_a_leak_beyond_its_own_size(seed: int, sd: float) -> None:
    growth = judge(T, BASE + noise(120, sd, seed))
    if growth.status == "leak":
        assert growth.total_growth is not None and growth.total_growth < 3 * sd


def test_stationary_noise_is_hardly_ever_a_leak() -> None:
    rng = np.random.default_rng(11)
    called = sum(
        judge(T, BASE + rng.normal(0, sd, 120)).status == "leak"
        for sd in np.geomspace(1 * KB, 4 * MB, 200)
    )
    assert called <= 5


@few
@given(
    arrays(np.float64, st.integers(0, 90), elements=st.floats(allow_nan=True, width=64)),
    st.data(),
)
def test_any_numbers_at_all_get_an_answer_from_the_closed_set(
    y: Floats, data: st.DataObject
) -> None:
    t = data.draw(arrays(np.float64, y.size, elements=st.floats(allow_nan=True)))
    order = data.draw(st.booleans())
    books = data.draw(arrays(np.float64, y.size, elements=st.floats(allow_nan=True)))
    times = np.sort(t) if order else t
    growth = judge(
        times, y, cpu_seconds=books, in_use_bytes=books, free_bytes=y,
        unit=data.draw(st.sampled_from(["bytes", "count"])),
        managed_runtime=data.draw(st.booleans()),
    )  # fmt: skip
    assert growth.status in get_args(Status)
    assert growth.reason in get_args(Reason)
    assert 0.0 <= growth.confidence <= 1.0
    assert (growth.watch_longer_seconds is None) == (growth.status != "undecided")
    trigger(times, y, segments(times, books))


@few
@given(
    arrays(np.float64, 60, elements=st.floats(-1e15, 1e15)),
    arrays(np.float64, 60, elements=st.floats(0.05, 1e5)),
)
def test_wild_but_possible_series_get_finite_figures(y: Floats, steps: Floats) -> None:
    growth = judge(np.cumsum(steps), y)
    assert growth.rate_low is not None and growth.rate_per_second is not None
    assert growth.rate_high is not None
    assert growth.rate_low <= growth.rate_per_second <= growth.rate_high
    assert np.isfinite([growth.rate_low, growth.rate_high]).all()
