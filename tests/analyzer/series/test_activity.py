"""When a process works, and whether its memory grows then."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from leakcase_analyzer.series.activity import Episode, segments
from leakcase_analyzer.series.samples import Floats, SeriesError
from leakcase_analyzer.series.trigger import trigger
from tests.analyzer.series.shapes import BASE, KB, MB, noise, seconds

pytestmark = pytest.mark.filterwarnings("error")
T = seconds(240)
WORKING = (T // 20) % 2 == 1


def cpu_of(working: np.ndarray) -> Floats:
    """Running total: a fifth of a core at work, two thousandths at rest, with jitter."""
    rng = np.random.default_rng(8)
    use = np.where(working, 0.2, 0.002) * rng.uniform(0.8, 1.2, working.size)
    return np.concatenate(([0.0], np.cumsum(use[:-1])))


def leaked(working: np.ndarray, rate: float) -> Floats:
    return BASE + rate * np.concatenate(([0.0], np.cumsum(working[:-1])))


# segments


def test_work_and_rest_in_turns_are_found_in_cpu_time() -> None:
    found = segments(T, cpu_of(WORKING))
    assert found is not None
    assert found.source == "cpu"
    assert found.count("active") == found.count("idle") == 6
    assert found.seconds("active") == pytest.approx(120, abs=15)
    starts = [episode.start_seconds for episode in found.episodes]
    assert starts == pytest.approx(np.arange(0, 240, 20.0), abs=3)


def test_even_work_has_no_two_states() -> None:
    assert segments(T, cpu_of(T >= 0)) is None


def test_idle_jitter_of_a_sleeping_process_is_no_activity() -> None:
    use = np.where(WORKING, 0.0006, 0.0004)
    assert segments(T, np.cumsum(use)) is None


def test_work_that_is_a_quarter_more_is_no_other_state() -> None:
    use = np.where(WORKING, 0.25, 0.20)
    assert segments(T, np.cumsum(use)) is None
    assert segments(T, np.cumsum(np.where(WORKING, 0.40, 0.20))) is not None


def test_fewer_than_three_episodes_of_each_are_not_enough() -> None:
    assert segments(T, cpu_of(T > 120)) is None


def test_a_pause_of_three_seconds_ends_no_episode() -> None:
    working = WORKING.copy()
    working[28:30] = False
    found = segments(T, cpu_of(working))
    assert found is not None
    assert found.count("active") == 6


def test_short_bursts_at_rest_make_no_episodes() -> None:
    working = WORKING.copy()
    working[[67, 68, 69, 70, 147, 148, 149, 150]] = [False] * 4 + [True] * 4
    working[[89, 90, 91, 92]] = True
    found = segments(T, cpu_of(working))
    assert found is not None
    assert all(episode.seconds >= 10 for episode in found.episodes)


@pytest.mark.parametrize("spread", ["normal", "even"])
def test_one_wide_level_of_work_is_not_two(spread: str) -> None:
    rng = np.random.default_rng(6)
    slow = np.repeat(np.arange(12.0), 20)
    draw = {"normal": np.sort(rng.normal(0.5, 0.12, 12)), "even": np.linspace(0.05, 1, 12)}[spread]
    order = [0, 11, 1, 10, 2, 9, 3, 8, 4, 7, 5, 6]
    use = draw[order][slow.astype(int)]
    assert segments(T, np.concatenate(([0.0], np.cumsum(use[:-1])))) is None


def test_a_process_without_cpu_time_has_no_segments() -> None:
    assert segments(T, None) is None
    assert segments(T, 0 * T) is None
    assert segments([], []) is None


def test_marks_override_what_was_measured() -> None:
    marks = [(10.0, "idle"), (100.0, "active"), (150.0, "deploy"), (200.0, "idle")]
    found = segments(T, cpu_of(WORKING), marks)
    assert found is not None
    assert found.source == "marks"
    assert found.episodes == (
        Episode("idle", 10.0, 100.0),
        Episode("active", 100.0, 200.0),
        Episode("idle", 200.0, 239.0),
    )


def test_marks_in_any_order_and_repeated_make_one_episode_each() -> None:
    found = segments(T, None, [(120.0, "idle"), (0.0, "active"), (60.0, "active")])
    assert found is not None
    assert found.episodes == (Episode("active", 0.0, 120.0), Episode("idle", 120.0, 239.0))


def test_marks_that_say_nothing_of_activity_leave_it_to_cpu_time() -> None:
    found = segments(T, cpu_of(WORKING), [(50.0, "deploy")])
    assert found is not None and found.source == "cpu"


def test_marks_outside_of_the_window_reach_into_it() -> None:
    found = segments(T, None, [(-50.0, "active"), (500.0, "idle")])
    assert found is not None
    assert found.episodes == (Episode("active", 0.0, 239.0),)


def test_two_hundred_thousand_flips_are_no_burden() -> None:
    t = seconds(200_000)
    assert segments(t, cpu_of(t % 2 == 0)) is None


# trigger


def test_a_leak_of_active_times_is_triggered_by_activity() -> None:
    y = leaked(WORKING, 50 * KB) + noise(240, 4 * KB)
    answer = trigger(T, y, segments(T, cpu_of(WORKING)))
    assert answer.when == "active"
    assert answer.rate_active == pytest.approx(50 * KB, rel=0.15)
    assert answer.rate_idle == pytest.approx(0, abs=5 * KB)
    assert answer.p_shift is not None and answer.p_shift < 0.05
    assert answer.p_welch is not None and answer.p_welch < 0.05
    assert answer.active_episodes >= 3


def test_a_leak_of_idle_times_is_triggered_by_rest() -> None:
    y = leaked(~WORKING, 50 * KB) + noise(240, 4 * KB)
    assert trigger(T, y, segments(T, cpu_of(WORKING))).when == "idle"


def test_a_leak_at_all_times_is_constant() -> None:
    y = BASE + 50 * KB * T + noise(240, 4 * KB)
    assert trigger(T, y, segments(T, cpu_of(WORKING))).when == "constant"


def test_a_leak_only_somewhat_faster_at_work_is_constant() -> None:
    y = leaked(WORKING, 50 * KB) + leaked(~WORKING, 35 * KB) - BASE
    assert trigger(T, y, segments(T, cpu_of(WORKING))).when == "constant"


def test_a_contrast_that_other_phases_show_as_well_is_no_trigger() -> None:
    # Growth has the states' rhythm but not their phase: it would fit later states better.
    y = leaked(((T - 6) // 20) % 2 == 1, 60 * KB) + noise(240, 2 * KB)
    found = segments(T, cpu_of(WORKING))
    answer = trigger(T, y, found)
    assert answer.p_welch is not None and answer.p_welch < 0.05
    assert answer.p_shift is not None and answer.p_shift > 0.05
    assert answer.when == "unknown"


def test_no_growth_has_no_trigger() -> None:
    assert trigger(T, BASE + noise(240), segments(T, cpu_of(WORKING))).when == "unknown"


def test_no_segments_no_trigger() -> None:
    answer = trigger(T, leaked(WORKING, 50 * KB), None)
    assert (answer.when, answer.rate_active) == ("unknown", None)


def test_one_step_that_fell_into_an_active_time_is_no_trigger() -> None:
    y = BASE + 5 * MB * (T >= 70)
    assert trigger(T, y, segments(T, cpu_of(WORKING))).when == "unknown"


def test_a_warm_up_does_not_hide_the_trigger() -> None:
    y = leaked(WORKING, 50 * KB) + 20 * MB * (1 - np.exp(-T / 4))
    assert trigger(T, y, segments(T, cpu_of(WORKING))).when == "active"


def test_one_idle_and_one_active_phase_by_hand_are_compared() -> None:
    marks = [(0.0, "idle"), (120.0, "active")]
    grows = trigger(T, BASE + 40 * KB * np.maximum(T - 120, 0), segments(T, None, marks))
    assert grows.when == "active"
    assert grows.p_shift is None


def test_growth_that_merely_ended_with_the_first_phase_has_no_trigger() -> None:
    marks = [(0.0, "active"), (120.0, "idle")]
    stops = trigger(T, BASE + 40 * KB * np.minimum(T, 120), segments(T, None, marks))
    assert stops.when == "unknown"


def test_threads_started_at_work_are_triggered_by_activity() -> None:
    started = np.floor((leaked(WORKING, 1.0) - BASE) / 4)
    answer = trigger(T, started, segments(T, cpu_of(WORKING)), unit="count")
    assert answer.when == "active"


def test_welchs_p_is_scipys() -> None:
    y = leaked(WORKING, 30 * KB) + np.cumsum(np.abs(noise(240, 8 * KB)))
    found = segments(T, None, [(20.0 * k, "active" if k % 2 else "idle") for k in range(12)])
    assert found is not None
    answer = trigger(T, y, found)
    floor = np.minimum.accumulate(y[::-1])[::-1][:220]
    rates: dict[str, list[float]] = {"active": [], "idle": []}
    for episode in found.episodes:
        ends = np.clip([episode.start_seconds, episode.end_seconds], 0, 219)
        if np.ptp(ends) >= 10:
            rise = float(np.diff(np.interp(ends, T[:220], floor))[0])
            rates[episode.state].append(rise / float(np.ptp(ends)))
    expected = ttest_ind(rates["active"], rates["idle"], equal_var=False, alternative="greater")
    assert answer.p_welch == pytest.approx(float(expected.pvalue), rel=1e-6)


def test_the_shift_test_counts_every_shift() -> None:
    rng = np.random.default_rng(12)
    y = BASE + np.cumsum(rng.exponential(30 * KB, 240))
    found = segments(T, cpu_of(WORKING))
    assert found is not None
    answer = trigger(T, y, found)
    floor = np.minimum.accumulate(y[::-1])[::-1][:220]
    steps, middles = np.diff(floor), T[:219] + 0.5
    states = np.zeros(219, dtype=bool)
    for episode in found.episodes:
        if episode.state == "active":
            states |= (middles >= episode.start_seconds) & (middles < episode.end_seconds)
    sign = 1 if (answer.rate_active or 0) >= (answer.rate_idle or 0) else -1
    contrasts = [
        sign * (steps[turned].mean() - steps[~turned].mean())
        for turned in (np.roll(states, k) for k in range(219))
    ]
    expected = float(np.mean(np.array(contrasts) >= contrasts[0] - 1e-6))
    assert answer.p_shift == pytest.approx(expected, abs=1 / 219)


def test_series_of_different_length_are_refused() -> None:
    with pytest.raises(SeriesError):
        trigger(T, T[:-1], segments(T, cpu_of(WORKING)))
