"""Blocks that nothing refers to any more, found by marking from outside; nothing stops."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Optional

from leakcase_bundle.records import HeapUnreachable
from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND, monotonic_ns, thread_cpu_ns
from leakcase_collector.system.door import System

from .base import Cadence, Context, Prediction, Probe

if TYPE_CHECKING:
    from leakcase_collector.heap.reachability import Unreachable

_WALL_LIMIT_NS = 120 * NS_PER_SECOND
_BYTES_LIMIT = 512 << 30
# Of resident anonymous memory, for two looks on a 2 GHz-class core.
_START_CPU_NS = 60 * NS_PER_MS
_PAGE_CPU_NS = {"native": 40_000, "python": 1_200_000}
_ROOM_SHARE = 0.5
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


class ReachabilityProbe(Probe):
    """What of the heap is leaked: blocks to which no reference is left, also from before."""

    name = "reachability"
    level = "read-memory"
    cadence = Cadence.END
    opt_in = True
    reads = "all of the heap, stacks and data in /proc/PID/mem, twice; counts alone are kept"
    needs = "ptrace permission: root, or the target's user where kernel.yama.ptrace_scope is 0"
    risk = "nothing stops, but it takes up to half as much memory as the heap, for seconds"

    def predict(self, context: Context) -> Prediction:
        """From the resident anonymous pages, as if all of them were the heap's."""
        pages = context.subject.anonymous_pages()
        return Prediction(min(_START_CPU_NS + pages * _PAGE_CPU_NS[_method()], _WALL_LIMIT_NS))

    def finish(self, context: Context, taken_ns: int) -> None:
        """Look, and tell what was found. Without the target there is nothing to look at."""
        # Only here: a capture that may not read memory does without ctypes and its cost.
        from leakcase_collector.heap.arenas import HeapNotFound, HeapUnsound
        from leakcase_collector.heap.census import HeapInconsistent

        try:
            self._look(context, taken_ns)
        except (HeapNotFound, HeapUnsound, HeapInconsistent) as error:
            context.gap(error, error.gap_detail)

    def _look(self, context: Context, taken_ns: int) -> None:
        from leakcase_collector.heap.census import Budget
        from leakcase_collector.heap.reachability import PAUSE_SECONDS, Means, find_unreachable
        from leakcase_collector.system import native

        budget = Budget(_BYTES_LIMIT, _WALL_LIMIT_NS, "the search for what is unreachable")
        started_ns, started_cpu_ns = monotonic_ns(), thread_cpu_ns()
        try:
            opened = context.subject.memory()
        except (NotPermitted, NotSupported) as error:
            context.gap(error, "mem")
            return
        means = Means(native.load(), _room_bytes(context.system))
        pause_seconds = 0.0 if context.subject.stands_still else PAUSE_SECONDS
        with opened as memory:
            found = find_unreachable(
                memory, budget, context.subject.thread_states, means, pause_seconds
            )
        swapped_bytes = context.subject.unread_bytes()
        context.subject.require_alive()
        context.emit(
            unreachable_record(
                taken_ns,
                found,
                _method(),
                swapped_bytes=swapped_bytes,
                read_bytes=budget.read_bytes,
                cpu_ns=thread_cpu_ns() - started_cpu_ns,
                duration_ns=monotonic_ns() - started_ns,
            )
        )


def unreachable_record(
    taken_ns: int,
    found: Unreachable,
    method: str,
    swapped_bytes: Optional[int],
    read_bytes: Optional[int],
    cpu_ns: Optional[int],
    duration_ns: Optional[int],
) -> HeapUnreachable:
    """The sums, and the classes of size."""
    from leakcase_collector.heap.sizes import by_class

    last = found.last
    sizes = found.sizes()
    direct = [block.size_bytes for block in found.blocks if not block.is_indirect]
    classes = by_class(sizes)
    return HeapUnreachable(
        taken_ns,
        method,
        found.passes,
        last.is_complete and not swapped_bytes,
        looked_at_chunks=last.chunks,
        looked_at_bytes=last.chunk_bytes,
        unreachable_chunks=len(found.blocks),
        unreachable_bytes=sum(size * count for size, count in sizes.items()),
        direct_chunks=len(direct),
        direct_bytes=sum(direct),
        unsteady_chunks=found.unsteady_chunks,
        root_bytes=last.root_bytes,
        threads=last.threads,
        running_threads=last.threads_running,
        chunk_bytes=[smallest for smallest, _, _ in classes],
        class_chunks=[chunks for _, chunks, _ in classes],
        class_bytes=[held for _, _, held in classes],
        skipped_bytes=last.skipped_bytes,
        swapped_bytes=swapped_bytes,
        read_bytes=read_bytes,
        cpu_ns=cpu_ns,
        duration_ns=duration_ns,
    )


def _room_bytes(system: System) -> Optional[int]:
    """What our tables may take: half of what the host has left."""
    available = _AVAILABLE.search(system.read_text("/proc/meminfo"))
    return None if available is None else int(int(available.group(1)) * 1024 * _ROOM_SHARE)


def _method() -> str:
    from leakcase_collector.system import native

    return "python" if native.load() is None else "native"
