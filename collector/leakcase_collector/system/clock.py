"""Time, the sampling rhythm, and what we cost ourselves.

All times are integer nanoseconds of CLOCK_MONOTONIC, which stands still while the host sleeps; the
boot clock does not, and wall time is read once, as an anchor.
"""

from __future__ import annotations

import os
import resource
import select
import time
from collections.abc import Sequence
from typing import NamedTuple, Optional

from leakcase_collector.errors import CollectorError
from leakcase_collector.system.door import System

NS_PER_SECOND = 1_000_000_000
NS_PER_MS = 1_000_000

#: Ticks of /proc/PID/stat's times per second (proc_pid_stat(5)): 100 on every Linux of today.
CLOCK_TICKS_PER_SECOND: int = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: int = os.sysconf("SC_PAGE_SIZE")


def monotonic_ns() -> int:
    return time.monotonic_ns()


def boot_offset_ns() -> int:
    """CLOCK_BOOTTIME less CLOCK_MONOTONIC: how long the host has slept since it booted.

    A rise between two samples means that the host was suspended between them.
    """
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


def monotonic_of_ticks(start_ticks: int) -> int:
    """A start time of /proc/PID/stat (ticks of the boot clock) on the monotonic clock, in ns.

    Negative where the process started before suspends that the monotonic clock left out.
    """
    return start_ticks * NS_PER_SECOND // CLOCK_TICKS_PER_SECOND - boot_offset_ns()


class WallAnchor(NamedTuple):
    """One moment on both clocks; the two readings are at most `uncertainty_ns` apart."""

    taken_ns: int
    wall_ns: int
    uncertainty_ns: int


def wall_anchor() -> WallAnchor:
    """The tightest of five readings of the wall clock between two of the monotonic one."""
    anchors = []
    for _ in range(5):
        before_ns = time.monotonic_ns()
        wall_ns = time.time_ns()
        after_ns = time.monotonic_ns()
        anchors.append(WallAnchor((before_ns + after_ns) // 2, wall_ns, after_ns - before_ns))
    return min(anchors, key=lambda anchor: anchor.uncertainty_ns)


class Tick(NamedTuple):
    """One beat of a `Rhythm`: which, when it was due, how many before it were skipped."""

    number: int
    due_ns: int
    missed: int
    #: The descriptors that cut the sleep short; then the beat is not due yet.
    woken_by: tuple[int, ...]


class Rhythm:
    """Beats at start + k * interval, without drift; beats that are already past are skipped.

    `wake_fds` (a pidfd, a `StopRequest.wake_fd`) end a sleep early when they become readable.
    """

    def __init__(self, start_ns: int, interval_ns: int, wake_fds: Sequence[int] = ()) -> None:
        self._start_ns = start_ns
        self._interval_ns = interval_ns
        self._number = -1
        self._poll = select.poll()
        for fd in wake_fds:
            self._poll.register(fd, select.POLLIN)
        self.missed_total = 0

    def wait(self) -> Tick:
        """Sleep to the next beat, or to the first wake-up; a woken wait uses up no beat."""
        elapsed_ns = time.monotonic_ns() - self._start_ns
        number = max(self._number + 1, -(-elapsed_ns // self._interval_ns))
        due_ns = self._start_ns + number * self._interval_ns
        woken = self._sleep_until(due_ns)
        if woken:
            return Tick(number, due_ns, 0, woken)
        missed = number - self._number - 1
        self._number = number
        self.missed_total += missed
        return Tick(number, due_ns, missed, ())

    def _sleep_until(self, due_ns: int) -> tuple[int, ...]:
        while True:
            left_ns = max(0, due_ns - time.monotonic_ns())
            # Rounded up to whole milliseconds, so that a beat is never early.
            ready = self._poll.poll(-(-left_ns // NS_PER_MS))
            if ready:
                return tuple(fd for fd, _ in ready)
            if time.monotonic_ns() >= due_ns:
                return ()


def own_cpu_ns() -> int:
    """CPU time of this process, all its threads, without the commands that it ran."""
    return time.process_time_ns()


def thread_cpu_ns() -> int:
    """CPU time of the calling thread: the cost of one probe."""
    return time.thread_time_ns()


def own_turns(system: System) -> Optional[tuple[int, int]]:
    """For how long the calling thread ran, and waited for a core while it could have run, ns.

    None where the kernel does not tell (CONFIG_SCHED_INFO; scheduler/sched-stats.rst of its docs).
    """
    try:
        ran_ns, waited_ns = system.read_bytes("/proc/thread-self/schedstat").split()[:2]
        return int(ran_ns), int(waited_ns)
    except (CollectorError, ValueError):
        return None


def process_cpu_ns(pid: int) -> Optional[int]:
    """CPU time of another process, all its threads, exact; None when it has ended.

    The id of its clock follows from its pid (clock_getcpuclockid(3); CPUCLOCK_SCHED of Linux'
    include/linux/posix-timers.h).
    """
    try:
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError:
        return None


def own_rss_bytes(system: System) -> int:
    """Our resident memory now, from /proc/self/statm (exact to some 100 KB: proc_pid_statm(5))."""
    return int(system.read_bytes("/proc/self/statm").split()[1]) * PAGE_BYTES


def own_peak_rss_bytes() -> int:
    """The most resident memory that we ever had: ru_maxrss of getrusage(2), which is in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
