"""What tracing may cost is kept to, whatever the target does."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND
from leakcase_collector.trace.schedule import (
    CALIBRATION_CALLS,
    CALLS_PER_WINDOW,
    FEWEST_CALLS,
    LAST_WINDOW_SHARE,
    WHOLE_EVERY,
    WINDOW_NS,
    WINDOWS_MAX,
    Prices,
    Schedule,
    window_times,
)

PRICES = Prices({"malloc": 2400, "free": 1000}, 200_000)
MINUTE_NS = 60 * NS_PER_SECOND


def run(
    duration_ns: int, share: float, busy: float, pairs_per_second: float
) -> tuple[list[int], int, int]:
    """The windows' starts, what all cost, and the budget, of a target that works evenly."""
    schedule = Schedule(0, duration_ns, share, PRICES, WINDOW_NS)
    opened: list[int] = []
    for now_ns in range(NS_PER_SECOND, duration_ns, NS_PER_SECOND):
        plan = schedule.plan(now_ns, int(busy * now_ns))
        if plan is None:
            continue
        seen = min(int(pairs_per_second * plan.duration_ns / NS_PER_SECOND), plan.allocations)
        watched_ns = min(int(seen / pairs_per_second * NS_PER_SECOND), plan.duration_ns) or 1
        schedule.account(
            now_ns, watched_ns, {"malloc": seen, "free": seen}, {"malloc": seen, "free": seen}, 0
        )
        opened.append(now_ns)
    return opened, schedule.spent_ns, schedule.budget_ns(duration_ns, int(busy * duration_ns))


@settings(max_examples=60)
@given(
    seconds=st.integers(20, 600),
    share=st.sampled_from([0.001, 0.01, 0.1]),
    busy=st.floats(0.05, 2.0),
    pairs=st.floats(1, 1_500_000),
)
def test_all_windows_together_stay_within_the_share(
    seconds: int, share: float, busy: float, pairs: float
) -> None:
    opened, spent_ns, budget_ns = run(seconds * NS_PER_SECOND, share, busy, pairs)
    least_ns = PRICES.window_ns + FEWEST_CALLS * PRICES.pair_ns
    assert spent_ns <= max(budget_ns, least_ns)
    assert opened, "the rates are always measured"


def test_a_server_with_20000_allocations_a_second_gets_windows_at_one_percent() -> None:
    opened, spent_ns, budget_ns = run(2 * MINUTE_NS, 0.01, 0.5, 20_000)
    assert len(opened) >= 20
    assert 0.5 * budget_ns < spent_ns <= budget_ns


def test_where_calls_are_many_windows_become_fewer_before_they_become_useless() -> None:
    opened, _, _ = run(MINUTE_NS, 0.01, 1.0, 1_400_000)
    schedule = Schedule(0, MINUTE_NS, 0.01, PRICES, WINDOW_NS)
    schedule.account(
        0, 1_000_000, {"malloc": 1400, "free": 1400}, {"malloc": 1400, "free": 1400}, 0
    )
    plan = schedule.plan(MINUTE_NS // 2, MINUTE_NS // 2)
    assert plan is not None
    assert plan.allocations >= FEWEST_CALLS
    assert len(opened) >= 3


def test_the_first_window_is_a_small_one() -> None:
    plan = Schedule(0, MINUTE_NS, 1.0, PRICES, WINDOW_NS).plan(MINUTE_NS // 2, MINUTE_NS)
    assert plan is not None
    assert plan.allocations == CALIBRATION_CALLS
    assert plan.duration_ns < WINDOW_NS


def test_no_window_sees_more_allocations_than_its_cap() -> None:
    schedule = Schedule(0, MINUTE_NS, 1.0, PRICES, WINDOW_NS)
    schedule.account(0, NS_PER_SECOND, {"malloc": 100_000}, {"malloc": 100_000}, 0)
    plan = schedule.plan(MINUTE_NS // 2, MINUTE_NS)
    assert plan is not None
    assert plan.allocations == CALLS_PER_WINDOW


def test_a_target_that_got_dearer_gets_no_further_window() -> None:
    schedule = Schedule(0, MINUTE_NS, 0.01, PRICES, WINDOW_NS)
    schedule.account(
        0,
        NS_PER_SECOND,
        {"malloc": 1_000_000, "free": 1_000_000},
        {"malloc": 1_000_000, "free": 1_000_000},
        0,
    )
    now_ns = MINUTE_NS // 10
    while schedule.next_ns is not None:
        assert schedule.plan(max(now_ns, schedule.next_ns), now_ns // 10) is None
    assert schedule.is_too_dear


def test_what_the_collector_spends_on_a_window_delays_the_next() -> None:
    schedule = Schedule(0, MINUTE_NS, 0.5, PRICES, WINDOW_NS)
    schedule.account(
        NS_PER_SECOND, NS_PER_SECOND, {"malloc": 10}, {"malloc": 10}, NS_PER_SECOND // 5
    )
    assert schedule.next_ns is not None
    assert schedule.next_ns >= 11 * NS_PER_SECOND
    assert schedule.plan(10 * NS_PER_SECOND, 10 * NS_PER_SECOND) is None
    assert not schedule.is_too_dear, "it only is not due yet"


def test_frees_are_watched_for_longer_only_where_that_fits() -> None:
    schedule = Schedule(0, MINUTE_NS, 0.01, PRICES, WINDOW_NS)
    now_ns = NS_PER_SECOND
    assert schedule.lingers(now_ns, now_ns // 2, {"free": 500.0}, NS_PER_SECOND)
    assert schedule.lingers(now_ns, now_ns // 2, {"malloc": 900_000.0}, NS_PER_SECOND)
    assert not schedule.lingers(now_ns, now_ns // 2, {"free": 900_000.0}, NS_PER_SECOND)


@given(seed=st.integers(), seconds=st.integers(5, 90_000))
def test_times_are_spread_at_random_and_leave_time_for_later_looks(seed: int, seconds: int) -> None:
    duration_ns = seconds * NS_PER_SECOND
    times = window_times(0, duration_ns, random.Random(seed))
    assert times == sorted(times)
    assert 4 <= len(times) <= WINDOWS_MAX + 1
    assert times[-1] <= max(LAST_WINDOW_SHARE * duration_ns, NS_PER_SECOND)


def test_two_captures_do_not_open_their_windows_at_the_same_times() -> None:
    one, other = (window_times(0, MINUTE_NS, random.Random(seed)) for seed in (1, 2))
    assert one != other


NARROW_PRICES = PRICES._replace(saved_ns=1700)


def run_narrow(share: float, inside: float | None) -> tuple[list[bool], float, int, int]:
    """Whether each window was narrow, the seconds of all, what they cost, and the budget, of a
    target with 20,000 allocations a second, `inside` of them of the sizes that grow; None: that is
    never known."""
    duration_ns = 2 * MINUTE_NS
    schedule = Schedule(0, duration_ns, share, NARROW_PRICES, 400 * NS_PER_MS)
    narrow, watched_ns = [], 0
    for now_ns in range(NS_PER_SECOND, duration_ns, NS_PER_SECOND):
        if now_ns >= duration_ns // 5:
            schedule.narrow(now_ns, inside)
        plan = schedule.plan(now_ns, int(0.5 * now_ns))
        if plan is None:
            continue
        narrow.append(plan.is_narrow)
        made = 20_000 * plan.duration_ns // NS_PER_SECOND
        seen = min(int(made * (inside or 1)) if plan.is_narrow else made, plan.allocations)
        watched_ns += plan.duration_ns
        calls, passed = {"malloc": seen, "free": made}, made - seen if plan.is_narrow else 0
        schedule.account(now_ns, plan.duration_ns, calls, calls, 20 * NS_PER_MS, passed)
    budget_ns = schedule.budget_ns(duration_ns, int(0.5 * duration_ns))
    return narrow, watched_ns / NS_PER_SECOND, schedule.spent_ns, budget_ns


@pytest.mark.parametrize("share", [0.01, 0.04])
def test_windows_of_what_grows_are_more_and_longer_and_each_fourth_is_of_all(share: float) -> None:
    narrow, seconds, spent_ns, budget_ns = run_narrow(share, 0.01)
    assert spent_ns <= 1.001 * budget_ns
    turns = narrow[narrow.index(True) :]
    assert turns == [place % WHOLE_EVERY != WHOLE_EVERY - 1 for place in range(len(turns))]
    assert seconds > 1.5 * run_narrow(share, None)[1]


def test_where_no_sizes_grow_any_more_all_are_watched_again() -> None:
    schedule = Schedule(0, MINUTE_NS, 1.0, PRICES, WINDOW_NS)
    schedule.account(0, NS_PER_SECOND, {"malloc": 1000}, {"malloc": 1000}, 0)
    for share, is_narrow in ((0.1, True), (None, False)):
        schedule.narrow(MINUTE_NS // 3, share)
        plan = schedule.plan(MINUTE_NS // 2, MINUTE_NS)
        assert plan is not None and plan.is_narrow == is_narrow


def test_allocations_that_were_passed_over_are_calls_of_the_target_and_cost_less() -> None:
    schedule = Schedule(0, MINUTE_NS, 0.01, NARROW_PRICES, WINDOW_NS)
    cost_ns = schedule.account(0, NS_PER_SECOND, {"free": 9}, {"free": 9}, 0, 9)
    assert cost_ns == PRICES.window_ns + 9 * (1000 + 2400 - 1700)
    assert schedule.rates_per_second() == {"free": 9, "malloc": 9}


def test_what_passed_in_a_window_that_was_left_out_is_paid_for_and_tells_no_rates() -> None:
    schedule = Schedule(0, MINUTE_NS, 0.01, PRICES, WINDOW_NS)
    schedule.account(0, NS_PER_SECOND, {"malloc": 1000}, {"malloc": 1000}, 0)
    rates, spent_ns = schedule.rates_per_second(), schedule.spent_ns
    schedule.account(0, 0, {}, {"malloc": 1000}, 0, passed_over=1000)
    assert schedule.rates_per_second() == rates
    assert schedule.spent_ns - spent_ns == PRICES.window_ns + 2 * 1000 * PRICES.call_ns["malloc"]


@pytest.mark.parametrize("calls", [{}, {"mremap": 3}])
def test_a_call_without_a_price_costs_a_window_only(calls: dict[str, int]) -> None:
    schedule = Schedule(0, MINUTE_NS, 0.01, PRICES, WINDOW_NS)
    assert schedule.account(0, 1, calls, calls, 0) == PRICES.window_ns


def worked(schedule: Schedule, now_ns: int) -> None:
    """A window of a target that allocates some times a second."""
    schedule.account(now_ns, NS_PER_SECOND, {"malloc": 10}, {"malloc": 10}, 0)


def test_no_window_opens_when_too_little_is_left_to_look_at_its_blocks_again() -> None:
    schedule = Schedule(0, MINUTE_NS, 1.0, PRICES, WINDOW_NS)
    worked(schedule, 0)
    worked(schedule, 10 * NS_PER_SECOND)
    assert schedule.plan(int(0.86 * MINUTE_NS), MINUTE_NS) is None
    assert schedule.next_ns is None


def test_where_a_busy_host_let_none_be_but_the_first_a_late_window_is_better_than_none() -> None:
    schedule = Schedule(0, MINUTE_NS, 1.0, PRICES, WINDOW_NS)
    first = schedule.plan(int(0.9 * MINUTE_NS), MINUTE_NS)
    assert first is not None and first.allocations == CALIBRATION_CALLS
    worked(schedule, int(0.9 * MINUTE_NS))
    assert schedule.plan(int(0.95 * MINUTE_NS), MINUTE_NS) is not None
    worked(schedule, int(0.95 * MINUTE_NS))
    assert schedule.plan(int(0.99 * MINUTE_NS), MINUTE_NS) is None
    assert schedule.next_ns is None


def test_a_schedule_that_gave_up_opens_none_however_late() -> None:
    schedule = Schedule(0, MINUTE_NS, 1.0, PRICES, WINDOW_NS)
    worked(schedule, 0)
    schedule.give_up()
    assert schedule.plan(int(0.9 * MINUTE_NS), MINUTE_NS) is None
