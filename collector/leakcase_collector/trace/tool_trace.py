"""A tool of the host's in place of our own loader: run for the rest of the capture, bounded.

It watches all the time, and what that costs cannot be bounded as ours is: only where it was asked
for, or where everything was to be traced and our own loader cannot.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Optional

from leakcase_bundle.records import TraceOutstanding, TraceTool, TraceWindow
from leakcase_collector.errors import CollectorError, NotSupported
from leakcase_collector.system.clock import NS_PER_SECOND
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.unwind.modules import CodeModules, Target
from leakcase_collector.unwind.unwinder import Unwinder, UnwoundStack

from . import bpftrace_tool, memleak_tool
from .entry_points import find_entry_points
from .names import Names
from .recorder import Recorder
from .stacks import StackTable, sums
from .tools import ToolRun

if TYPE_CHECKING:
    from leakcase_collector.redact import Redactor

#: In the order in which they are tried; words of the vocabulary ``trace_tool``.
TOOLS = ("bpftrace", "memleak-bpfcc")
#: What a tool needs to arm, and to undo and print when its time is over.
_SPARE_NS = 6 * NS_PER_SECOND
_LEAST_NS = 2 * NS_PER_SECOND
#: What a tool says when it was told to stop may take so long.
_ENDING_SECONDS = 40


def usable_tool(wanted: str) -> str:
    """The tool to run: `wanted`, or of ``auto`` the first that works. NotSupported: none does."""
    reasons = []
    for tool in TOOLS:
        if wanted in (tool, "auto"):
            module = bpftrace_tool if tool == "bpftrace" else memleak_tool
            reason = module.is_usable()
            if reason is None:
                return tool
            reasons.append(reason)
    error = NotSupported(
        f"no tool can trace allocations here: {'; '.join(reasons)}. Install one, or do without."
    )
    error.gap_detail = wanted if wanted in TOOLS else TOOLS[0]
    raise error


class ToolTrace:
    """One run of a tool beside the capture's other work."""

    def __init__(
        self,
        recorder: Recorder,
        system: System,
        identity: ProcessIdentity,
        target: Target,
        redactor: Redactor,
        tool: str,
        left_ns: int,
    ) -> None:
        """`left_ns` of the capture are left. NotSupported where nothing can be watched."""
        self._recorder = recorder
        self._tool = tool
        self._seconds = max(left_ns - _SPARE_NS, _LEAST_NS) / NS_PER_SECOND
        self._run: Optional[ToolRun] = None
        self._error: Optional[CollectorError] = None
        self._is_told = False
        self._stop = threading.Event()
        with ExitStack() as opened:
            points = opened.enter_context(find_entry_points(system, identity)).points
            self._points = [point for point in points if not point.may_throw]
            modules = opened.enter_context(CodeModules(target))
            self._unwinder = Unwinder(modules)
            names = Names(system, identity.pid)
            self._table = StackTable(self._unwinder, names, redactor)
            self._opened = opened.pop_all()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        pid, seconds, is_stopped = self._recorder.pid, self._seconds, self._stop.is_set
        try:
            if self._tool == "bpftrace":
                self._run = bpftrace_tool.trace(pid, self._points, seconds, is_stopped)
            else:
                self._run = memleak_tool.trace(pid, seconds, is_stopped)
        except CollectorError as error:
            self._error = error

    def step(self, now_ns: int, is_late: bool = False) -> bool:
        """Tell what it found as soon as it is through; late or not."""
        if not self._thread.is_alive():
            self._tell()
        return False

    def reprice(self, factor: float) -> None:
        """What its calls cost is not ours to bound."""

    def finish(self) -> None:
        """Its time is over."""
        self._stop.set()
        self._thread.join(_ENDING_SECONDS)
        self._tell()

    def close(self) -> None:
        """Nothing of it may run on."""
        self._stop.set()
        self._thread.join(_ENDING_SECONDS)
        self._opened.close()

    def _tell(self) -> None:
        if self._is_told:
            return
        self._is_told = True
        if self._run is None:
            error = self._error or NotSupported(
                f"{self._tool} did not come to an end in time, and what it saw is lost. Capture "
                "again, or do without it."
            )
            self._recorder.gap(error, error.gap_detail or self._tool)
            return
        self._unwinder.refresh()
        for record in self._records(self._run):
            self._recorder.emit(record)

    def _records(self, run: ToolRun) -> list[object]:
        figures = {}
        for key, stack in enumerate(run.stacks):
            self._table.add(key, UnwoundStack(stack.pcs, "tool", ()))
            figures[key] = (stack.blocks, stack.bytes_held)
        stacks, lost = sums(figures, self._table)
        self._recorder.loss("stacks", lost)
        told = sorted(stacks)
        blocks = [stacks[stack][0] for stack in told]
        held = [stacks[stack][1] for stack in told]
        return [
            *self._table.records(told),
            TraceTool(
                0, run.tool, run.started_ns, run.duration_ns, run.lost_events, run.truncated_stacks
            ),
            TraceWindow(
                0, run.started_ns, run.duration_ns, 0, "full", run.tool,
                _known(run.allocations, sum(blocks)), _known(run.allocated_bytes, sum(held)),
                _known(run.frees, 0), False, sum(blocks), sum(held), lost_blocks=run.lost_events,
                short_stacks=run.truncated_stacks,
            ),
            # It does not tell ages, nor what was freed again.
            TraceOutstanding(
                0, run.started_ns + run.duration_ns, told, blocks, held, allocations=blocks
            ),
        ]  # fmt: skip


def _known(figure: Optional[int], otherwise: int) -> int:
    return otherwise if figure is None else figure
