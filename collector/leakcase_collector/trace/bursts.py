"""Short windows over the whole capture, and later looks at what they left."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Optional

from leakcase_collector.errors import CollectorError, NoTime, OverBudget, TargetGone
from leakcase_collector.system.clock import (
    NS_PER_SECOND,
    monotonic_ns,
    own_cpu_ns,
    process_cpu_ns,
)

from .bands import Band, SizeGrowth
from .recorder import Recorder
from .schedule import Schedule, WindowPlan
from .survivors import Cohort, Survivors
from .telling import rates_record, sites_record, survival_record, window_record
from .window import Window, calls_between, open_window

if TYPE_CHECKING:
    from .assembly import Assembly
    from .watch import Watch

#: For so long frees are watched after a window whose blocks hold nothing that tells them apart.
LINGER_NS = NS_PER_SECOND
_LEAST_LINGER_NS = int(0.6 * LINGER_NS)  # A beat is a second, and the window took a part of it.
#: Of a window's blocks; below it they are told apart well enough.
WEAK_SHARE = 0.1
#: Of the time between two beats, a window at most takes this.
_WINDOW_SHARE = 0.4
#: And it ends before this share of the time is over.
_ENDS_BY_SHARE = 0.75
_TOO_DEAR = (
    "allocations were watched for a moment only: the program calls its allocator so often, or "
    "works so little, that more would cost it over --max-slowdown. Capture for longer, or allow "
    "more."
)
_NO_TIME = (
    "allocations were watched for a moment only: the capture was too short for more, or this host "
    "too busy. Capture for longer, or when the host is less busy."
)
_CUT_SHORT = (
    "a window in which allocations were watched was left out: leakcase-collect stood still for "
    "some seconds, as when it is stopped, or the process that holds its probes was ended. Let "
    "both run."
)


class Bursts:
    """Called at each beat of the capture, does what is due."""

    def __init__(
        self,
        recorder: Recorder,
        assembly: Assembly,
        watch: Watch,
        duration_ns: int,
        share: float,
        numbers: Iterator[int],
        sizes: Optional[SizeGrowth] = None,
    ) -> None:
        """`duration_ns` is what is left of the capture, `share` what the target may lose by this;
        `numbers` of the windows, no two alike. `sizes`: which of them grow; None: nobody tells."""
        self._recorder = recorder
        self._tools = assembly
        self._watch = watch
        self._numbers = numbers
        self._sizes = sizes
        self._band: Optional[Band] = None
        self._survivors = Survivors()
        self._lingering: Optional[Window] = None
        self._windows = 0
        self._has_said_cut_short = False
        self._cpu_at_start_ns = process_cpu_ns(recorder.pid) or 0
        self._started_ns = monotonic_ns()
        longest_ns = int(_WINDOW_SHARE * recorder.interval_ns)
        self._schedule = Schedule(self._started_ns, duration_ns, share, watch.prices, longest_ns)

    def reprice(self, factor: float) -> None:
        """Calls cost so many times what was expected."""
        prices = self._watch.prices.times(factor)
        self._watch = self._watch._replace(prices=prices)
        self._schedule.prices = prices

    def step(self, now_ns: int, is_late: bool = False) -> bool:
        """At most one of: undo a window, open one, look at what one left; False if none was due.

        `is_late`: the next beat cannot be relied on, so that nothing may wait for it.
        Where that fails, there are no more windows: nothing may stay armed, or cost unaccounted.
        """
        try:
            return self._step(now_ns, is_late)
        except Exception:
            self._lingering = None
            self._schedule.give_up()
            self._watch.tracer.detach()
            raise

    def _step(self, now_ns: int, is_late: bool) -> bool:
        if self._lingering is not None:
            is_due = now_ns >= self._lingering.ended_ns + _LEAST_LINGER_NS
            if is_due:
                self._settle(self._lingering)
            return is_due
        self._aim(now_ns)
        plan = self._schedule.plan(now_ns, self._target_cpu_ns())
        if plan is None:
            return self._look(now_ns)
        if self._windows:
            self._wait_at_random(plan)
        cpu_ns = own_cpu_ns()
        self._tools.prepare()
        tools = self._tools
        window = open_window(
            self._watch.tracer, tools.table, next(self._numbers), plan, self._watch.prices,
            self._recorder.pid, self._band if plan.is_narrow else None,
        )  # fmt: skip
        window.own_cpu_ns = own_cpu_ns() - cpu_ns
        if window.is_cut:
            self._leave_out(window)
            return True
        self._windows += 1
        if not self._wants_to_linger(window):
            self._settle(window)
        elif is_late or self._recorder.interval_ns > 2 * LINGER_NS:
            time.sleep(LINGER_NS / NS_PER_SECOND)
            self._settle(window)
        else:
            self._lingering = window
        return True

    def finish(self) -> None:
        """Undo what is armed, and look once more at everything that is followed."""
        if self._lingering is not None:
            self._settle(self._lingering)
        with suppress(TargetGone):
            for cohort in self._survivors.cohorts:
                self._look_at(cohort)
        if self._watch.labels is not None:
            for record in self._watch.labels.records(self._recorder.redactor):
                self._recorder.emit(record)
        # Objects are made so often that a first window of them is mostly the only one.
        if self._windows <= (1 if self._watch.kind == "allocator" else 0):
            if self._schedule.is_too_dear:
                self._recorder.gap(OverBudget(_TOO_DEAR), "calls-too-many")
            else:
                self._recorder.gap(NoTime(_NO_TIME), None)

    def _target_cpu_ns(self) -> int:
        cpu_ns = process_cpu_ns(self._recorder.pid)
        return 0 if cpu_ns is None else cpu_ns - self._cpu_at_start_ns

    def _busy(self, now_ns: int) -> float:
        return self._target_cpu_ns() / max(now_ns - self._started_ns, 1)

    def _wait_at_random(self, plan: WindowPlan) -> None:
        """Beats are regular, as is what many programs do: short windows would all meet it, or none.
        The first, which tells the rates, need not wait."""
        spare_ns = _ENDS_BY_SHARE * min(self._recorder.interval_ns, NS_PER_SECOND)
        time.sleep(random.uniform(0, max(spare_ns - plan.duration_ns, 0)) / NS_PER_SECOND)

    def _aim(self, now_ns: int) -> None:
        """Watch what grows, if that is known by now and most allocations are of other sizes."""
        if self._sizes is None or not self._windows:
            return
        self._band = self._sizes.band()
        share = None if self._band is None else self._sizes.share_of(self._band)
        self._schedule.narrow(now_ns, share)

    # --- a window's end ---------------------------------------------------------------------------

    def _wants_to_linger(self, window: Window) -> bool:
        if not window.kept:
            return False
        seconds = window.watched_ns / NS_PER_SECOND
        calls = {call: int(count / seconds) for call, count in window.calls().items()}
        cpu_ns = self._target_cpu_ns()
        if not self._schedule.lingers(monotonic_ns(), cpu_ns, calls, LINGER_NS):
            return False
        trial = Survivors()
        cohort = self._follow(window, trial)
        return cohort is not None and trial.weak_share(cohort) > WEAK_SHARE

    def _settle(self, window: Window) -> None:
        """Take the fingerprints while frees are watched, then undo all, then drop the dead."""
        self._lingering = None
        tracer, cpu_ns = self._watch.tracer, own_cpu_ns()
        window.linger_ns = max(monotonic_ns() - window.ended_ns, 0)
        cohort = self._follow(window, self._survivors)
        if cohort is not None and not tracer.is_watching():
            # What lies there now may be another block.
            self._survivors.leave_out(cohort)
            self._say_cut_short()
        calls = self._undo(window)
        self._schedule.account(
            monotonic_ns(), window.watched_ns, window.calls(), calls,
            own_cpu_ns() - cpu_ns + window.own_cpu_ns, window.passed_over,
        )  # fmt: skip
        self._learn_sizes(window)
        self._tell(window)

    def _learn_sizes(self, window: Window) -> None:
        if self._sizes is None:
            return
        if window.band is None:
            self._sizes.take_made(window.made())
        else:
            self._sizes.take_seen(window.band, window.allocations, window.passed_over)

    def _undo(self, window: Window) -> dict[str, int]:
        """What was called until all was out of the target, in vain too."""
        tracer, asked_ns = self._watch.tracer, monotonic_ns()
        tracer.detach()
        window.detach_ns = monotonic_ns() - asked_ns
        live = {block.address: block.time_ns for block in tracer.each_live()}
        self._survivors.drop_dead(live)
        followed = self._survivors.addresses()
        tracer.forget(address for address in live if address not in followed)
        calls = calls_between(window.before, tracer.counters())
        dearest = self._watch.prices.dearest
        return {**calls, dearest: calls.get(dearest, 0) + window.vain_calls}

    def _leave_out(self, window: Window) -> None:
        """One that was cut short: it cost what it did."""
        calls = self._undo(window)
        self._schedule.account(monotonic_ns(), 0, {}, calls, window.own_cpu_ns, window.passed_over)
        self._say_cut_short()

    def _say_cut_short(self) -> None:
        if not self._has_said_cut_short:
            self._recorder.gap(CollectorError(_CUT_SHORT), "cut-short")
        self._has_said_cut_short = True

    def _follow(self, window: Window, survivors: Survivors) -> Optional[Cohort]:
        """None where memory may not be read, or is no more: the window is told all the same."""
        if self._tools.memory is None:
            return None
        with suppress(TargetGone), self._tools.memory() as memory:
            reader = self._watch.reader(memory)
            return survivors.follow(window.number, window.ended_ns, window.kept, reader)
        return None

    def _tell(self, window: Window) -> None:
        tools, emit = self._tools, self._recorder.emit
        attach = self._watch.tracer.method
        sites, left_out, lost = sites_record(window, tools.table)
        for record in tools.table.records(sites.stacks):
            emit(record)
        if self._windows == 1 and self._watch.kind == "allocator":
            busy = self._busy(monotonic_ns())
            emit(rates_record(window, attach, self._watch.prices, busy))
        short = tools.table.short(sites.stacks)
        emit(window_record(window, attach, "bursts", lost, short, self._watch.kind))
        emit(sites)
        self._recorder.loss("stacks", left_out + lost)

    # --- later looks ------------------------------------------------------------------------------

    def _look(self, now_ns: int) -> bool:
        """At the window whose look is due for longest; False if none is."""
        due = [
            (due_ns, cohort.window, cohort)
            for cohort in self._survivors.cohorts
            if (due_ns := cohort.due_ns()) is not None and due_ns <= now_ns
        ]
        if due:
            self._look_at(min(due)[2])
        return bool(due)

    def _look_at(self, cohort: Cohort) -> None:
        if self._tools.memory is None or not (cohort.followed or cohort.dead or cohort.unread):
            return
        with self._tools.memory() as memory:
            taken_ns = monotonic_ns()
            looks = self._survivors.look(cohort, self._watch.reader(memory))
            if self._watch.labels is not None:
                names = self._watch.type_names(memory)
                self._watch.labels.look(memory, cohort.followed, taken_ns, names)
        for record in self._tools.table.records(look.stack for look in looks):
            self._recorder.emit(record)
        self._recorder.emit(survival_record(cohort, taken_ns, looks))
