"""``plan`` and ``probes``: what a capture would do and cost, said before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .consent import LEVELS, WHAT_IT_DOES
from .errors import CollectorError, NotPermitted, NotSupported
from .pacing import rest_ns
from .probes.base import Cadence, Prediction, Probe
from .probes.subject import LiveSubject
from .redact import Redactor
from .system.clock import NS_PER_SECOND
from .system.door import System
from .system.identity import ProcessIdentity


@dataclass
class PlanContext:
    """A probe's context while nothing may be recorded: only `Probe.predict` is called with it."""

    system: System
    identity: ProcessIdentity
    redactor: Redactor
    interval_ns: int
    started_ns: int = 0

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def subject(self) -> LiveSubject:
        return LiveSubject(self.system, self.identity.pid, self.identity)

    def emit(self, record: Any) -> None:
        raise AssertionError("a prediction emits nothing")

    def sample(self, series: type[Any], taken_ns: int, **values: Optional[int]) -> None:
        raise AssertionError("a prediction samples nothing")

    def stopped(self, duration_ns: int) -> None:
        raise AssertionError("a prediction stops nothing")

    def gap(self, error: CollectorError, detail: Optional[str] = None) -> None:
        raise AssertionError("a prediction has no gaps")

    def loss(self, what: str, count: int) -> None:
        raise AssertionError("a prediction loses nothing")


@dataclass(frozen=True)
class PlannedProbe:
    """What one probe would do in a capture of this length."""

    probe: Probe
    prediction: Prediction
    calls: int

    @property
    def cpu_ns(self) -> int:
        """Of the collector, over the whole capture."""
        return self.calls * self.prediction.cpu_ns

    def as_map(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            **describe(type(self.probe)),
            "calls": self.calls,
            "predicted_cpu_ns_per_call": self.prediction.cpu_ns,
            "predicted_lock_ns_per_call": self.prediction.lock_ns,
            "predicted_stop_ns_per_call": self.prediction.stop_ns,
            "target_loses": self.probe.toll(),
        }


def concerns(probe: Probe, context: PlanContext) -> bool:
    """Whether the process has something for a probe, or may have, where that cannot be seen."""
    try:
        return probe.concerns(context)
    except CollectorError:
        return True


def plan(
    context: PlanContext, probes: Sequence[Probe], duration_ns: int, max_slowdown: float
) -> list[PlannedProbe]:
    """Every probe that this process has something for, with its predicted cost and number of
    calls."""
    out = []
    for probe in probes:
        if not concerns(probe, context):
            continue
        try:
            prediction = probe.predict(context)
        except (NotPermitted, NotSupported):
            prediction = Prediction(cpu_ns=0)  # It will leave a gap, which costs nothing.
        calls = _calls(probe, prediction, context.interval_ns, duration_ns, max_slowdown)
        out.append(PlannedProbe(probe, prediction, calls))
    return out


def _calls(
    probe: Probe, prediction: Prediction, interval_ns: int, duration_ns: int, max_slowdown: float
) -> int:
    if probe.cadence in (Cadence.ONCE, Cadence.END):
        return 1
    if probe.cadence is Cadence.ENDS:
        return 2
    if probe.cadence is Cadence.TICK:
        return duration_ns // interval_ns + 1
    calls, age_ns = 2, 0  # At the start and at the end.
    while age_ns < duration_ns:
        age_ns += max(rest_ns(prediction.cpu_ns, prediction.lock_ns, age_ns, max_slowdown), 1)
        calls += age_ns < duration_ns
    return calls


def describe(probe: type[Probe]) -> dict[str, Any]:
    """A probe in words, for ``probes --json``."""
    return {
        "probe": probe.name,
        "level": probe.level,
        "cadence": probe.cadence.value,
        "reads": probe.reads,
        "needs": probe.needs,
        "risk": probe.risk,
        "stops_target": probe.stops_target,
    }


def probes_table(probes: Sequence[type[Probe]]) -> str:
    """The probes for people, by level."""
    lines = []
    for level in WHAT_IT_DOES:
        of_level = [probe for probe in probes if probe.level == level]
        if not of_level:
            continue
        lines.append(f"{level}: {WHAT_IT_DOES[level]}")
        for probe in of_level:
            lines.append(f"  {probe.name:<20} {probe.cadence.value}: {probe.reads}")
            lines.append(f"  {'':<20} needs {probe.needs}")
            if probe.stops_target or not probe.risk.startswith("none"):
                lines.append(f"  {'':<20} what could go wrong: {probe.risk}")
    return "\n".join(lines)


def plan_table(planned: Sequence[PlannedProbe], duration_ns: int) -> str:
    """The plan for people: a line a probe, then the sum."""
    lines = [
        f"{'probe':<20} {'level':<12} {'calls':>6} {'CPU a call':>11} {'lock held':>10}  stops"
    ]
    for item in planned:
        cost = item.prediction
        lines.append(
            f"{item.probe.name:<20} {item.probe.level:<12} {item.calls:>6} "
            f"{_ms(cost.cpu_ns):>11} {_ms(cost.lock_ns) if cost.lock_ns else '-':>10}"
            f"  {_ms(cost.stop_ns) if cost.stop_ns else 'no'}"
        )
    lines.extend(
        f"{item.probe.name}: {toll}" for item in planned if (toll := item.probe.toll()) is not None
    )
    total = sum(item.cpu_ns for item in planned)
    lines.append(
        f"together about {total / NS_PER_SECOND:.2f} s of CPU in "
        f"{duration_ns / NS_PER_SECOND:.0f} s, {100 * total / duration_ns:.2f} % of one core; "
        "nothing was touched to say this"
    )
    asked = [level for level in LEVELS[1:] if any(i.probe.level == level for i in planned)]
    if asked:
        lines.append(
            f"of these levels each is asked for, or allowed by --allow: {', '.join(asked)}"
        )
    return "\n".join(lines)


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.3g} ms"
