"""Each step of the rule, hit by a series that was built for it."""

from __future__ import annotations

import numpy as np
import pytest

from leakcase_analyzer.series.growth import Growth, judge
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


def answer(growth: Growth) -> tuple[str, str]:
    return growth.status, growth.reason


# (a) retention


def test_growth_that_is_all_free_memory_is_retention() -> None:
    y = steady(T, 50 * KB)
    growth = judge(T, y, in_use_bytes=0 * T + 20 * MB, free_bytes=y - 20 * MB)
    assert answer(growth) == ("retention", "retention-growing")
    assert growth.rate_per_second == pytest.approx(50 * KB)


def test_growth_that_is_in_use_is_no_retention() -> None:
    y = steady(T, 50 * KB)
    growth = judge(T, y, in_use_bytes=y - 5 * MB, free_bytes=0 * T + 5 * MB)
    assert answer(growth) == ("leak", "steady-floor")


def test_free_memory_beyond_the_resident_growth_is_no_evidence_of_retention() -> None:
    y = steady(T, 10 * KB)
    growth = judge(T, y, in_use_bytes=0 * T + 20 * MB, free_bytes=10 * MB + 100 * KB * T)
    assert answer(growth) == ("leak", "steady-floor")
    assert growth.census.covers_growth is False


def test_free_memory_counts_only_as_far_as_it_is_resident() -> None:
    growth = judge(T, 0 * T + 30 * MB, in_use_bytes=0 * T + 9 * MB, free_bytes=0 * T + 90 * MB)
    assert growth.census.free_bytes == 30 * MB


def test_free_memory_that_grew_only_in_the_first_half_does_not_explain_the_second() -> None:
    y = steady(T, 20 * KB)
    kept = np.minimum(T, 60.0) * 20 * KB
    growth = judge(T, y, in_use_bytes=30 * MB + 20 * KB * np.maximum(T - 60, 0) / 3,
                   free_bytes=5 * MB + kept)  # fmt: skip
    assert growth.status != "retention"


def test_a_level_process_whose_memory_is_mostly_free_is_retention() -> None:
    growth = judge(T, 0 * T + 60 * MB, in_use_bytes=0 * T + 20 * MB, free_bytes=0 * T + 40 * MB)
    assert answer(growth) == ("retention", "retention-level")


def test_two_censuses_at_the_ends_suffice_and_one_alone_says_nothing() -> None:
    y = steady(T, 50 * KB)
    in_use, free = 0 * T + np.nan, 0 * T + np.nan
    in_use[0], free[0] = 20 * MB, 30 * MB
    one = judge(T, y, in_use_bytes=in_use, free_bytes=free)
    assert one.census.in_use_growth is None
    assert one.status == "leak"
    in_use[-1], free[-1] = 20 * MB, y[-1] - 20 * MB
    assert judge(T, y, in_use_bytes=in_use, free_bytes=free).status == "retention"


# (b) the bytes in use


def test_a_leak_below_a_sawtooth_is_seen_in_the_bytes_in_use() -> None:
    y = sawtooth(T, 13.0, 30 * MB)
    growth = judge(T, y, in_use_bytes=10 * MB + 17 * KB * T, free_bytes=y - 10 * MB - 17 * KB * T)
    assert answer(growth) == ("leak", "steady-in-use")
    assert growth.rate_per_second == pytest.approx(17 * KB)
    assert growth.steady_no_bound_seen


def test_a_leak_into_memory_that_the_allocator_had_kept_is_seen_in_the_bytes_in_use() -> None:
    used = 10 * MB + 17 * KB * T
    growth = judge(T, 0 * T + 80 * MB, in_use_bytes=used, free_bytes=75 * MB - used)
    assert answer(growth) == ("leak", "steady-in-use")


def test_a_little_more_in_use_in_memory_that_stands_is_not_called() -> None:
    used = 10 * MB + 1.5 * KB * T
    growth = judge(T, 0 * T + 80 * MB, in_use_bytes=used, free_bytes=75 * MB - used)
    assert growth.status == "retention"


def test_bytes_in_use_that_stopped_growing_are_no_leak() -> None:
    used = 10 * MB + 40 * KB * np.minimum(T, 60)
    growth = judge(T, 0 * T + 80 * MB, in_use_bytes=used, free_bytes=75 * MB - used)
    assert growth.status == "retention"


# (c) no growth of the floor


def test_page_noise_is_stable() -> None:
    assert answer(judge(T, BASE + noise(120))) == ("stable", "flat")


def test_a_constant_series_is_stable_with_rate_zero() -> None:
    growth = judge(T, 0 * T + BASE)
    assert answer(growth) == ("stable", "flat")
    assert growth.rate_per_second == 0.0
    assert growth.rate_low is not None and growth.rate_low < 0 < (growth.rate_high or 0)


def test_a_sawtooth_above_a_level_floor_is_bounded() -> None:
    assert answer(judge(T, sawtooth(T, 9.0))) == ("bounded", "falls-back")


def test_a_spike_that_is_given_back_is_bounded() -> None:
    y = 0 * T + BASE
    y[40:48] += 20 * MB
    assert answer(judge(T, y)) == ("bounded", "falls-back")


def test_a_rise_at_the_very_end_is_undecided() -> None:
    y = 0 * T + BASE
    y[113:] += 5 * MB
    growth = judge(T, y)
    assert answer(growth) == ("undecided", "late-rise")
    assert growth.watch_longer_seconds == pytest.approx(2 * 119)


# (d) growth has stopped


def test_a_cache_that_fills_and_stops_is_bounded() -> None:
    assert answer(judge(T, filled(T, full_at=50.0))) == ("bounded", "saturated")


def test_a_warm_up_is_bounded() -> None:
    assert answer(judge(T, warm_up(T, tau=15.0))) == ("bounded", "saturated")


def test_two_early_steps_may_be_chance() -> None:
    y = 0 * T + BASE
    y[20:] += MB
    y[50:] += MB
    assert answer(judge(T, y)) == ("undecided", "quiet")


def test_quiet_is_no_evidence_when_the_process_stopped_working() -> None:
    y = filled(T, full_at=70.0)
    working = judge(T, y, cpu_seconds=0.1 * T)
    resting = judge(T, y, cpu_seconds=0.1 * np.minimum(T, 70.0))
    assert answer(working) == ("bounded", "saturated")
    assert answer(resting) == ("undecided", "quiet")


def test_growth_that_is_only_small_beside_its_start_has_not_stopped() -> None:
    y = warm_up(T, tau=3.0, bound=20 * MB) + 3 * KB * T
    y[-20:] = y[-21]
    assert judge(T, y).status == "undecided"


# (e) growth slows down


def test_an_approach_to_a_far_bound_is_undecided() -> None:
    assert answer(judge(T, warm_up(T, tau=100.0))) == ("undecided", "decelerating")


def test_a_tail_that_still_slows_down_is_no_steady_tail() -> None:
    # Its last half alone looks even: the last third grows by nine tenths of the mean.
    assert answer(judge(T, warm_up(T, tau=190.0))) == ("undecided", "decelerating")


# (f) steady


@pytest.mark.parametrize("rate", [7 * KB, 17 * KB, 263 * KB])
@pytest.mark.parametrize("count", [60, 120, 600])
def test_a_steady_leak_is_called_with_its_rate_inside_the_interval(rate: float, count: int) -> None:
    t = seconds(count)
    growth = judge(t, steady(t, rate) + noise(count, 4 * KB))
    assert answer(growth) == ("leak", "steady-floor")
    assert growth.rate_per_second == pytest.approx(rate, rel=0.1)
    assert growth.rate_low is not None and growth.rate_high is not None
    assert growth.rate_low < rate < growth.rate_high
    assert growth.watch_longer_seconds is None
    assert growth.steady_no_bound_seen


def test_a_leak_in_steps_is_called() -> None:
    growth = judge(T, stairs(T, 300 * KB, every=7.0))
    assert answer(growth) == ("leak", "steady-floor")
    assert growth.rate_per_second == pytest.approx(300 * KB / 7, rel=0.1)


def test_a_leak_below_a_sawtooth_is_called_by_its_floor() -> None:
    growth = judge(T, sawtooth(T, 8.0, 2 * MB) + 40 * KB * T)
    assert growth.status == "leak"
    assert growth.rate_per_second == pytest.approx(40 * KB, rel=0.15)


def test_a_managed_runtime_is_undecided_until_its_collector_has_run() -> None:
    short = judge(T, steady(T), managed_runtime=True)
    assert answer(short) == ("undecided", "managed-runtime")
    assert short.rate_per_second == pytest.approx(20 * KB)
    assert short.steady_no_bound_seen
    assert short.least_detectable_rate_per_second is None
    assert short.watch_longer_seconds == pytest.approx(590 - 119)
    assert judge(T, steady(T), managed_runtime=True, major_collections=3).status == "leak"
    long = seconds(600)
    assert judge(long, steady(long), managed_runtime=True).status == "leak"


def test_books_that_cover_the_growth_and_hardly_grow_in_use_forbid_to_call_a_leak() -> None:
    y = steady(T, 40 * KB)
    grown = y - BASE
    growth = judge(T, y, in_use_bytes=10 * MB + 0.1 * grown, free_bytes=9 * MB + 0.45 * grown)
    assert answer(growth) == ("undecided", "census-disagrees")
    assert growth.census.covers_growth is True
    assert growth.steady_no_bound_seen


def test_steady_growth_of_little_is_not_called_before_there_is_more_of_it() -> None:
    slow = judge(T, steady(T, 1.7 * KB))
    assert answer(slow) == ("undecided", "slight")
    assert slow.steady_no_bound_seen
    longer = seconds(360)
    assert judge(longer, steady(longer, 1.7 * KB)).status == "leak"


# (g) uneven


def test_one_step_is_too_few_events() -> None:
    y = 0 * T + BASE
    y[95:] += 3 * MB
    assert answer(judge(T, y)) == ("undecided", "few-events")


def test_growth_in_a_burst_is_undecided() -> None:
    y = steady(T, 3 * KB)
    y[70:] += np.minimum(np.arange(50.0) * 800 * KB, 4 * MB)
    assert answer(judge(T, y)) == ("undecided", "bursty")


def test_growth_weaker_in_the_last_third_is_undecided_even_if_chance_explains_it() -> None:
    blocks = np.array([0, 5, 0, 0, 5, 0, 0, 5, 0, 3, 0, 1]).cumsum() * 300 * KB
    growth = judge(T, BASE + np.interp(T, 10.0 * np.arange(12), blocks))
    assert growth.floor is not None
    assert growth.floor.last_third_z > -1
    assert growth.floor.last_third_ratio == pytest.approx(0.58, abs=0.01)
    assert growth.floor.rate_low > 0
    assert answer(growth) == ("undecided", "bursty")


def test_a_floor_that_falls_back_between_blocks_is_no_leak() -> None:
    t = seconds(240)
    assert judge(t, BASE + 2 * MB * np.abs((t % 120) / 60 - 1) + 9 * KB * t).status != "leak"


def test_too_few_periods_of_a_sawtooth_are_undecided() -> None:
    t = seconds(120)
    y = sawtooth(t, 29.0, 8 * MB) + np.array([0, 0.1, 0.9, 1.4, 2.2])[(t // 29).astype(int)] * MB
    assert answer(judge(t, y)) == ("undecided", "few-periods")


# (h) the tail


def test_a_leak_after_a_warm_up_is_called_at_the_rate_of_its_tail() -> None:
    growth = judge(T, warm_up(T, tau=4.0, bound=12 * MB) + 20 * KB * T)
    assert answer(growth) == ("leak", "steady-tail")
    assert growth.rate_per_second == pytest.approx(20 * KB, rel=0.1)
    assert growth.total_growth is not None and growth.total_growth > 2 * 20 * KB * 119


def test_the_first_samples_of_a_start_up_do_not_hide_a_leak_in_sixty_seconds() -> None:
    t = seconds(60)
    y = steady(t, 30 * KB)
    y[:3] -= np.array([40, 25, 8]) * MB
    growth = judge(t, y)
    assert growth.status == "leak"
    assert growth.rate_per_second == pytest.approx(30 * KB, rel=0.1)


def test_a_tail_of_fewer_than_24_samples_calls_nothing() -> None:
    t, later = seconds(30), seconds(60)
    assert judge(t, warm_up(t, 1.0, 40 * MB) + 200 * KB * t).status == "undecided"
    assert judge(later, warm_up(later, 1.0, 40 * MB) + 200 * KB * later).status == "leak"


def test_a_warm_up_too_small_to_hide_a_leak_does_not_raise_its_rate_either() -> None:
    t = seconds(60)
    growth = judge(t, warm_up(t, tau=2.0, bound=1.3 * MB) + 60 * KB * t)
    assert answer(growth) == ("leak", "steady-floor")
    assert growth.rate_per_second == pytest.approx(60 * KB, rel=0.02)


# counts


def test_a_thread_every_two_seconds_is_a_leak() -> None:
    t = seconds(60)
    growth = judge(t, 4 + np.floor(t / 2), unit="count")
    assert answer(growth) == ("leak", "steady-floor")
    assert growth.rate_per_second == pytest.approx(0.5, rel=0.05)


def test_three_descriptors_a_second_are_a_leak() -> None:
    t = seconds(60)
    growth = judge(t, 11 + 3 * t, unit="count")
    assert growth.status == "leak"
    assert growth.rate_per_second == pytest.approx(3.0)


def test_a_pool_that_grows_to_eight_threads_and_stops_is_bounded() -> None:
    t = seconds(60)
    growth = judge(t, 1 + np.minimum(np.floor(t / 3), 7), unit="count")
    assert answer(growth) == ("bounded", "saturated")


def test_connections_that_come_and_go_are_not_growing() -> None:
    t = seconds(120)
    open_now = 20 + np.random.default_rng(3).poisson(4, 120)
    assert judge(t, open_now, unit="count").status in ("stable", "bounded")


def test_the_books_of_an_allocator_do_not_speak_of_counts() -> None:
    t = seconds(60)
    growth = judge(t, 11 + 3 * t, unit="count", in_use_bytes=0 * t, free_bytes=30 * t)
    assert growth.status == "leak"
    assert growth.census.in_use_growth is None


# confidence


def test_confidence_grows_with_the_window_and_with_agreeing_books() -> None:
    def sure(count: int, books: bool) -> float:
        t = seconds(count)
        y = steady(t)
        used = y - 20 * MB if books else None
        free = 0 * t + 5 * MB if books else None
        return judge(t, y, in_use_bytes=used, free_bytes=free).confidence

    assert sure(121, books=False) == pytest.approx(0.85, abs=0.001)
    assert sure(121, books=True) == pytest.approx(0.905, abs=0.001)
    assert sure(61, books=False) < sure(121, books=False) < sure(601, books=False)


def test_an_undecided_answer_claims_nothing() -> None:
    assert judge(T, warm_up(T, tau=100.0)).confidence == 0.0


@pytest.mark.parametrize("period", [2.3, 3.7, 4.621, 5.4, 6.9])
def test_where_the_looks_fall_on_a_sawtooth_makes_no_growth(period: float) -> None:
    # At one look a second a tooth that rises 6 MB in it is known to some MB only.
    rng = np.random.default_rng(7919)
    answers = []
    for _ in range(40):
        t = np.arange(61.0) + np.abs(rng.normal(0, 0.02, 61)) + rng.uniform(0, period)
        answers.append(judge(t, 6e6 * (t % period) + 1e6).status)
    assert "leak" not in answers
    assert answers.count("bounded") >= 38
