"""What tracing cost a target, from how its CPU time and its work went on beside each other."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from math import comb
from typing import NamedTuple

from tracing_targets import Target, Unanswered
from tracing_tools import NotWorking, Use

from leakcase_bundle.records import TraceWindow
from leakcase_collector.system.clock import process_cpu_ns

#: Around a window, for what is to do before its first call and after its last.
_MARGIN_NS = 30_000_000
#: A stretch is waited for as long as this: what is traced may do next to nothing.
_WORKS_WITHIN_NS = 30_000_000_000


class Look(NamedTuple):
    """What a target had done by then."""

    time_ns: int
    cpu_ns: int
    units: int


class Watcher(threading.Thread):
    """Looks at a target all the time."""

    def __init__(self, target: Target) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._done = threading.Event()
        self._failure = ""
        self.looks: list[Look] = []

    def run(self) -> None:
        while not self._done.is_set():
            cpu_ns = process_cpu_ns(self._target.pid)
            try:
                units, now_ns = self._target.units(), time.monotonic_ns()
            except (OSError, HTTPException, Unanswered) as error:
                self._failure = f"{type(error).__name__} {error}"
                return
            later_cpu_ns = process_cpu_ns(self._target.pid)
            if cpu_ns is None or later_cpu_ns is None:
                self._failure = "it has ended"
                return
            self.looks.append(Look(now_ns, (cpu_ns + later_cpu_ns) // 2, units))
            self._done.wait(self._target.every_seconds)

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def since(self, start_ns: int) -> list[Look]:
        """From then until now; waited for where it hardly works. NotWorking if it does not."""
        until_ns = start_ns + _WORKS_WITHIN_NS
        while True:
            found = [look for look in self.looks if look.time_ns >= start_ns]
            if self._failure:
                raise SystemExit(f"tracing: a target has failed: {self._failure}")
            if len(found) > 2 and found[0].units < found[-1].units:
                return found
            if time.monotonic_ns() > until_ns:
                raise NotWorking("its target does nothing any more")
            time.sleep(0.1)


def per_unit(looks: Sequence[Look]) -> float:
    """CPU in ns for each unit of work."""
    first, last = looks[0], looks[-1]
    return (last.cpu_ns - first.cpu_ns) / (last.units - first.units)


def ratio_by_windows(looks: Sequence[Look], windows: Sequence[TraceWindow]) -> float:
    """What the windows of one capture cost: CPU beyond what the same work took outside of them,
    over the whole capture. What the capture costs at other times is not in it.

    Between two neighbours of these looks lies what is inside or outside as a whole.
    """
    inside_cpu_ns = inside_units = 0
    for before, after in zip(looks, looks[1:]):
        if any(_meet(window, before.time_ns, after.time_ns) for window in windows):
            inside_cpu_ns += after.cpu_ns - before.cpu_ns
            inside_units += after.units - before.units
    units = looks[-1].units - looks[0].units
    cpu_ns = looks[-1].cpu_ns - looks[0].cpu_ns
    quiet_ns = (cpu_ns - inside_cpu_ns) / max(units - inside_units, 1)
    return 1 + (inside_cpu_ns - quiet_ns * inside_units) / (quiet_ns * units)


def _meet(window: TraceWindow, start_ns: int, end_ns: int) -> bool:
    first_ns = window.started_ns - (window.attach_ns or 0) - _MARGIN_NS
    last_ns = window.started_ns + window.duration_ns + window.linger_ns + (window.detach_ns or 0)
    return first_ns < end_ns and start_ns < last_ns + _MARGIN_NS


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median lies with at least 95 % confidence, whatever the distribution: the sign
    test's interval. Of less than six values lowest and highest, which is less sure."""
    ordered, left_out = sorted(values), 0
    while 2 * sum(comb(len(ordered), n) for n in range(left_out + 2)) <= 0.05 * 2 ** len(ordered):
        left_out += 1
    return ordered[left_out], ordered[-1 - left_out]


@dataclass
class Cost:
    """One tool on one target, each list with a figure for each time."""

    #: CPU per unit, traced over untraced: whole stretches; and by a capture's windows.
    ratios: list[float] = field(default_factory=list)
    by_windows: list[float] = field(default_factory=list)
    #: The longest that a piece of work took, in each time of tracing from start to end.
    longest_ms: list[float] = field(default_factory=list)
    #: From when arming began, as a capture of ours tells.
    attach_seconds: list[float] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    #: Why there is nothing, or no more.
    note: str = ""

    def middle(self, figure: str) -> float:
        """The median of one of the figures of `Use`."""
        return statistics.median(getattr(use, figure) or 0.0 for use in self.uses)


def shown_ratio(values: Sequence[float]) -> str:
    """The median and its interval."""
    if not values:
        return "-"
    middle, low, high = (
        f"{one:.{4 if one < 2 else 2}f}" for one in (statistics.median(values), *interval(values))
    )
    return f"{middle} ({low} to {high})"
