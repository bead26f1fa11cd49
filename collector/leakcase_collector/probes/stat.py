"""Page faults and CPU time: ``/proc/PID/stat`` and the ``schedstat`` of each thread."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Optional

from leakcase_bundle.records import StatSeries
from leakcase_collector.errors import NotSupported
from leakcase_collector.system.clock import CLOCK_TICKS_PER_SECOND, NS_PER_SECOND
from leakcase_collector.system.door import System
from leakcase_collector.system.files import KeptFile

from .base import Cadence, Context, Prediction, Probe
from .figures import whole

#: Above it `run_ns` is not known: each thread costs two microseconds a tick and one open file.
MAX_SCHEDSTAT_THREADS = 64


class StatFigures(NamedTuple):
    """What `parse_stat` finds; None where a field is missing or no number."""

    minor_faults: Optional[int]
    major_faults: Optional[int]
    user_cpu_ns: Optional[int]
    system_cpu_ns: Optional[int]
    threads: Optional[int]


def parse_stat(content: bytes) -> StatFigures:
    """Fields 10, 12, 14, 15 and 20 of proc_pid_stat(5), the times from clock ticks to ns.

    The program's name, field 2, may hold blanks and parentheses: what follows the last ")" counts.
    """
    fields = content.rpartition(b")")[2].split(None, 19)
    # Field 3 is the first after the name. The last one before a cut may be cut itself.
    complete = fields if len(fields) > 19 else fields[:-1]

    def field(number: int, unit: int = 1) -> Optional[int]:
        return whole(complete[number - 3], unit) if number - 3 < len(complete) else None

    tick_ns = NS_PER_SECOND // CLOCK_TICKS_PER_SECOND
    return StatFigures(
        minor_faults=field(10),
        major_faults=field(12),
        user_cpu_ns=field(14, tick_ns),
        system_cpu_ns=field(15, tick_ns),
        threads=field(20),
    )


def parse_schedstat(content: bytes) -> Optional[int]:
    """The nanoseconds that a thread ran: the first of three numbers of ``schedstat``.

    (sched-stats.rst of the kernel's documentation.)
    """
    fields = content.split()
    return whole(fields[0]) if len(fields) == 3 else None


class _RunTimes:
    """The ``schedstat`` files of all threads of one process, kept open.

    They are listed anew only when the number of threads changes or one of them is gone: a kept
    file belongs to one thread, so a new thread in the place of an old one shows as a failed read.
    """

    def __init__(self, system: System, pid: int) -> None:
        self._system = system
        self._directory = f"/proc/{pid}/task"
        self._files: list[KeptFile] = []

    def total_ns(self, threads: int) -> Optional[int]:
        """The time that all threads alive have run; None while too many or too short-lived."""
        if threads > MAX_SCHEDSTAT_THREADS:
            self.close()
            return None
        for fresh in (threads != len(self._files), True):
            try:
                if fresh:
                    self._open_all()
                known = [parse_schedstat(file.read()) for file in self._files]
            except NotSupported:
                continue  # a thread ended between the listing and the read
            # Where the kernel keeps no such statistics it prints zeros.
            return None if None in known else sum(ns for ns in known if ns is not None) or None
        return None

    def _open_all(self) -> None:
        self.close()
        self._files = [
            self._system.open_kept(f"{self._directory}/{task}/schedstat")
            for task in self._system.list_directory(self._directory)
        ]

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []


class StatProbe(Probe):
    """One row of `StatSeries` a tick, from descriptors that stay open."""

    name: ClassVar[str] = "stat"
    cadence: ClassVar[Cadence] = Cadence.TICK
    reads: ClassVar[str] = "/proc/PID/stat, task/*/schedstat: page faults, CPU time"

    def __init__(self) -> None:
        self._file: Optional[KeptFile] = None
        self._run_times: Optional[_RunTimes] = None

    def predict(self, context: Context) -> Prediction:
        # Measured once a second: 40 us with one thread; 2 us more for each up to the maximum.
        return Prediction(cpu_ns=100_000)

    def begin(self, context: Context, taken_ns: int) -> None:
        self._file = context.system.open_kept(f"/proc/{context.pid}/stat")
        try:
            context.system.read_bytes(f"/proc/{context.pid}/schedstat")
        except NotSupported as error:  # a kernel without CONFIG_SCHED_INFO
            context.gap(error, "schedstat")
        else:
            self._run_times = _RunTimes(context.system, context.pid)

    def sample(self, context: Context, taken_ns: int) -> None:
        if self._file is None:
            return
        figures = parse_stat(self._file.read())
        run_ns = None
        if self._run_times is not None and figures.threads is not None:
            run_ns = self._run_times.total_ns(figures.threads)
        context.sample(
            StatSeries,
            taken_ns,
            minor_faults=figures.minor_faults,
            major_faults=figures.major_faults,
            user_cpu_ns=figures.user_cpu_ns,
            system_cpu_ns=figures.system_cpu_ns,
            run_ns=run_ns,
        )
