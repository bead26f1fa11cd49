"""What a window saw, as records tell it."""

from __future__ import annotations

from leakcase_collector.system.clock import NS_PER_MS
from leakcase_collector.system.tracer_layout import TracerCounters
from leakcase_collector.trace.schedule import Prices, WindowPlan
from leakcase_collector.trace.telling import rates_record, window_record
from leakcase_collector.trace.window import Window


def counters(**calls: int) -> TracerCounters:
    nothing = dict.fromkeys(TracerCounters._fields, 0)
    return TracerCounters(
        **{**nothing, "calls": calls, "size_log2": [0] * 64, "frees": calls.get("free", 0)},  # type: ignore[arg-type]
    )


def window(after: TracerCounters, **frees: int) -> Window:
    """`frees`: those of the time in which allocations were counted."""
    seen = Window(0, WindowPlan(50 * NS_PER_MS, 1000, 1), 7, counters(malloc=3), {}, 0)
    seen.after, seen.frees, seen.ended_ns = after, frees, 7 + 50 * NS_PER_MS
    return seen


def test_a_window_in_which_the_program_rested_has_rates_of_nothing() -> None:
    # What came while the probes were taken out is not of the window.
    rested = window(counters(malloc=3, free=9), free=0)
    rates = rates_record(rested, "uprobe-session", Prices({"malloc": 1000}, 1), 0.5)
    assert (rates.calls_of, rates.calls, rates.net_blocks) == ([], [], 0)
    assert rates.call_cost_ns is None


def test_frees_are_those_of_the_time_in_which_allocations_were_counted() -> None:
    rates = rates_record(
        window(counters(malloc=13, free=30), free=10), None, Prices({"malloc": 1000}, 1), 0.5
    )
    assert dict(zip(rates.calls_of, rates.calls)) == {"malloc": 10, "free": 10}
    assert rates.net_blocks == 0


def test_allocations_for_whose_stack_there_was_no_room_are_told_as_lost() -> None:
    told = window_record(window(counters(malloc=9)._replace(lost_sites=5)), None, "bursts", 2, 0)
    assert told.lost_stacks == 7
