"""A small `Context` for tests of single probes: it keeps what a probe says in lists.

Everything goes through the format's own checks, so a probe that would write an undeclared column,
a word outside its vocabulary or an unredacted string fails here as it would in a capture.
"""

from __future__ import annotations

from typing import Any, Optional

from leakcase_bundle.records import Gap, Loss
from leakcase_bundle.schema import spec_of, to_map
from leakcase_collector.errors import CollectorError
from leakcase_collector.probes.base import Probe
from leakcase_collector.probes.subject import LiveSubject, Subject
from leakcase_collector.redact import Redactor
from leakcase_collector.system.clock import monotonic_ns
from leakcase_collector.system.door import System

SECOND_NS = 1_000_000_000


class RecordingContext:
    """Keeps `records`, `rows` (series class, values with taken_ns), `gaps` and `losses`."""

    def __init__(
        self,
        pid: int,
        system: Optional[System] = None,
        identity: Any = None,
        redactor: Optional[Redactor] = None,
        interval_ns: int = SECOND_NS,
    ) -> None:
        self.pid = pid
        self.system = System() if system is None else system
        self.identity = identity
        self.subject: Subject = LiveSubject(self.system, pid, identity)
        self.redactor = Redactor() if redactor is None else redactor
        self.interval_ns = interval_ns
        self.started_ns = monotonic_ns()
        self.records: list[Any] = []
        self.rows: list[tuple[type[Any], dict[str, Optional[int]]]] = []
        #: (gap_reason, detail), each once, as the session writes them.
        self.gaps: list[tuple[str, Optional[str]]] = []
        self.losses: list[tuple[str, int]] = []
        self.stops_ns: list[int] = []

    def emit(self, record: Any) -> None:
        to_map(record)
        self.records.append(record)

    def sample(self, series: type[Any], taken_ns: int, **values: Optional[int]) -> None:
        columns = {field.name for field in spec_of(series).fields if field.shape == "column"}
        assert set(values) <= columns, f"undeclared: {sorted(set(values) - columns)}"
        row: dict[str, Optional[int]] = {"taken_ns": taken_ns, **values}
        to_map(series(**{name: [value] for name, value in row.items()}))
        self.rows.append((series, row))

    def gap(self, error: CollectorError, detail: Optional[str] = None) -> None:
        to_map(Gap(0, "session", error.gap_reason, detail))
        if (error.gap_reason, detail) not in self.gaps:
            self.gaps.append((error.gap_reason, detail))

    def loss(self, what: str, count: int) -> None:
        to_map(Loss(0, "session", what, count))
        self.losses.append((what, count))

    def stopped(self, duration_ns: int) -> None:
        self.stops_ns.append(duration_ns)

    # What tests ask

    def emitted(self, kind: type[Any]) -> list[Any]:
        """The records of one class, in order."""
        return [record for record in self.records if isinstance(record, kind)]

    def rows_of(self, series: type[Any]) -> list[dict[str, Optional[int]]]:
        """The rows of one series, in order."""
        return [row for kind, row in self.rows if kind is series]


def run(probe: Probe, context: RecordingContext, samples: int = 1) -> RecordingContext:
    """One whole capture by one probe, its ticks one interval apart and not waited for."""
    taken_ns = 100 * SECOND_NS
    probe.begin(context, taken_ns)
    for _ in range(samples):
        probe.sample(context, taken_ns)
        taken_ns += context.interval_ns
    probe.finish(context, taken_ns)
    return context
