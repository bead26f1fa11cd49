"""A capture, from the first sample to the last frame.

The loop does four things at each beat: it makes sure that the target is still the same process,
calls the probes whose turn it is, writes a frame when one is due, and watches what all that costs.
However it ends (time, Ctrl-C, target gone, disk full), the case on disk is readable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Callable, Optional

from leakcase_bundle.records import (
    CaseEnd,
    CollectorSeries,
    Consent,
    Decision,
    Event,
    Gap,
    Loss,
    Mark,
)

from .casefile import CaseFile
from .decision import FirstLook
from .errors import CollectorError, NotConsented, OutputError, OverBudget, TargetGone
from .marks import MarkListener
from .outcome import Outcome
from .pacing import (
    CASE_LIMIT_BYTES,
    ENOUGH_LOOKS,
    MAX_INTERVAL_NS,
    MEMORY_LIMIT_BYTES,
    CpuBudget,
    flush_after_ns,
    rest_for_learners_ns,
    rest_ns,
)
from .probe_run import ProbeRun, runs_of
from .probes.base import Cadence, Probe
from .probes.subject import LiveSubject
from .redact import Redactor
from .seriesbuffer import SeriesBuffer
from .system.clock import (
    Rhythm,
    boot_offset_ns,
    monotonic_ns,
    own_cpu_ns,
    own_rss_bytes,
)
from .system.door import System
from .system.identity import ProcessIdentity
from .system.priority import Turns
from .system.signals import StopRequest

_SUSPENDED_NS = 1_000_000_000


class Session:
    """One capture of one process into one case."""

    def __init__(
        self,
        system: System,
        identity: ProcessIdentity,
        case: CaseFile,
        redactor: Redactor,
        probes: Sequence[Probe],
        *,
        interval_ns: int,
        duration_ns: Optional[int],
        max_slowdown: float,
        max_pause_ns: int,
        show: Optional[Callable[[Session, int], None]] = None,
        settled: Callable[[], object] = lambda: None,
    ) -> None:
        self.system = system
        self.identity = identity
        self.subject = LiveSubject(system, identity.pid, identity)
        self.case = case
        self.redactor = redactor
        self.interval_ns = interval_ns
        self.duration_ns = duration_ns
        self.max_slowdown = max_slowdown
        self.max_pause_ns = max_pause_ns
        self.gaps: list[tuple[Gap, str]] = []
        self.look = FirstLook()
        self.samples = 0
        self.started_ns = 0
        self._show = show
        self._settled = settled
        self._series = SeriesBuffer()
        self._turns = Turns(system)
        self._runs = runs_of(probes, self)
        self._missed = 0
        self._next_flush_ns = 0
        self._marks: Optional[MarkListener] = None

    # --- what probes reach through their context --------------------------------------------------

    def take_sample(
        self, series: type[Any], taken_ns: int, values: dict[str, Optional[int]]
    ) -> None:
        """Keep one row; some figures also feed the live line and the first look's decision."""
        self._series.add(series, taken_ns, values)
        self.look.note(series, taken_ns, values)

    # --- the capture ----------------------------------------------------------------------------

    def run(
        self, stop: StopRequest, consents: Sequence[Consent], refused: Sequence[Probe]
    ) -> Outcome:
        """Capture until the time is up, a signal, or the target's end. Never raises for those."""
        end = "failed"
        error: Optional[CollectorError] = None
        decision: Optional[Decision] = None
        try:
            for consent in consents:
                self.case.add(consent)
            for probe in refused:
                ProbeRun(probe, self).gap(NotConsented(f"{probe.name} was not allowed."))
            self._listen_for_marks()
            self._begin()
            end = self._loop(stop)
            decision = self._finish(end)
            if end == "duration" and stop.is_requested:  # while the last probe was at work
                end = "interrupted"
        except TargetGone as gone:
            end, error = "target-gone", gone
            self._finish_without_target()
        except OutputError as failure:
            end, error = "disk-full", failure
        finally:
            for run in self._runs:
                run.close()
            if self._marks is not None:
                self._marks.close()
        ended_ns = monotonic_ns()
        if end != "disk-full":
            try:
                decision = decision or self._decide(ended_ns)
                self._close_case(end, ended_ns)
            except OutputError as failure:
                end, error = "disk-full", failure
        return Outcome(
            end, stop.signal_number, self.samples, decision, self.gaps,
            self.started_ns, ended_ns, error,
        )  # fmt: skip

    def _begin(self) -> None:
        """Start every probe in the registered order, which puts early what is cheap.

        What only reads text takes a tenth of a second of CPU and is done at normal priority: at
        the lowest, a busy host would make ten seconds of it, and the series would begin with a
        hole. What reads the target's memory waits until the host has been given way.
        """
        self.started_ns = monotonic_ns()
        for run in self._runs:
            if run.probe.level == "observe":
                self._begin_one(run)
        self.samples += 1
        self._settled()
        self._turns.look()
        for run in self._runs:
            if run.probe.level != "observe":
                self._begin_one(run)
        self._flush(monotonic_ns())
        self._budget = CpuBudget(monotonic_ns(), self._paced_cpu_ns())

    def _begin_one(self, run: ProbeRun) -> None:
        run.predict()
        if not self._fits(run):
            return
        self._call(run, run.probe.begin, monotonic_ns())
        if run.probe.cadence is Cadence.TICK:
            self._call(run, run.probe.sample, self.started_ns)
        elif run.probe.cadence is Cadence.PACED:
            self._pace(run, monotonic_ns())

    def _fits(self, run: ProbeRun) -> bool:
        """Whether the probe's longest hold of the target stays under --max-pause."""
        predicted = run.prediction
        if predicted is None or max(predicted.lock_ns, predicted.stop_ns) <= self.max_pause_ns:
            return True
        seconds = max(predicted.lock_ns, predicted.stop_ns) / 1e9
        what = "stop the target" if predicted.stop_ns else "hold a lock of the target"
        run.gap(
            OverBudget(
                f"{run.probe.name} was left out: it would {what} for about "
                f"{seconds:.2g} s. Allow it with --max-pause {max(seconds * 2, 1):.0f}s."
            )
        )
        run.dead = True
        return False

    def _loop(self, stop: StopRequest) -> str:
        wake = [stop.wake_fd]
        if self.identity.pidfd is not None:
            wake.append(self.identity.pidfd)
        if self._marks is not None:
            wake.append(self._marks.descriptor)
        rhythm = Rhythm(self.started_ns + self.interval_ns, self.interval_ns, wake)
        sleep_offset = boot_offset_ns()
        deadline = None if self.duration_ns is None else self.started_ns + self.duration_ns
        while True:
            tick = rhythm.wait()
            now = monotonic_ns()
            if stop.is_requested:
                return "interrupted"
            self.identity.require_alive()
            if tick.woken_by:
                self._take_marks(now)
                continue
            # The clock of the series stands still while the host sleeps: say that it did.
            if boot_offset_ns() - sleep_offset > _SUSPENDED_NS:
                sleep_offset = boot_offset_ns()
                self.case.add(Event(now, "clock-step"))
            self._missed += tick.missed
            self._tick(now)
            if deadline is not None and now >= deadline - self.interval_ns // 2:
                return "duration"
            if self.case.written_bytes > CASE_LIMIT_BYTES:
                return "budget"
            if self._is_over_budget(now):
                self.interval_ns = min(2 * self.interval_ns, MAX_INTERVAL_NS)
                self.case.add(Event(now, "back-off"))
                rhythm = Rhythm(now + self.interval_ns, self.interval_ns, wake)

    def _tick(self, now: int) -> None:
        if self.identity.has_executed():
            self._after_exec(now)
        for run in self._runs:
            if run.dead:
                continue
            if run.probe.cadence is Cadence.TICK:
                self._call(run, run.probe.sample, now)
            elif run.probe.cadence is Cadence.PACED and now >= run.due_ns:
                self._call(run, run.probe.sample, now)
                self._pace(run, now)
        self.samples += 1
        if now >= self._next_flush_ns:
            self._flush(now)
        if self._show is not None:
            self._show(self, now)

    def _call(self, run: ProbeRun, step: Callable[[Any, int], None], taken_ns: int) -> None:
        run.call(step, taken_ns)
        self._turns.look()

    def _after_exec(self, now: int) -> None:
        self.case.add(Event(now, "exec"))
        for run in self._runs:
            if not run.dead:
                self._call(run, run.probe.executed, now)
            run.due_ns = 0

    def _pace(self, run: ProbeRun, now: int) -> None:
        """The next turn, from what an average call cost; holding the lock counts as wall time."""
        calls = max(run.runs, 1)
        lock_ns = run.wall_ns // calls if run.prediction and run.prediction.lock_ns else 0
        age_ns = now - self.started_ns
        pause_ns = rest_ns(run.cpu_ns // calls, lock_ns, age_ns, self.max_slowdown)
        early_ns = pause_ns
        if run.has_taught and calls < ENOUGH_LOOKS:
            early_ns = rest_for_learners_ns(pause_ns, run.cpu_ns // calls, self.duration_ns)
        run.is_early = early_ns < pause_ns
        run.due_ns = now + early_ns

    def _is_over_budget(self, now: int) -> bool:
        if own_rss_bytes(self.system) > MEMORY_LIMIT_BYTES:
            for run in self._runs:
                run.dead = run.dead or run.probe.cadence is Cadence.PACED
        return self._budget.is_exceeded(now, self._paced_cpu_ns())

    def _paced_cpu_ns(self) -> int:
        """Our CPU without that of tracing, which paces itself by the target's loss and its own."""
        return own_cpu_ns() - sum(run.tracing_cpu_ns for run in self._runs)

    # --- marks ------------------------------------------------------------------------------------

    def _listen_for_marks(self) -> None:
        try:
            self._marks = MarkListener(self.identity.pid)
        except OSError:
            # Another capture of this very process and pid cannot be; a seccomp filter can.
            self._marks = None

    def _take_marks(self, now: int) -> None:
        label = self._marks.accept() if self._marks is not None else None
        if label is not None:
            self.case.add(Mark(now, label))

    # --- the end ----------------------------------------------------------------------------------

    def _finish(self, end: str) -> Decision:
        for run in self._runs:
            if not run.dead:
                self._call(run, run.probe.finish, monotonic_ns())
        return self._decide(monotonic_ns())

    def _finish_without_target(self) -> None:
        """What does not need the target may still be told: the OOM killer's word about its end."""
        for run in self._runs:
            with contextlib.suppress(TargetGone, OutputError):
                if not run.dead:
                    self._call(run, run.probe.finish, monotonic_ns())

    def _decide(self, now: int) -> Decision:
        decision = self.look.decide(now)
        self.case.add(decision)
        return decision

    def _flush(self, now: int) -> None:
        self.take_sample(
            CollectorSeries,
            now,
            {
                "cpu_ns": own_cpu_ns(),
                "rss_bytes": own_rss_bytes(self.system),
                "case_bytes": self.case.written_bytes,
                "missed_ticks": self._missed,
                "interval_ns": self.interval_ns,
            },
        )
        for record in self._series.drain():
            self.case.add(record)
        self.case.flush()
        self._next_flush_ns = now + flush_after_ns(now - self.started_ns)

    def _close_case(self, end: str, now: int) -> None:
        if self._missed:
            self.case.add(Loss(now, "session", "ticks", self._missed))
        for run in self._runs:
            for loss in run.losses(now):
                self.case.add(loss)
            self.case.add(run.cost())
        self._flush(now)
        self.case.add(CaseEnd(now, end))
        self.case.finish()


__all__ = ["Outcome", "ProbeRun", "Session"]
