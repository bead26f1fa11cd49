"""One target of `bench/tracing.py`, traced by one tool after the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from long_case import read_records
from tracing_figures import Cost, Watcher, per_unit, ratio_by_windows
from tracing_targets import Target, Worker
from tracing_tools import FOR_LONG_SECONDS, TOOLS, Tool, profiling, tracing

from leakcase_bundle.records import TraceWindow

#: After a tool has gone.
REST_SECONDS = 0.3


@dataclass(frozen=True)
class Lengths:
    """In seconds: of a capture by bursts, of the untraced stretches beside it, and of a stretch
    where another tool watches, as of those beside it."""

    capture: float
    beside: float
    stretch: float


@dataclass
class Turns:
    """`costs` is filled, by name of the tool; "untraced" is one."""

    target: Target
    watcher: Watcher
    folder: Path
    lengths: Lengths
    costs: dict[str, Cost] = field(default_factory=dict)

    def work(self, wait: Callable[[float], None], length_seconds: float) -> float:
        """CPU per unit of a stretch that begins now."""
        start_ns = time.monotonic_ns()
        wait(length_seconds)
        return per_unit(self.watcher.since(start_ns))

    def untraced(self, length_seconds: float) -> float:
        """The same, and the stall, where nobody traces."""
        self.target.longest_ms()
        unit_ns = self.work(time.sleep, length_seconds)
        self._note_stall(self.costs["untraced"])
        return unit_ns

    def _note_stall(self, cost: Cost) -> None:
        longest_ms = self.target.longest_ms()
        if longest_ms is not None:
            cost.longest_ms.append(longest_ms)

    def trace(self, name: str) -> Cost:
        """Untraced, traced, untraced: adds to what is known of that tool."""
        cost, untraced = self.costs.setdefault(name, Cost()), self.costs["untraced"]
        tool = TOOLS.get(name)
        is_whole = tool is not None and tool.is_whole
        length = self.lengths.beside if is_whole else self.lengths.stretch
        before = self.untraced(length)
        if tool is None:
            traced = self._profiled()
        elif is_whole:
            traced = self._captured(cost, tool)
        else:
            traced = self._traced(cost, tool)
        self._note_stall(cost)
        if tool is not None and tool.stays:
            cost.ratios += [one / before for one in traced]
            return cost
        time.sleep(REST_SECONDS)
        after = self.untraced(length)
        untraced.ratios.append(after / before)
        if is_whole:
            cost.ratios.append(traced[0] / statistics.mean((before, after)))
        else:
            cost.ratios += [traced[0] / before, traced[1] / after]
        return cost

    def _captured(self, cost: Cost, tool: Tool) -> list[float]:
        """A capture of ours from its start to its end."""
        start_ns = time.monotonic_ns()
        length = self.lengths.capture
        with tracing(tool, self.target, self.folder, length) as tracer:
            tracer.wait(2 * length)
        looks = self.watcher.since(start_ns)
        cost.uses.append(tracer.use)
        windows = [
            one
            for one in read_records(self.folder / "case")
            if type(one) is TraceWindow and one.mode == "bursts"
        ]
        cost.by_windows.append(ratio_by_windows(looks, windows))
        cost.attach_seconds += [(one.attach_ns or 0) / 1e9 for one in windows[:1]]
        return [per_unit(looks)]

    def _traced(self, cost: Cost, tool: Tool) -> list[float]:
        """Two stretches while it watches."""
        with tracing(tool, self.target, self.folder, FOR_LONG_SECONDS) as tracer:
            traced = [self.work(tracer.wait, self.lengths.stretch) for _ in range(2)]
            if tracer.ended:
                cost.note = "gave up early"
        if tracer.use.was_killed:
            cost.note = "was killed, as it did not end"
        cost.uses.append(tracer.use)
        return traced

    def _profiled(self) -> list[float]:
        assert isinstance(self.target, Worker)
        with profiling(self.target):
            return [self.work(time.sleep, self.lengths.stretch) for _ in range(2)]
