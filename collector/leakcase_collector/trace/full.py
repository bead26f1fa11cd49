"""Every allocation for the whole capture: what is outstanding at its end, exact where nothing was
lost. For short programs, test rigs, and those who said that they will pay for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Optional

from leakcase_collector.errors import CollectorError, LimitReached, OverBudget
from leakcase_collector.system.clock import NS_PER_SECOND, monotonic_ns, process_cpu_ns

from .recorder import Recorder
from .schedule import IDLE_SHARE, WindowPlan
from .telling import outstanding_by_key, outstanding_record, rates_record, window_record
from .window import Window, calls_between, drain

if TYPE_CHECKING:
    from leakcase_collector.system.tracer_layout import TracerCounters

    from .assembly import Assembly
    from .watch import Watch

#: Who asks for everything accepts so many times the loss of ``--max-slowdown``.
LIMIT_FACTOR = 10
COMPLAINT = (
    "tracing every allocation was given up early: it cost the program about {percent} % of its "
    "CPU, and ten times --max-slowdown is the limit. Use --trace bursts, or allow more."
)
CUT_SHORT = (
    "what is watched throughout was given up early: leakcase-collect stood still for some seconds, "
    "as when it is stopped, or the process that holds its probes was ended. What was outstanding "
    "before is told. Let both run, and capture again."
)
#: The probes come out where they were not asked after for so long, and so many beats.
_SILENT_SECONDS, _SILENT_BEATS = 180.0, 3
#: The loss is judged over at least so long.
_JUDGED_NS = 3 * NS_PER_SECOND
#: When the rates are told, after the beginning.
_RATES_NS = NS_PER_SECOND
_FIRST_NS = NS_PER_SECOND // 4
_BEAT_SECONDS = 0.005


class Full:
    """One window as long as the capture, over all calls that a `Watch` has."""

    def __init__(
        self,
        recorder: Recorder,
        assembly: Assembly,
        watch: Watch,
        number: int,
        limit: float,
        complaint: Optional[str] = None,
    ) -> None:
        """`limit`: the share of its CPU at which the target loses too much; `complaint`: what is
        to be said then, None if nothing."""
        self._recorder = recorder
        self._assembly = assembly
        self._watch = watch
        self._limit = limit
        self._complaint = complaint
        self._has_told_rates = complaint is None
        tracer, cpu_ns = watch.tracer, process_cpu_ns(recorder.pid)
        beats_seconds = _SILENT_BEATS * recorder.interval_ns / NS_PER_SECOND
        tracer.expect_signs(max(_SILENT_SECONDS, beats_seconds))
        assembly.prepare()
        before = tracer.counters()
        attach_ns = tracer.arm()
        started_ns, plan = monotonic_ns(), WindowPlan(0, 0, 0)
        self._window = Window(number, plan, started_ns, before, {}, cpu_ns, attach_ns=attach_ns)
        self._judged_ns, self._judged, self._judged_cpu_ns = started_ns, before, cpu_ns
        #: When all probes were last seen to be in, and what was counted until then.
        self._whole_ns, self._counted = started_ns, before
        self._is_cut = False
        if complaint is not None:
            try:
                self._take_first_stacks()
            except Exception:
                tracer.detach()  # Nobody would judge what it costs.
                raise

    def _take_first_stacks(self) -> None:
        """At first every stack is new, and the room for their copies is that of some hundreds."""
        while monotonic_ns() < self._window.started_ns + _FIRST_NS:
            drain(self._watch.tracer, self._assembly.table)
            time.sleep(_BEAT_SECONDS)

    def reprice(self, factor: float) -> None:
        """Calls cost so many times what was expected."""
        self._watch = self._watch._replace(prices=self._watch.prices.times(factor))

    def step(self, now_ns: int, is_late: bool = False) -> bool:
        """Unwind what is new; stop where the target loses too much. Never takes a beat's time, late
        or not."""
        window = self._window
        if not window.ended_ns and not self._is_whole():
            self.finish()
        # First, so that no stack that cannot be unwound keeps it from being done.
        if not window.ended_ns and now_ns - self._judged_ns >= _JUDGED_NS:
            self._judge(now_ns)
        if window.ended_ns:
            return False
        self._drain()
        if not self._has_told_rates and now_ns - window.started_ns >= _RATES_NS:
            self._tell_rates()
        return False

    def _is_whole(self) -> bool:
        now_ns, counted = monotonic_ns(), self._watch.tracer.counters()
        self._is_cut = not self._watch.tracer.is_watching()
        if not self._is_cut:
            self._whole_ns, self._counted = now_ns, counted
        return not self._is_cut

    def _counts(self) -> TracerCounters:
        """What was counted while all probes were in."""
        return self._counted if self._is_cut else self._watch.tracer.counters()

    def _drain(self) -> None:
        tracer, table = self._watch.tracer, self._assembly.table
        samples = tracer.drain(tracer.limits.samples_at_a_time)
        if samples:
            self._assembly.prepare()  # It may be in code that was mapped since.
            table.learn(samples)
            drain(tracer, table)

    def _judge(self, now_ns: int) -> None:
        counters = self._watch.tracer.counters()
        cpu_ns = process_cpu_ns(self._recorder.pid)
        cost_ns = self._watch.prices.of(calls_between(self._judged, counters))
        if cpu_ns is not None and self._judged_cpu_ns is not None:
            # What tracing costs is part of the CPU that the target uses meanwhile.
            own_ns = cpu_ns - self._judged_cpu_ns - cost_ns
            least_ns = IDLE_SHARE * (now_ns - self._judged_ns)
            share = cost_ns / max(own_ns, least_ns)
            if share > self._limit:
                self.finish()
                if self._complaint is not None:
                    error = OverBudget(self._complaint.format(percent=f"{100 * share:.0f}"))
                    self._recorder.gap(error, "calls-too-many")
        self._judged_ns, self._judged, self._judged_cpu_ns = now_ns, counters, cpu_ns

    def finish(self) -> None:
        """Undo what is armed, then tell what is outstanding."""
        window, assembly = self._window, self._assembly
        if window.ended_ns:
            return
        tracer, table = self._watch.tracer, assembly.table
        self._is_whole()
        window.ended_ns = self._whole_ns
        # Frees are watched no longer than allocations: what is held is that of one moment.
        asked_ns = monotonic_ns()
        try:
            tracer.detach()
        except LimitReached as error:
            # It counts no more, and comes out later: what was counted is told all the same.
            self._recorder.gap(error, error.gap_detail)
        window.detach_ns = monotonic_ns() - asked_ns
        if self._is_cut:
            self._recorder.gap(CollectorError(CUT_SHORT), "cut-short")
        self._close()
        drain(tracer, table)
        if not self._has_told_rates:
            self._tell_rates()
        emit, middle_ns = self._recorder.emit, (window.started_ns + window.ended_ns) // 2
        # Of what came after all probes were last seen to be in, frees may not have been.
        live = (
            one for one in tracer.each_live() if not self._is_cut or one.time_ns <= self._whole_ns
        )
        keyed = outstanding_by_key(live, tracer.sites(), middle_ns)
        window.keyless_blocks = sum(figures[1] for figures in keyed.values())
        window.keyless_bytes = sum(figures[2] for figures in keyed.values())
        outstanding, left_out, lost = outstanding_record(window, keyed, table)
        for record in table.records(outstanding.stacks):
            emit(record)
        short, kind = table.short(outstanding.stacks), self._watch.kind
        emit(window_record(window, tracer.method, "full", lost, short, kind))
        emit(outstanding)
        self._recorder.loss("stacks", left_out + lost)

    def _tell_rates(self) -> None:
        """So far."""
        self._has_told_rates = True
        window = self._window
        ended_ns, window.ended_ns = window.ended_ns, window.ended_ns or monotonic_ns()
        window.after = self._counts()
        cpu_ns = process_cpu_ns(self._recorder.pid)
        busy = None
        if cpu_ns is not None and window.cpu_before_ns is not None:
            window.target_cpu_ns = cpu_ns - window.cpu_before_ns
            busy = window.target_cpu_ns / window.watched_ns
        method, prices = self._watch.tracer.method, self._watch.prices
        self._recorder.emit(rates_record(window, method, prices, busy))
        window.ended_ns = ended_ns

    def _close(self) -> None:
        window = self._window
        window.after = self._counts()
        cpu_ns = process_cpu_ns(self._recorder.pid)
        if cpu_ns is not None and window.cpu_before_ns is not None:
            window.target_cpu_ns = cpu_ns - window.cpu_before_ns
