"""What a capture may look like when the collector was late, stopped, or lied to."""

from __future__ import annotations

import time

import numpy as np
import pytest

from leakcase_analyzer.series.growth import SeriesError, judge
from tests.analyzer.series.shapes import BASE, KB, MB, filled, noise, seconds, steady

pytestmark = pytest.mark.filterwarnings("error")
T = seconds(120)


def test_fewer_than_24_samples_are_too_short_and_say_how_long_to_watch() -> None:
    t = seconds(23)
    growth = judge(t, steady(t))
    assert (growth.status, growth.reason) == ("undecided", "too-short")
    assert growth.samples == 23
    assert growth.rate_per_second is None
    assert growth.watch_longer_seconds == pytest.approx(120 - 22)


def test_few_samples_far_apart_ask_for_as_many_more() -> None:
    t = np.arange(12.0) * 60
    growth = judge(t, steady(t))
    assert growth.reason == "too-short"
    assert growth.watch_longer_seconds == pytest.approx(24 * 60 - 660)


def test_no_samples_at_all_are_too_short() -> None:
    growth = judge([], [])
    assert (growth.reason, growth.samples, growth.window_seconds) == ("too-short", 0, 0.0)
    assert growth.watch_longer_seconds == pytest.approx(120)


def test_a_series_that_was_never_measured_is_too_short() -> None:
    growth = judge(T, 0 * T + np.nan)
    assert (growth.reason, growth.samples) == ("too-short", 0)


def test_a_window_under_a_second_is_too_short() -> None:
    growth = judge(T / 1000, steady(T))
    assert growth.reason == "too-short"


def test_missing_samples_change_neither_the_answer_nor_much_of_the_rate() -> None:
    y = steady(T, 30 * KB) + noise(120, 4 * KB)
    y[np.random.default_rng(2).random(120) < 0.3] = np.nan
    growth = judge(T, y)
    assert growth.status == "leak"
    assert growth.samples == int(np.isfinite(y).sum())
    assert growth.rate_per_second == pytest.approx(30 * KB, rel=0.05)


def test_uneven_sampling_does_not_make_growth_uneven() -> None:
    t = np.cumsum(np.random.default_rng(5).choice([0.2, 1.0, 4.0], 150))
    growth = judge(t, steady(t, 30 * KB))
    assert growth.status == "leak"
    assert growth.rate_per_second == pytest.approx(30 * KB, rel=0.01)


def test_a_suspended_collector_leaves_a_long_block_and_no_burst() -> None:
    t = T.copy()
    t[60:] += 900.0
    growth = judge(t, steady(t, 20 * KB))
    assert growth.status == "leak"
    assert growth.rate_per_second == pytest.approx(20 * KB, rel=0.01)


def test_a_clock_that_runs_backwards_is_undecided() -> None:
    t = T.copy()
    t[70:] -= 30.0
    growth = judge(t, steady(T))
    assert (growth.status, growth.reason) == ("undecided", "unordered-time")
    assert growth.watch_longer_seconds is not None


def test_a_second_reading_of_one_instant_is_dropped() -> None:
    t, y = np.repeat(T, 2), np.repeat(steady(T), 2)
    y[1::2] = 1e12
    growth = judge(t, y)
    assert growth.samples == 120
    assert growth.rate_per_second == pytest.approx(20 * KB)


def test_values_that_no_machine_can_hold_are_not_measured() -> None:
    y = steady(T)
    y[[3, 50, 51, 90]] = [np.inf, -np.inf, 1e300, -1e300]
    growth = judge(T, y)
    assert growth.samples == 116
    assert growth.status == "leak"


def test_a_cpu_total_that_falls_is_no_cpu_total() -> None:
    y = filled(T, full_at=50.0)
    falling = judge(T, y, cpu_seconds=-T)
    assert (falling.status, falling.reason) == ("bounded", "saturated")


def test_integers_and_lists_are_series_too() -> None:
    whole = judge(list(range(120)), [int(v) for v in steady(T)])
    assert whole.rate_per_second == pytest.approx(20 * KB)


@pytest.mark.parametrize(
    ("t", "y", "cause"),
    [
        (T, T[:-1], "119 samples but t_seconds has 120"),
        (T, T.reshape(2, 60), "2 dimensions"),
        (["now"] * 30, [1.0] * 30, "not a sequence of numbers"),
    ],
)
def test_arrays_that_do_not_fit_together_are_one_typed_sentence(
    t: object, y: object, cause: str
) -> None:
    with pytest.raises(SeriesError, match=cause):
        judge(t, y)  # type: ignore[arg-type]


def test_books_of_another_length_are_refused_by_name() -> None:
    with pytest.raises(SeriesError, match="free has 3 samples"):
        judge(T, steady(T), free_bytes=[1, 2, 3])


def test_a_day_at_one_second_is_judged_exactly() -> None:
    t = seconds(86_400)
    y = BASE + 100.0 * t + noise(86_400, 200 * KB)
    began = time.process_time()
    growth = judge(t, y, cpu_seconds=0.01 * t)
    assert growth.status == "leak"
    assert growth.rate_per_second == pytest.approx(100.0, rel=0.05)
    # Not a benchmark: a step that is more than linear would take minutes.
    assert time.process_time() - began < 5


def test_a_huge_process_needs_more_growth_before_it_is_called() -> None:
    y = 200 * 1024 * MB + 3 * KB * T
    assert (judge(T, y).status, judge(T, y).reason) == ("stable", "flat")
