"""Who allocates what stays: each call of the allocator, in short windows or throughout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from leakcase_collector.errors import CollectorError, NotConsented, NoTime, NotSupported
from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND, monotonic_ns

from .base import ASSUMED_NS, Cadence, CaptureOptions, Context, Prediction, Probe

if TYPE_CHECKING:
    from leakcase_collector.trace.assembly import Assembly
    from leakcase_collector.trace.bands import SizeGrowth
    from leakcase_collector.trace.bursts import Bursts
    from leakcase_collector.trace.full import Full
    from leakcase_collector.trace.python_stacks import PythonStacks
    from leakcase_collector.trace.stacks import Numbers
    from leakcase_collector.trace.tool_trace import ToolTrace
    from leakcase_collector.trace.watch import Watch

#: What a block's allocation and free cost where they are watched, on hardware of its own and on
#: virtual hardware.
_PAIR_NS = (2_000, 4_000)
#: Of what the target may lose, for watching throughout who maps memory, which few calls do.
_MAPPINGS_SHARE = 0.2
_LATE_BEATS = 1.5
#: Of the capture; in a short one there are windows at most beats.
_PREPARED_BY_SHARE = 0.1
_PREPARED_LATE = (
    "who maps memory, and who makes Python's objects, was watched for less than half of the "
    "capture, if at all: it was too short, or this host too busy. Capture for longer, or when the "
    "host is less busy."
)


class AllocationTraceProbe(Probe):
    """Which code allocates the blocks that are not freed, and what became of them later."""

    name = "allocation-trace"
    level = "trace"
    cadence = Cadence.TICK
    reads = (
        "calls of the program's allocator as the kernel sees them: sizes, addresses, and a copy "
        "of the stack, which is turned into functions and places in the code and dropped; of "
        "blocks that stay, what tells one from another, which never leaves the host"
    )
    needs = "root, or CAP_BPF and CAP_PERFMON; Linux 5.8 or newer; no tools and no headers"
    risk = (
        "a breakpoint in shared library code, which the kernel places and takes away: other "
        "processes pass it untouched; a C++ program whose operator new throws within a window, "
        "for it is out of memory, may end instead of catching that"
    )
    opt_in = True

    def __init__(self) -> None:
        self._options = CaptureOptions()
        self._assembly: Optional[Assembly] = None
        self._tracing: Sequence[Union[Bursts, Full, ToolTrace]] = ()
        self._tool: Optional[ToolTrace] = None
        #: What can wait until something is armed, one a beat.
        self._preparations: list[Callable[[], None]] = []
        self._started_ns = self._prepared_ns = 0
        self._sampled_ns = 0
        #: Of windows, and those that stacks and frames after an exec may have.
        self._numbers = count()
        self._free_numbers: Optional[Numbers] = None
        #: Of the program's glibc heap; None where nothing is made of it.
        self._sizes: Optional[SizeGrowth] = None

    def configure(self, options: CaptureOptions) -> None:
        self._options = options
        if options.trace == "bursts" and options.may_read_memory:
            self.learns_from = ("heap-census",)

    def learn(self, record: Any) -> None:
        self._known_sizes().learn(record)

    def _known_sizes(self) -> SizeGrowth:
        from leakcase_collector.trace.bands import SizeGrowth

        self._sizes = self._sizes or SizeGrowth()
        return self._sizes

    def predict(self, context: Context) -> Prediction:
        """A window's stacks, unwound; most beats have none."""
        return Prediction(cpu_ns=20 * NS_PER_MS)

    def toll(self) -> Optional[str]:
        share = self._options.max_slowdown
        if self._options.tracer not in ("auto", "own"):
            return (
                f"{self._options.tracer} watches all the time, which --max-slowdown does not "
                "bound: programs that allocate much were seen to need more than twice their CPU"
            )
        if self._options.trace == "full":
            low, high = (pair_ns / 1000 for pair_ns in _PAIR_NS)
            return (
                f"each block that it allocates and frees costs {low:g} to {high:g} µs more, all "
                f"the time: at 20,000 a second {2 * low:g} to {2 * high:g} % of a core; given up "
                f"where that is more than {1000 * share:.3g} % of its own CPU"
            )
        return (
            f"at most {100 * share:.3g} % of the CPU that it uses, or of a quarter of a core where "
            "that is more: windows of up to 0.4 s, shorter and fewer where it allocates much, as a "
            "first one of 0.05 s shows; most of them of the sizes alone that grow, where glibc's "
            "heap tells which"
        )

    def begin(self, context: Context, taken_ns: int) -> None:
        self._started_ns = self._sampled_ns = context.started_ns
        self._start(context)

    def _start(self, context: Context) -> None:
        # Only here: a capture that does not trace does without ctypes and its cost.
        from leakcase_collector.trace.assembly import Assembly

        from .heap_labels import ModuleFiles

        options = self._options
        if options.tracer not in ("auto", "own"):
            self._use_tool(context)
            return
        read_file = ModuleFiles(context.subject).read if options.may_read_memory else None
        try:
            assembly = self._assembly = Assembly(
                context.system, context.identity, context.subject, context.redactor,
                options.trace, read_file, self._python(context), self._first(),
                None if options.duration_ns is None else self._left_ns() / NS_PER_SECOND,
            )  # fmt: skip
        except CollectorError as error:
            # What says no more was met at the program's files.
            context.gap(error, error.gap_detail or "elf")
            if options.trace == "full" and options.tracer == "auto":
                self._use_tool(context)
            return
        if read_file is None:
            context.gap(
                NotConsented(
                    "what became of the blocks that were traced was not looked at: that needs the "
                    "level read-memory. Allow it with --allow trace,read-memory."
                ),
                "mem",
            )
        numbers = self._numbers
        self._tracing = [self._traced(context, assembly, assembly.blocks, numbers)]
        self._preparations = [
            partial(self._measure, assembly),
            partial(self._add, context, assembly, assembly.objects, numbers),
            partial(self._add, context, assembly, assembly.mappings, numbers),
        ]

    def _first(self) -> Numbers:
        """Of the first stack and frame: those of a program before an exec are in the case."""
        from leakcase_collector.trace.stacks import Numbers

        return self._free_numbers or Numbers()

    def _use_tool(self, context: Context) -> None:
        """Where our own loader is not wanted, or cannot and all was to be traced."""
        from leakcase_collector.trace.tool_trace import ToolTrace, usable_tool

        try:
            tool = usable_tool(self._options.tracer)
            run = self._tool = ToolTrace(
                context, context.system, context.identity, context.subject, context.redactor,
                tool, self._left_ns(),
            )  # fmt: skip
        except CollectorError as error:
            context.gap(error, error.gap_detail)
        else:
            self._tracing = [run]

    def _traced(
        self, context: Context, assembly: Assembly, watch: Watch, numbers: Iterator[int]
    ) -> Union[Bursts, Full]:
        """They share what the target may lose, and do not count on that all come to be."""
        from leakcase_collector.trace.bursts import Bursts
        from leakcase_collector.trace.full import COMPLAINT, LIMIT_FACTOR, Full

        share, is_full = self._options.max_slowdown, self._options.trace == "full"
        if watch.kind == "mappings":
            share *= _MAPPINGS_SHARE
        else:
            share *= (1 - _MAPPINGS_SHARE) / (2 if assembly.has_python else 1)
        if is_full or watch.kind == "mappings":
            limit = LIMIT_FACTOR * share if is_full else share
            complaint = COMPLAINT if watch.kind == "allocator" else None
            return Full(context, assembly, watch, next(numbers), limit, complaint)
        has_bands = watch.kind == "allocator" and assembly.is_glibc and bool(self.learns_from)
        sizes = self._known_sizes() if has_bands else None
        return Bursts(context, assembly, watch, self._left_ns(), share, numbers, sizes)

    def _measure(self, assembly: Assembly) -> None:
        factor = assembly.measure()
        for one in self._tracing:
            one.reprice(factor)

    def _add(
        self,
        context: Context,
        assembly: Assembly,
        find: Callable[[], Optional[Watch]],
        numbers: Iterator[int],
    ) -> None:
        try:
            watch = find()
        except CollectorError as error:
            context.gap(error, error.gap_detail)
            return
        if watch is not None:
            self._tracing = [*self._tracing, self._traced(context, assembly, watch, numbers)]

    def _python(self, context: Context) -> Optional[PythonStacks]:
        """The interpreter's frames, where there is one and memory may be read."""
        from leakcase_collector.trace.python_stacks import PythonStacks

        from .python_types import find_python

        if not self._options.may_read_memory:
            return None
        try:
            image = find_python(context.subject)
        except NotSupported:
            return None  # PyPy, Python 2: the probe of types tells.
        try:
            return image and PythonStacks(
                context.system, context.identity.pid, image, context.subject.memory
            )
        except CollectorError as error:
            context.gap(error, "symbols")
            return None

    def _left_ns(self) -> int:
        whole_ns = self._options.duration_ns or ASSUMED_NS
        return max(whole_ns - (monotonic_ns() - self._started_ns), NS_PER_SECOND)

    def sample(self, context: Context, taken_ns: int) -> None:
        """One piece of work a beat, by turns: the capture's other looks must not wait for long.

        Preparations that are overdue come besides, all of them where a busy host let us miss a
        beat, or begin late.
        """
        now_ns = monotonic_ns()
        is_late = now_ns - self._sampled_ns > _LATE_BEATS * context.interval_ns
        whole_ns = self._options.duration_ns or ASSUMED_NS
        is_overdue = is_late or now_ns - self._started_ns > _PREPARED_BY_SHARE * whole_ns
        if not self._work(is_late) or is_overdue:
            while self._preparations:
                self._preparations.pop(0)()
                self._prepared_ns = monotonic_ns()
                if not is_late:
                    break
        self._sampled_ns = monotonic_ns()

    def _work(self, is_late: bool) -> bool:
        """What is due of whoever waits longest; False where nothing is."""
        for place, one in enumerate(self._tracing):
            if one.step(monotonic_ns(), is_late):
                self._tracing = [*self._tracing[place + 1 :], *self._tracing[: place + 1]]
                return True
        return False

    def finish(self, context: Context, taken_ns: int) -> None:
        if self._tool is None and self._tracing:
            half_ns = self._started_ns + (taken_ns - self._started_ns) // 2
            if self._preparations or self._prepared_ns > half_ns:
                context.gap(NoTime(_PREPARED_LATE), None)
        with ExitStack() as rest:
            # Last in, first out. One that fails keeps no other from telling what it saw.
            for one in reversed(self._tracing):
                rest.callback(one.finish)

    def executed(self, context: Context, taken_ns: int) -> None:
        """Another program: what was known of the old one's blocks and code is void."""
        if self._assembly is not None:
            self._free_numbers = self._assembly.table.free_numbers
        self._sizes = None
        self.close()
        self._start(context)

    def close(self) -> None:
        assembly, self._assembly, self._tracing = self._assembly, None, ()
        self._preparations = []
        tool, self._tool = self._tool, None
        if tool is not None:
            tool.close()
        if assembly is not None:
            assembly.close()
