"""What a window holds while it watches."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from leakcase_collector.system.clock import NS_PER_MS, monotonic_ns
from leakcase_collector.system.tracer_layout import TracerLimits
from leakcase_collector.trace import window as windows
from leakcase_collector.trace.schedule import Prices, WindowPlan
from leakcase_collector.trace.window import Window


def test_copies_of_stacks_that_come_faster_than_they_unwind_stay_on_the_ring() -> None:
    limits = TracerLimits(stack_bytes=32_768)
    counted: Any = SimpleNamespace(calls={}, passed_over=0, is_capped=False)
    made = learned = most = 0

    def drain(limit: int) -> list[int]:
        nonlocal made, most
        made += limit
        most = max(most, made - learned)
        return list(range(limit))

    def learn(samples: list[int]) -> None:
        nonlocal learned
        learned += len(samples)
        time.sleep(0.001)

    tracer: Any = SimpleNamespace(limits=limits, drain=drain, counters=lambda: counted)
    table: Any = SimpleNamespace(learn=learn)
    plan = WindowPlan(100 * NS_PER_MS, 5000, 1)
    window = Window(0, plan, monotonic_ns(), counted, {}, None)
    held = windows._watch(tracer, table, window, Prices({}, 0))
    assert len(held) == made - learned
    assert most < 5 * limits.samples_at_a_time
