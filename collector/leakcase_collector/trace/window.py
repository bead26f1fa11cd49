"""One window of tracing: armed, watched until its time, its calls or its cost are up, undone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from leakcase_collector.system.clock import NS_PER_MS, monotonic_ns, process_cpu_ns

from .schedule import Prices, WindowPlan
from .stacks import StackTable
from .survivors import LiveBlock

if TYPE_CHECKING:
    from leakcase_collector.system.allocation_tracer import AllocationTracer
    from leakcase_collector.system.tracer_layout import SiteCounts, TracerCounters

#: Between looks at the counters, and so for how much longer a window may last than it should.
_BEAT_NS = 4 * NS_PER_MS
#: Copies of stacks that are held at a time, 8 KB each.
SAMPLES_AT_A_TIME = 64


@dataclass
class Window:
    """What one window saw. Times are of CLOCK_MONOTONIC."""

    number: int
    plan: WindowPlan
    started_ns: int
    before: TracerCounters
    sites_before: Mapping[int, SiteCounts]
    cpu_before_ns: Optional[int]
    attach_ns: int = 0
    ended_ns: int = 0
    detach_ns: int = 0
    linger_ns: int = 0
    own_cpu_ns: int = 0
    target_cpu_ns: Optional[int] = None
    after: Optional[TracerCounters] = None
    sites_after: Mapping[int, SiteCounts] = field(default_factory=dict)
    kept: tuple[LiveBlock, ...] = ()
    #: Of blocks that were kept, those whose stack is not known.
    keyless_blocks: int = 0
    keyless_bytes: int = 0

    @property
    def watched_ns(self) -> int:
        """From the first call that was watched to the last."""
        return max(self.ended_ns - self.started_ns, 1)

    def calls(self) -> dict[str, int]:
        """Of each word, in this window."""
        assert self.after is not None
        return calls_between(self.before, self.after)


def calls_between(before: TracerCounters, after: TracerCounters) -> dict[str, int]:
    """Calls of each word that came in between."""
    calls = {call: n - before.calls.get(call, 0) for call, n in after.calls.items()}
    return {call: count for call, count in calls.items() if count}


def open_window(
    tracer: AllocationTracer, table: StackTable, number: int, plan: WindowPlan, prices: Prices,
    pid: int,
) -> Window:  # fmt: skip
    """Arm, watch, and stop watching allocations; frees are still watched then."""
    before, sites = tracer.counters(), tracer.sites()
    asked_ns = monotonic_ns()
    tracer.arm(event_cap=plan.allocations)
    window = Window(number, plan, monotonic_ns(), before, sites, process_cpu_ns(pid))
    window.attach_ns = window.started_ns - asked_ns
    _watch(tracer, table, window, prices)
    window.ended_ns = monotonic_ns()
    cpu_ns = process_cpu_ns(pid)
    tracer.stop_allocations()
    window.after = tracer.counters()
    window.sites_after = tracer.sites()
    if window.after.is_capped and window.after.last_ns is not None:
        window.ended_ns = min(window.ended_ns, window.after.last_ns)
    if cpu_ns is not None and window.cpu_before_ns is not None:
        window.target_cpu_ns = cpu_ns - window.cpu_before_ns
    drain(tracer, table)
    _keep(tracer, table, window)
    return window


def _watch(tracer: AllocationTracer, table: StackTable, window: Window, prices: Prices) -> None:
    until_ns = window.started_ns + window.plan.duration_ns
    while (now_ns := monotonic_ns()) < until_ns:
        counters = tracer.counters()
        cost_ns = prices.of(calls_between(window.before, counters))
        if counters.is_capped or cost_ns >= window.plan.cost_ns:
            return
        if not drain(tracer, table, SAMPLES_AT_A_TIME):
            time.sleep(min(_BEAT_NS, until_ns - now_ns) / 1e9)


def drain(tracer: AllocationTracer, table: StackTable, most: int = 1 << 20) -> int:
    """Unwind what was copied, a few at a time, at most about `most`; how many there were."""
    done = 0
    while done < most:
        samples = tracer.drain(SAMPLES_AT_A_TIME)
        if not samples:
            break
        table.learn(samples)
        done += len(samples)
    return done


def _keep(tracer: AllocationTracer, table: StackTable, window: Window) -> None:
    kept = []
    for block in tracer.live():
        if block.time_ns < window.started_ns - window.attach_ns:
            continue
        stack = table.number(block.key)
        if stack is None:
            window.keyless_blocks += 1
            window.keyless_bytes += block.size
        else:
            kept.append(LiveBlock(block.address, stack, block.size, block.time_ns))
    window.kept = tuple(kept)
