"""Every allocation for the whole capture: what is outstanding at its end, exact where nothing was
lost. For short programs, test rigs, and those who said that they will pay for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakcase_collector.errors import OverBudget
from leakcase_collector.system.clock import NS_PER_SECOND, monotonic_ns, process_cpu_ns

from .recorder import Recorder
from .schedule import IDLE_SHARE, WindowPlan
from .telling import outstanding_by_key, outstanding_record, rates_record, window_record
from .window import Window, calls_between, drain

if TYPE_CHECKING:
    from .assembly import Assembly

#: Who asks for everything accepts so many times the loss of ``--max-slowdown``.
LIMIT_FACTOR = 10
#: The loss is judged over at least so long.
_JUDGED_NS = 3 * NS_PER_SECOND
#: When the rates are told, after the beginning.
_RATES_NS = NS_PER_SECOND


class Full:
    """One window as long as the capture."""

    def __init__(self, recorder: Recorder, assembly: Assembly, share: float) -> None:
        self._recorder = recorder
        self._assembly = assembly
        self._limit = LIMIT_FACTOR * share
        tracer, pid = assembly.tracer, recorder.pid
        before, cpu_ns = tracer.counters(), process_cpu_ns(pid)
        assembly.prepare()
        attach_ns = tracer.arm()
        plan = WindowPlan(0, 0, 0)
        self._window = Window(0, plan, monotonic_ns(), before, {}, cpu_ns, attach_ns=attach_ns)
        self._judged_ns, self._judged = self._window.started_ns, before
        self._judged_cpu_ns = cpu_ns
        self._has_told_rates = False
        drain(tracer, assembly.table)

    def step(self, now_ns: int) -> None:
        """Unwind what is new; stop where the target loses too much."""
        window, assembly = self._window, self._assembly
        if window.ended_ns:
            return
        assembly.prepare()
        drain(assembly.tracer, assembly.table)
        if not self._has_told_rates and now_ns - window.started_ns >= _RATES_NS:
            self._tell_rates()
        if now_ns - self._judged_ns >= _JUDGED_NS:
            self._judge(now_ns)

    def _judge(self, now_ns: int) -> None:
        counters = self._assembly.tracer.counters()
        cpu_ns = process_cpu_ns(self._recorder.pid)
        cost_ns = self._assembly.prices.of(calls_between(self._judged, counters))
        if cpu_ns is not None and self._judged_cpu_ns is not None:
            # What tracing costs is part of the CPU that the target uses meanwhile.
            own_ns = cpu_ns - self._judged_cpu_ns - cost_ns
            least_ns = IDLE_SHARE * (now_ns - self._judged_ns)
            if cost_ns > self._limit * max(own_ns, least_ns):
                self.finish()
                self._recorder.gap(
                    OverBudget(
                        "tracing every allocation was given up early: it cost the program about "
                        f"{100 * cost_ns / max(own_ns, least_ns):.0f} % of its CPU, and ten times "
                        "--max-slowdown is the limit. Use --trace bursts, or allow more."
                    ),
                    "calls-too-many",
                )
        self._judged_ns, self._judged, self._judged_cpu_ns = now_ns, counters, cpu_ns

    def finish(self) -> None:
        """Undo what is armed, then tell what is outstanding."""
        window, assembly = self._window, self._assembly
        if window.ended_ns:
            return
        tracer, table = assembly.tracer, assembly.table
        window.ended_ns = monotonic_ns()
        tracer.stop_allocations()
        self._close()
        window.detach_ns = tracer.detach()
        drain(tracer, table)
        if not self._has_told_rates:
            self._tell_rates()
        emit, middle_ns = self._recorder.emit, (window.started_ns + window.ended_ns) // 2
        keyed = outstanding_by_key(tracer.live(), tracer.sites(), middle_ns)
        window.keyless_blocks = sum(figures[1] for figures in keyed.values())
        window.keyless_bytes = sum(figures[2] for figures in keyed.values())
        outstanding, left_out, lost = outstanding_record(window, keyed, table)
        for record in table.records(outstanding.stacks):
            emit(record)
        emit(window_record(window, tracer.method, "full", lost, table.short(outstanding.stacks)))
        emit(outstanding)
        self._recorder.loss("stacks", left_out + lost)

    def _tell_rates(self) -> None:
        """So far."""
        self._has_told_rates = True
        window = self._window
        ended_ns, window.ended_ns = window.ended_ns, window.ended_ns or monotonic_ns()
        window.after = self._assembly.tracer.counters()
        cpu_ns = process_cpu_ns(self._recorder.pid)
        busy = None
        if cpu_ns is not None and window.cpu_before_ns is not None:
            window.target_cpu_ns = cpu_ns - window.cpu_before_ns
            busy = window.target_cpu_ns / window.watched_ns
        method, prices = self._assembly.tracer.method, self._assembly.prices
        self._recorder.emit(rates_record(window, method, prices, busy))
        window.ended_ns = ended_ns

    def _close(self) -> None:
        window = self._window
        window.after = self._assembly.tracer.counters()
        cpu_ns = process_cpu_ns(self._recorder.pid)
        if cpu_ns is not None and window.cpu_before_ns is not None:
            window.target_cpu_ns = cpu_ns - window.cpu_before_ns
