"""The measured quantities, against values worked out by hand or by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from leakcase_analyzer.series.floor import (
    BYTES,
    T_975,
    last_third,
    measure,
    spread_error,
)
from tests.analyzer.series.shapes import BASE, KB, MB, sawtooth, seconds, steady

pytestmark = pytest.mark.filterwarnings("error")


def test_the_quantiles_are_students() -> None:
    exact = stdtrit(np.arange(1, 1 + len(T_975)), 0.975)
    assert exact == pytest.approx(T_975, abs=5e-4)


def test_each_blocks_minimum_is_taken_exactly() -> None:
    y = BASE + 100 * MB * np.ones(1200)
    floor_bytes = BASE + 500 * KB * np.arange(12)
    # One low sample per block, at another place in each.
    y[np.arange(12) * 100 + np.arange(12) * 7] = floor_bytes
    y = np.minimum.accumulate(y[::-1])[::-1]
    floor = measure(seconds(1200), y, BYTES)
    assert floor.blocks == 12
    assert floor.increments == pytest.approx([500 * KB] * 11)
    assert floor.growth == pytest.approx(11 * 500 * KB)
    assert floor.rate == pytest.approx(5 * KB)


@pytest.mark.parametrize(("samples", "blocks"), [(24, 8), (99, 8), (100, 12), (5000, 12)])
def test_short_series_are_cut_into_fewer_blocks(samples: int, blocks: int) -> None:
    t = seconds(samples)
    assert measure(t, steady(t), BYTES).blocks == blocks


def test_blocks_of_a_sawtooth_hold_a_whole_period_each() -> None:
    t = seconds(240)
    floor = measure(t, sawtooth(t, 30.0), BYTES)
    assert floor.big_drops == 7
    assert floor.blocks == 6
    assert floor.increments == pytest.approx([0] * 5, abs=0.25 * MB)


def test_one_drop_leaves_six_blocks() -> None:
    t = seconds(240)
    y = steady(t)
    y[100] += 20 * MB
    assert measure(t, y, BYTES).blocks == 6


def test_small_falls_within_a_large_swing_are_no_drops() -> None:
    t = seconds(240)
    jitter = 150 * KB * (t % 2)
    assert measure(t, sawtooth(t, 30.0, 20 * MB) - 8 * jitter, BYTES).big_drops == 7


def test_what_comes_and_goes_widens_the_interval_at_both_ends() -> None:
    t = seconds(120)
    swing = 100 * KB * np.array([0, 1, 0, 3])[(t % 4).astype(int)]
    floor = measure(t, steady(t) + swing, BYTES)
    steps = np.diff(steady(t) + swing)
    deviation = 1.4826 * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2)
    assert deviation > BYTES.grain
    assert floor.end_error == pytest.approx(2 * deviation / 119)
    assert floor.rate_high - floor.rate >= floor.end_error


def test_events_are_counted_by_their_weight() -> None:
    t = seconds(240)
    equal = BASE + MB * sum((t >= at) for at in (30, 60, 90, 120))
    one_large = BASE + MB * sum((t >= at) for at in (30, 60, 90)) + 30 * MB * (t >= 120)
    assert measure(t, equal, BYTES).effective_events == pytest.approx(4.0)
    assert measure(t, one_large, BYTES).effective_events == pytest.approx(33**2 / 903)


def test_quiet_is_the_chance_that_all_events_fell_into_the_first_part() -> None:
    t = seconds(240)
    y = BASE + MB * sum((t >= at) for at in (30, 60, 90, 120))
    # The last twelfth is not known yet: 220 samples, the last at 219 s.
    assert measure(t, y, BYTES).quiet_chance == pytest.approx((120 / 219) ** (0.95 * 4))
    spent = np.minimum(t, 150.0)
    assert measure(t, y, BYTES, spent).quiet_chance == pytest.approx((120 / 150) ** (0.95 * 4))


def test_the_last_third_is_compared_with_all() -> None:
    q3, z = last_third(np.array([1.0, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3]))
    assert q3 == pytest.approx(3 / (19 / 11))
    assert z == pytest.approx((3 - 19 / 11) / (1.00905 * np.sqrt(1 / 4 - 1 / 11)), rel=1e-4)
    assert last_third(np.array([2.0] * 11)) == (1.0, 0.0)


def test_many_rows_give_what_each_row_gives() -> None:
    rows = np.random.default_rng(4).normal(1, 2, (20, 11))
    assert last_third(rows)[1] == pytest.approx([float(last_third(row)[1]) for row in rows])
    assert spread_error(rows, 2.0) == pytest.approx([float(spread_error(r, 2.0)) for r in rows])
