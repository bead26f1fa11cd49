"""One window of tracing: armed, watched until its time, its calls or its cost are up, undone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from leakcase_collector.system.clock import NS_PER_MS, monotonic_ns, process_cpu_ns

from .bands import Band
from .schedule import FREES, Prices, WindowPlan
from .stacks import StackTable
from .survivors import LiveBlock

if TYPE_CHECKING:
    from leakcase_collector.system.allocation_tracer import AllocationTracer
    from leakcase_collector.system.tracer_layout import (
        SiteCounts,
        StackSample,
        TracerCounters,
    )

#: Between looks at the counters, and so for how much longer a window may last than it should.
_BEAT_NS = 3 * NS_PER_MS
#: Of a window of some sizes: few stacks come, and what a second costs is known by then.
_NARROW_BEAT_NS = 20 * NS_PER_MS
#: Copies of stacks that are held, of those that are taken at a time; from the second on they stay
#: on the ring.
_HELD_SHARE, _MOST_HELD_SHARE = 1.5, 4
_LEARNED_AT_A_TIME = 8


@dataclass
class Window:
    """What one window saw. Times are of CLOCK_MONOTONIC."""

    number: int
    plan: WindowPlan
    started_ns: int
    before: TracerCounters
    sites_before: Mapping[int, SiteCounts]
    cpu_before_ns: Optional[int]
    #: Only these sizes were watched; None: all.
    band: Optional[Band] = None
    attach_ns: int = 0
    ended_ns: int = 0
    detach_ns: int = 0
    linger_ns: int = 0
    own_cpu_ns: int = 0
    target_cpu_ns: Optional[int] = None
    after: Optional[TracerCounters] = None
    #: Of each word, while allocations were counted; None: as long as `after` is.
    frees: Optional[Mapping[str, int]] = None
    sites_after: Mapping[int, SiteCounts] = field(default_factory=dict)
    kept: tuple[LiveBlock, ...] = ()
    #: Of blocks that were kept, those whose stack is not known.
    keyless_blocks: int = 0
    keyless_bytes: int = 0
    #: Allocations that were watched and not counted, estimated.
    vain_calls: int = 0
    #: Whether probes came out before its end, as where we were stopped: nothing in it counts.
    is_cut: bool = False

    @property
    def watched_ns(self) -> int:
        """From the first call that was watched to the last."""
        return max(self.ended_ns - self.started_ns, 1)

    @property
    def passed_over(self) -> int:
        """Allocations that were not watched for their size."""
        assert self.after is not None
        return self.after.passed_over - self.before.passed_over

    @property
    def allocations(self) -> int:
        """Those that were watched."""
        assert self.after is not None
        return self.after.allocations - self.before.allocations

    def made(self) -> Counter[int]:
        """How many blocks of each size were asked for; what one key asked for is averaged."""
        made: Counter[int] = Counter()
        for key, now in self.sites_after.items():
            then = self.sites_before.get(key)
            count = now.allocations - (then.allocations if then else 0)
            held = now.allocated_bytes - (then.allocated_bytes if then else 0)
            if count:
                made[held // count] += count
        return made

    def calls(self) -> dict[str, int]:
        """Of each word, in this window."""
        assert self.after is not None
        calls = {**calls_between(self.before, self.after), **(self.frees or {})}
        return {call: count for call, count in calls.items() if count}


def calls_between(before: TracerCounters, after: TracerCounters) -> dict[str, int]:
    """Calls of each word that came in between."""
    calls = {call: n - before.calls.get(call, 0) for call, n in after.calls.items()}
    return {call: count for call, count in calls.items() if count}


def open_window(
    tracer: AllocationTracer, table: StackTable, number: int, plan: WindowPlan, prices: Prices,
    pid: int, band: Optional[Band] = None,
) -> Window:  # fmt: skip
    """Arm, watch, and stop watching allocations, those of a band if there is one; frees are still
    watched then."""
    before, sites = tracer.counters(), tracer.sites()
    asked_ns = monotonic_ns()
    smallest_bytes, largest_bytes = band or (0, None)
    tracer.arm(smallest_bytes, largest_bytes, plan.allocations)
    window = Window(number, plan, monotonic_ns(), before, sites, process_cpu_ns(pid), band)
    window.attach_ns = window.started_ns - asked_ns
    held = _watch(tracer, table, window, prices)
    window.ended_ns = monotonic_ns()
    cpu_ns = process_cpu_ns(pid)
    seen = tracer.counters()
    window.is_cut = not tracer.is_watching()
    tracer.stop_allocations()
    window.after = tracer.counters()
    # Until the last of them is taken out, calls are still watched in vain: as many as frees.
    window.vain_calls = window.after.frees - seen.frees
    window.sites_after = tracer.sites()
    _fit_to_allocations(window, seen)
    if cpu_ns is not None and window.cpu_before_ns is not None:
        window.target_cpu_ns = cpu_ns - window.cpu_before_ns
    table.learn(held)
    drain(tracer, table)
    _keep(tracer, table, window)
    return window


def _fit_to_allocations(window: Window, seen: TracerCounters) -> None:
    """Frees are watched for longer than allocations: count those of the same time. `seen` is of
    `ended_ns`, when nothing was taken out yet."""
    assert window.after is not None
    frees = {call: n for call, n in calls_between(window.before, seen).items() if call in FREES}
    first_ns, last_ns = window.after.first_ns, window.after.last_ns
    if first_ns is not None:
        # They are counted before we are told so; we may have to wait for a CPU then.
        window.started_ns = min(window.started_ns, first_ns)
    if window.after.is_capped and last_ns is not None:
        window.vain_calls = _missed(window)
        watched_ns, window.ended_ns = window.watched_ns, min(window.ended_ns, last_ns)
        frees = {call: n * window.watched_ns // watched_ns for call, n in frees.items()}
    window.frees = {call: frees.get(call, 0) for call in window.calls() if call in FREES}


def _missed(window: Window) -> int:
    """Allocations from the one that met the limit on: about one for each free."""
    assert window.after is not None
    frees = window.after.frees - window.before.frees
    return max(frees - window.allocations - window.passed_over, 0)


def _watch(
    tracer: AllocationTracer, table: StackTable, window: Window, prices: Prices
) -> list[StackSample]:
    """Until it is over; returns what was copied and is not unwound yet.

    Unwinding waits, as the first of a stack takes long, and the window must not: but for copies
    that would be too many to hold.
    """
    held: list[StackSample] = []
    at_a_time = tracer.limits.samples_at_a_time
    until_ns = window.started_ns + window.plan.duration_ns
    beat_ns = _BEAT_NS if window.band is None else _NARROW_BEAT_NS
    while (now_ns := monotonic_ns()) < until_ns:
        counters = tracer.counters()
        passed_over = counters.passed_over - window.before.passed_over
        cost_ns = prices.of(calls_between(window.before, counters), passed_over)
        if counters.is_capped or cost_ns >= window.plan.cost_ns:
            break
        has_room = len(held) < _MOST_HELD_SHARE * at_a_time
        samples = tracer.drain(at_a_time) if has_room else []
        held += samples
        if len(held) > _HELD_SHARE * at_a_time:
            table.learn(held[-_LEARNED_AT_A_TIME:])
            del held[-_LEARNED_AT_A_TIME:]
        elif len(samples) < at_a_time:
            time.sleep(min(beat_ns, until_ns - now_ns) / 1e9)
    return held


def drain(tracer: AllocationTracer, table: StackTable) -> None:
    """Unwind what was copied, a few at a time."""
    while samples := tracer.drain(tracer.limits.samples_at_a_time):
        table.learn(samples)


def _keep(tracer: AllocationTracer, table: StackTable, window: Window) -> None:
    began_ns, kept = window.started_ns - window.attach_ns, []
    blocks = {one.address: one for one in tracer.each_live() if one.time_ns >= began_ns}
    for block in blocks.values():
        stack = table.number(block.key)
        if stack is None:
            window.keyless_blocks += 1
            window.keyless_bytes += block.size
        else:
            kept.append(LiveBlock(block.address, stack, block.size, block.time_ns))
    window.kept = tuple(kept)
