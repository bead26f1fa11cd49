"""A day's case from a short one: the recorded samples go on as they went, a day long.

The collector's own parts decide what is written when: `SeriesBuffer`, `flush_after_ns` and, for
what is read as its cost allows, `rest_ns` with the cost that was recorded. Only the samples are
not taken but continued: every figure repeats the recorded steps from where it stood. Frames hold
at most two minutes, less than the recording, so that the repetition does not compress away.
"""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from leakcase_bundle import Reader, Writer
from leakcase_bundle.records import (
    CaseEnd,
    CaseHeader,
    CgroupSeries,
    CollectorSeries,
    Cost,
    Decision,
    DescriptorGroup,
    DescriptorSeries,
    GpuMemory,
    HostSeries,
    Region,
    RegionSnapshot,
    RollupSeries,
    SocketGroup,
    SocketSeries,
    StatSeries,
    StatusSeries,
    ThreadGroup,
    ThreadSeries,
)
from leakcase_collector.pacing import flush_after_ns, rest_ns
from leakcase_collector.seriesbuffer import SeriesBuffer

SECOND_NS = 1_000_000_000
#: Which probe's cost paces a series or a snapshot.
_PROBE_OF: dict[type[Any], str] = {
    StatusSeries: "status", StatSeries: "stat", HostSeries: "host", CgroupSeries: "cgroup",
    DescriptorSeries: "descriptors", ThreadSeries: "threads", SocketSeries: "sockets",
    RollupSeries: "rollup", RegionSnapshot: "regions", DescriptorGroup: "descriptors",
    ThreadGroup: "threads", SocketGroup: "sockets", GpuMemory: "gpu",
}  # fmt: skip
_LAST_WORDS = (CaseEnd, Cost, Decision)
_MAX_SLOWDOWN = 0.01

Row = dict[str, int | None]


def read_records(case: Path) -> list[Any]:
    """All records of a case."""
    with case.open("rb") as file:
        return list(Reader(file))


def rows_of(records: Sequence[Any], series: type[Any]) -> list[Row]:
    """The rows of one series, over all its records."""
    rows: list[Row] = []
    for record in records:
        if type(record) is series:
            columns = {k: v for k, v in vars(record).items() if v is not None}
            rows.extend(
                dict(zip(columns, values, strict=True))
                for values in zip(*columns.values(), strict=True)
            )
    return rows


class _Continued:
    """Rows for ever: the recorded steps, again and again, from where each figure stands."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._now = dict(rows[0])
        self._steps = cycle(list(_steps(rows)) or [{}])

    def next_row(self) -> Row:
        row = dict(self._now)
        for name, step in next(self._steps).items():
            before = self._now.get(name)
            self._now[name] = None if before is None or step is None else before + step
        return row


def _steps(rows: Sequence[Row]) -> Iterator[Row]:
    for before, after in zip(rows, rows[1:], strict=False):
        step: Row = {}
        for name, value in after.items():
            earlier = before.get(name)
            step[name] = 0 if value is None or earlier is None else value - earlier
        yield step


@dataclasses.dataclass
class _Paced:
    """Something that is read as its cost allows: when it is due, and what it costs."""

    cost: Cost
    due_ns: int = 0
    turns: int = 0

    def is_due(self, age_ns: int) -> bool:
        """Whether it is due at this age; if so, the next turn is set."""
        if age_ns < self.due_ns:
            return False
        self.turns += 1
        runs = max(self.cost.runs, 1)
        lock_ns = self.cost.wall_ns // runs if self.cost.probe in ("rollup", "regions") else 0
        self.due_ns = age_ns + rest_ns(self.cost.cpu_ns // runs, lock_ns, age_ns, _MAX_SLOWDOWN)
        return True


class _Day:
    """Writes the long case."""

    def __init__(self, recorded: Sequence[Any], writer: Writer) -> None:
        self._writer = writer
        self._recorded = recorded
        self._costs = {record.probe: record for record in recorded if type(record) is Cost}
        self._buffer = SeriesBuffer()
        self._each_tick: dict[type[Any], _Continued] = {}
        self._at_times: dict[type[Any], tuple[_Paced, _Continued]] = {}
        self._sort_series()
        self._turns = _snapshot_turns(recorded)

    def _sort_series(self) -> None:
        ticks = len(rows_of(self._recorded, StatusSeries))
        for series, probe in _PROBE_OF.items():
            rows = rows_of(self._recorded, series) if series.__name__.endswith("Series") else []
            if len(rows) > ticks // 2:
                self._each_tick[series] = _Continued(rows)
            elif rows:
                self._at_times[series] = (_Paced(self._costs[probe]), _Continued(rows))

    def write(self, seconds: int) -> None:
        """The whole case: one tick a second."""
        header = next(r for r in self._recorded if type(r) is CaseHeader)
        self._writer.add(
            dataclasses.replace(
                header, requested_duration_ns=seconds * SECOND_NS, interval_ns=SECOND_NS
            )
        )
        once = (*_PROBE_OF, CollectorSeries, Region, CaseHeader, *_LAST_WORDS)
        for record in self._recorded:
            if type(record) not in once:
                self._writer.add(record)
        start_ns = rows_of(self._recorded, StatusSeries)[0]["taken_ns"] or 0
        next_flush_ns = 0
        for tick in range(seconds):
            age_ns = tick * SECOND_NS
            self._tick(start_ns + age_ns, age_ns)
            if age_ns >= next_flush_ns:
                self._flush()
                next_flush_ns = age_ns + flush_after_ns(age_ns)
        self._end(start_ns + seconds * SECOND_NS)

    def _tick(self, taken_ns: int, age_ns: int) -> None:
        for series, rows in self._each_tick.items():
            self._sample(series, taken_ns, rows.next_row())
        for series, (paced, rows) in self._at_times.items():
            if paced.is_due(age_ns):
                self._sample(series, taken_ns, rows.next_row())
        for paced, turn in self._turns:
            if paced.is_due(age_ns):
                for record in turn:
                    self._writer.add(_moved(record, taken_ns, paced.turns))

    def _sample(self, series: type[Any], taken_ns: int, row: Row) -> None:
        # The recorded clock is not quite even, and that costs bytes: keep its last digits.
        jitter_ns = (row.pop("taken_ns") or 0) % 1_000_000
        self._buffer.add(series, taken_ns + jitter_ns, row)

    def _flush(self) -> None:
        for record in self._buffer.drain():
            self._writer.add(record)
        self._writer.flush()

    def _end(self, now_ns: int) -> None:
        for record in self._recorded:
            if type(record) in _LAST_WORDS:
                self._writer.add(_moved(record, now_ns, 0))
        self._flush()
        self._writer.finish()


def _moved(record: Any, taken_ns: int, turn: int) -> Any:
    """The record at another time, and as a part of another snapshot where it is part of one."""
    new = {"taken_ns": taken_ns, "snapshot": turn}
    return dataclasses.replace(record, **{k: v for k, v in new.items() if hasattr(record, k)})


def _snapshot_turns(recorded: Sequence[Any]) -> list[tuple[_Paced, list[Any]]]:
    """One turn of each kind of snapshot: the last but one, as the last is larger on purpose."""
    costs = {record.probe: record for record in recorded if type(record) is Cost}
    turns: list[tuple[_Paced, list[Any]]] = []
    for kind, probe in _PROBE_OF.items():
        by_time: dict[int, list[Any]] = defaultdict(list)
        for record in recorded:
            if type(record) is kind and not kind.__name__.endswith("Series"):
                by_time[record.taken_ns].append(record)
        if len(by_time) > 2:  # Fewer: it is taken at the start and at the end only.
            turn = by_time[sorted(by_time)[-2]]
            if kind is RegionSnapshot:
                number = turn[0].snapshot
                turn = [*turn, *(r for r in recorded if type(r) is Region and r.snapshot == number)]
            turns.append((_Paced(costs[probe]), turn))
    return turns


def stretch(recorded: Sequence[Any], path: Path, seconds: int) -> int:
    """Write a case of so many seconds to `path`; returns its size in bytes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        writer = Writer(descriptor)
        _Day(recorded, writer).write(seconds)
    finally:
        os.close(descriptor)
    return writer.written_bytes
