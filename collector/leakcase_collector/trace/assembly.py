"""Everything that tracing a process takes, found, opened and put together; and closed again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Optional

from leakcase_collector.errors import NotSupported
from leakcase_collector.heap.rtti import ReadFile
from leakcase_collector.system.allocation_tracer import AllocationTracer
from leakcase_collector.system.door import System
from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.system.held_apart import Until
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.tracer_layout import TracerLimits
from leakcase_collector.unwind.modules import CodeModules, Target
from leakcase_collector.unwind.unwinder import Unwinder

from .blocks import BlockReader
from .entry_points import find_entry_points
from .labels import Labels
from .names import Names
from .prices import measured_factor, prices
from .python_objects import ObjectReader, find_object_points, may_leave_makers, type_names
from .python_stacks import PythonStacks
from .stacks import Numbers, StackTable
from .watch import Watch

if TYPE_CHECKING:
    from leakcase_collector.redact import Redactor
    from leakcase_collector.system.memory import Memory

#: Calls by which memory is mapped; programs make few of them, but for a malloc that does.
MAPPING_CALLS = ("mmap", "munmap", "mremap")
_MAPPINGS = TracerLimits(live_blocks=16_384, sites=2048, ring_bytes=1 << 17, preallocated=False)
#: Objects are told by their functions of Python, so that little of C's stack is needed; but there
#: are many stacks in one window, and a short one.
_OBJECTS = TracerLimits(ring_bytes=1 << 21, stack_bytes=4096, key_bytes=256)
#: A window's probes come out then, even if we hang.
_WINDOWS = Until(most_seconds=15.0)
#: What is watched throughout comes out so long after the capture's end.
_SPARE_SECONDS = 60.0
#: Of windows: what is copied is taken every few milliseconds.
_BURSTS = TracerLimits(ring_bytes=2 << 20)
#: Of a capture that traces everything.
_FULL = TracerLimits(live_blocks=524_288, sites=65_536, preallocated=False)


#: Programs whose event loop (libuv's uv__io_poll) has a frame of 16 KB.
_DEEP = re.compile(r"/(node|nodejs|libnode\.so[^/]*|libuv\.so[^/]*)$")
_DEEP_STACK_BYTES, _DEEP_RING_BYTES = 32_768, 4 << 20


def _limits(mode: str, target: Target) -> TracerLimits:
    """How much the kernel keeps, and how much of each stack; `mode`: of ``trace_mode``."""
    limits = _FULL if mode == "full" else _BURSTS
    if any(_DEEP.search(module.path) for module in target.program_files()):
        return limits._replace(stack_bytes=_DEEP_STACK_BYTES, ring_bytes=_DEEP_RING_BYTES)
    return limits


class Assembly:
    """The instruments for one program image; a context manager that undoes all."""

    def __init__(
        self,
        system: System,
        identity: ProcessIdentity,
        target: Target,
        redactor: Redactor,
        mode: str,
        read_file: Optional[ReadFile],
        python: Optional[PythonStacks] = None,
        first: Numbers = Numbers(),  # noqa: B008  (immutable)
        left_seconds: Optional[float] = None,
    ) -> None:
        """`mode`: of the vocabulary ``trace_mode``. `read_file`: the target's files, for what
        blocks are; None where memory may not be read. `python`: its interpreter, if it has one;
        closed with the rest. `first`: see `StackTable`. `left_seconds` of the capture; None: it
        goes on until it is told to end.

        NotPermitted, NotSupported, LimitReached, with a `gap_detail`. Nothing is attached yet.
        """
        self._target = target
        self._throughout = Until(None if left_seconds is None else left_seconds + _SPARE_SECONDS)
        self._blocks_until = self._throughout if mode == "full" else _WINDOWS
        self._may_read = read_file is not None
        self._python = python
        self._tracers: list[AllocationTracer] = []
        with ExitStack() as opened:
            if python is not None:
                opened.callback(python.close)
            points = opened.enter_context(find_entry_points(system, identity))
            is_glibc = self.is_glibc = points.allocator == "glibc"
            self.refused = tuple(points.refused)
            self._system, self._factor = system, 1.0
            calls = [point for point in points.points if point.call not in MAPPING_CALLS]
            limits = _limits(mode, target)
            tracer = opened.enter_context(
                AllocationTracer(
                    identity.pid,
                    calls,
                    limits=limits,
                    python=python is not None,
                    until=self._blocks_until,
                )  # fmt: skip
            )
            self._tracers = [tracer]
            self._modules = opened.enter_context(CodeModules(target))
            self._unwinder = Unwinder(self._modules)
            self._ranges: list[tuple[int, int]] = []
            names = Names(system, identity.pid)
            self.table = StackTable(self._unwinder, names, redactor, python, first)
            self._read_file, self._points, self._pid = read_file, points, identity.pid
            self.blocks = self._watch(
                "allocator", tracer, calls, partial(BlockReader, is_glibc=is_glibc)
            )
            self._opened = opened.pop_all()

    @property
    def has_python(self) -> bool:
        """Whether objects of Python can be expected."""
        return self._python is not None

    def measure(self) -> float:
        """Try out what a watched call costs here: how many times what was expected. To be asked
        once: what is made later is priced accordingly."""
        self._factor = measured_factor(self._system, self.blocks.tracer.method) or 1.0
        return self._factor

    def objects(self) -> Optional[Watch]:
        """To be asked once: for the objects of Python, if there is one that tells of them."""
        if self._python is None:
            return None
        paths = [module.path for module in self._target.program_files()]
        if may_leave_makers(self._python.image, paths):
            return None
        with self._target.memory() as memory:
            points = find_object_points(self._points, self._python.image, memory)
        if not points:
            return None
        tracer = self._tracer(points, _OBJECTS, self._blocks_until)
        return self._watch("python-objects", tracer, points, ObjectReader)

    def mappings(self) -> Optional[Watch]:
        """To be asked once: for memory that is mapped, by whomever; None if that is not told."""
        points = [point for point in self._points.points if point.call in MAPPING_CALLS]
        if {point.call for point in points} < {"mmap", "munmap"}:
            return None
        tracer = self._tracer(points, _MAPPINGS, self._throughout)
        return self._watch("mappings", tracer, points, partial(BlockReader, is_glibc=False))

    def _tracer(
        self, points: Sequence[EntryPoint], limits: TracerLimits, until: Until
    ) -> AllocationTracer:
        tracer = AllocationTracer(
            self._pid, points, limits=limits, python=self._python is not None,
            until=until,
        )  # fmt: skip
        self._opened.enter_context(tracer)
        self._tracers.append(tracer)
        return tracer

    def _watch(
        self,
        kind: str,
        tracer: AllocationTracer,
        points: Iterable[EntryPoint],
        reader: Callable[[Memory], BlockReader],
    ) -> Watch:
        labels = None if self._read_file is None else Labels(self._read_file)
        image = None if self._python is None else self._python.image
        names = (lambda memory: None) if image is None else partial(type_names, image=image)
        cost = prices(points, tracer.method).times(self._factor)
        return Watch(kind, tracer, cost, reader, labels, names)

    @property
    def memory(self) -> Optional[Callable[[], AbstractContextManager[Memory]]]:
        """Opens the target's memory; None where it may not be read."""
        return self._target.memory if self._may_read else None

    def prepare(self) -> None:
        """Before a window: which code is mapped now, and which threads execute Python."""
        self._unwinder.refresh()
        ranges = self._modules.executable_ranges()
        if ranges != self._ranges:
            self.table.forget_addresses()
            self._ranges = ranges
        for tracer in self._tracers:
            tracer.set_code_ranges(ranges)
        if self._python is not None:
            with suppress(NotSupported):  # Its interpreter starts, or is at its end.
                looked = self._python.look()
                for tracer in self._tracers:
                    tracer.set_python(*looked)

    def close(self) -> None:
        """Nothing is left in the target."""
        self._opened.close()
