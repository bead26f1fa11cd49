"""One probe within one capture: its context, its clockwork, and the account of what it cost."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from leakcase_bundle.records import Cost, Gap, Loss

from .errors import (
    CollectorError,
    LimitReached,
    Malformed,
    NotPermitted,
    NotSupported,
    OutputError,
    TargetGone,
)
from .probes.base import Prediction, Probe
from .system.clock import monotonic_ns, thread_cpu_ns
from .system.os_errors import translated
from .system.priority import in_a_hurry

if TYPE_CHECKING:
    from .casefile import CaseFile
    from .probes.subject import Subject
    from .redact import Redactor
    from .system.door import System
    from .system.identity import ProcessIdentity


class Capture(Protocol):
    """What a probe's context takes from the capture that it runs in."""

    case: CaseFile
    gaps: list[tuple[Gap, str]]

    @property
    def system(self) -> System: ...

    @property
    def identity(self) -> ProcessIdentity: ...

    @property
    def subject(self) -> Subject: ...

    @property
    def redactor(self) -> Redactor: ...

    @property
    def interval_ns(self) -> int: ...

    @property
    def started_ns(self) -> int: ...

    def take_sample(
        self, series: type[Any], taken_ns: int, values: dict[str, Optional[int]]
    ) -> None: ...


@dataclass
class ProbeRun:
    """A probe in this capture: what it cost so far and when it is due. Its `Context`, too."""

    probe: Probe
    session: Capture
    runs: int = 0
    cpu_ns: int = 0
    wall_ns: int = 0
    longest_wall_ns: int = 0
    due_ns: int = 0
    dead: bool = False
    stopped_ns: int = 0
    prediction: Optional[Prediction] = None
    #: Who learns from its records, and whether there were any.
    learners: tuple[Probe, ...] = ()
    has_taught: bool = False
    #: Its next look is before its own turn, for them; and what such looks have cost.
    is_early: bool = False
    early_cpu_ns: int = 0
    _gaps: set[tuple[str, Optional[str]]] = field(default_factory=set)
    _losses: dict[str, int] = field(default_factory=dict)

    @property
    def system(self) -> System:
        return self.session.system

    @property
    def identity(self) -> ProcessIdentity:
        return self.session.identity

    @property
    def subject(self) -> Subject:
        return self.session.subject

    @property
    def redactor(self) -> Redactor:
        return self.session.redactor

    @property
    def interval_ns(self) -> int:
        return self.session.interval_ns

    @property
    def started_ns(self) -> int:
        return self.session.started_ns

    @property
    def pid(self) -> int:
        return self.session.identity.pid

    def emit(self, record: Any) -> None:
        self.session.case.add(record)
        for probe in self.learners:
            probe.learn(record)
            self.has_taught = True

    def sample(self, series: type[Any], taken_ns: int, **values: Optional[int]) -> None:
        self.session.take_sample(series, taken_ns, values)

    def gap(self, error: CollectorError, detail: Optional[str] = None) -> None:
        key = (error.gap_reason, detail)
        if key in self._gaps:
            return
        self._gaps.add(key)
        cause = error.__cause__
        number = cause.errno if isinstance(cause, OSError) else None
        gap = Gap(monotonic_ns(), self.probe.name, error.gap_reason, detail, number)
        self.session.gaps.append((gap, str(error)))
        self.session.case.add(gap)

    def stopped(self, duration_ns: int) -> None:
        self.stopped_ns += duration_ns

    def loss(self, what: str, count: int) -> None:
        self._losses[what] = self._losses.get(what, 0) + count

    @property
    def tracing_cpu_ns(self) -> int:
        """What it cost for tracing, which paces itself."""
        return self.cpu_ns if self.probe.level == "trace" else self.early_cpu_ns

    def losses(self, now_ns: int) -> list[Loss]:
        return [Loss(now_ns, self.probe.name, w, c) for w, c in sorted(self._losses.items()) if c]

    def cost(self) -> Cost:
        predicted = self.prediction
        return Cost(
            self.probe.name,
            self.runs,
            self.cpu_ns,
            self.wall_ns,
            self.longest_wall_ns,
            predicted_cpu_ns=predicted.cpu_ns if predicted else None,
            predicted_wall_ns=None,
            target_stopped_ns=self.stopped_ns,
            predicted_stop_ns=predicted.stop_ns if predicted else None,
        )

    def predict(self) -> None:
        """Ask the probe what a call will cost; where that may not be seen, it stays unknown."""
        with contextlib.suppress(NotPermitted, NotSupported):
            self.prediction = self.probe.predict(self)

    def call(self, step: Callable[[Any, int], None], taken_ns: int) -> int:
        """Run one step of the probe, measured; returns its wall time. TargetGone passes.

        A probe that what it reads leads astray costs its own figures, never the capture.
        """
        cpu, wall = thread_cpu_ns(), monotonic_ns()
        try:
            # What holds the target up must not be last in line.
            with in_a_hurry() if self.probe.level == "trace" else contextlib.nullcontext():
                step(self, taken_ns)
        except (TargetGone, OutputError):
            raise
        except CollectorError as error:
            self.gap(error)
        except OSError as error:
            self.gap(_refused(self.probe, error))
        except (ArithmeticError, LookupError, ValueError, struct.error) as error:
            self.gap(_led_astray(self.probe, error))
        finally:
            spent = monotonic_ns() - wall
            self.runs += 1
            cpu_ns = thread_cpu_ns() - cpu
            self.cpu_ns += cpu_ns
            self.early_cpu_ns += cpu_ns if self.is_early else 0
            self.wall_ns += spent
            self.longest_wall_ns = max(self.longest_wall_ns, spent)
        return spent

    def close(self) -> None:
        """Undo what the probe put in place, never raising: the case is to be written to its end.

        What could not be undone in time is told; the kernel undoes it when we are gone.
        """
        with contextlib.suppress(CollectorError, OSError):
            try:
                self.probe.close()
            except LimitReached as error:
                self.gap(error, error.gap_detail)


def runs_of(probes: Sequence[Probe], session: Capture) -> list[ProbeRun]:
    """One for each, in their order; those from which others learn know of them."""
    runs = [ProbeRun(probe, session) for probe in probes]
    for run in runs:
        run.learners = tuple(p for p in probes if run.probe.name in p.learns_from)
    return runs


def _refused(probe: Probe, error: OSError) -> CollectorError:
    """For what the probe took for granted, as that a pipe can be had. Raises TargetGone."""
    met = translated(error, str(error.filename or f"all that {probe.name} needs"))
    met.__cause__ = error
    if isinstance(met, TargetGone):
        raise met
    return met


def _led_astray(probe: Probe, error: Exception) -> Malformed:
    """Without the error's own words, which may hold what was read."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    code = None if trace is None else trace.tb_frame.f_code
    place = "" if code is None or trace is None else f" in {code.co_name}, line {trace.tb_lineno}"
    return Malformed(
        f"{probe.name} met what it does not understand ({type(error).__name__}{place}). Please "
        f"report this sentence; --without {probe.name} captures the rest."
    )
