"""The allocator's books, read from outside: what is in use, what is kept free, by size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from leakcase_bundle.records import HeapArena, HeapCensus, HeapSizes
from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND, PAGE_BYTES, monotonic_ns

from .base import Cadence, Context, Prediction, Probe

if TYPE_CHECKING:
    from leakcase_collector.heap.census import Budget
    from leakcase_collector.heap.counts import ArenaCount, Census
    from leakcase_collector.heap.walk_state import Step

#: The largest by what they have from the kernel, at begin and finish; in between the sums alone.
ARENAS_AT_ENDS = 64
_WALL_LIMIT_NS = 8 * NS_PER_SECOND
_BYTES_LIMIT = 64 << 30
# Measured on a 2 GHz-class core: finding the arenas, and the walk over a page by each twin.
_START_CPU_NS = 10 * NS_PER_MS
_PAGE_CPU_NS = {"native": 2_500, "python": 15_000}
#: Larger heaps are estimated: walking them as a whole would take more than half of the limit.
_WHOLE_BYTES = {"native": 6 << 30, "python": 1 << 30}
_SAMPLED_CPU_NS = 3 * NS_PER_SECOND


class HeapCensusProbe(Probe):
    """What glibc's malloc has handed out, by size, and what freed memory it keeps."""

    name = "heap-census"
    level = "read-memory"
    cadence = Cadence.PACED
    reads = "the headers of malloc's blocks in /proc/PID/mem; what is in the blocks is not kept"
    needs = "ptrace permission: root, or the target's user where kernel.yama.ptrace_scope is 0"
    risk = "nothing known: nothing stops, and pages that are swapped out stay so"

    def __init__(self) -> None:
        self._census = 0

    def predict(self, context: Context) -> Prediction:
        """From the resident anonymous pages, as if all of them were the heap's."""
        pages, method = context.subject.anonymous_pages(), _method()
        if pages * PAGE_BYTES > _WHOLE_BYTES[method]:
            return Prediction(_SAMPLED_CPU_NS)
        return Prediction(min(_START_CPU_NS + pages * _PAGE_CPU_NS[method], _WALL_LIMIT_NS))

    def begin(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns, with_arenas=True)

    def sample(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns, with_arenas=False)

    def finish(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns, with_arenas=True)

    def _take(self, context: Context, taken_ns: int, with_arenas: bool) -> None:
        # Only here: a capture that may not read memory does without ctypes and its cost.
        from leakcase_collector.heap.census import Budget
        from leakcase_collector.heap.steps import best_step

        method, step = best_step()
        budget = Budget(_BYTES_LIMIT, _WALL_LIMIT_NS)
        started_ns = monotonic_ns()
        census = _look(context, budget, step, _WHOLE_BYTES[method])
        if census is None:
            return
        context.subject.require_alive()
        cost = (budget.read_bytes, monotonic_ns() - started_ns)
        context.emit(census_record(self._census, taken_ns, census, method, *cost))
        context.emit(sizes_record(self._census, census))
        if with_arenas:
            for record in arena_records(self._census, census):
                context.emit(record)
        self._census += 1


def _look(context: Context, budget: Budget, step: Step, whole_bytes: int) -> Optional[Census]:
    """The census, or None and a gap that says which of the reasons there is none."""
    from leakcase_collector.heap.arenas import HeapNotFound, HeapUnsound
    from leakcase_collector.heap.census import HeapInconsistent, take_census

    try:
        opened = context.subject.memory()
    except (NotPermitted, NotSupported) as error:
        context.gap(error, "mem")
        return None
    try:
        with opened as memory:
            return take_census(memory, budget, step, whole_bytes)
    except (HeapNotFound, HeapUnsound, HeapInconsistent) as error:
        context.gap(error, error.gap_detail)
        return None


def _method() -> str:
    from leakcase_collector.heap.steps import best_step

    return best_step()[0]


def census_record(
    number: int,
    taken_ns: int,
    census: Census,
    method: str,
    read_bytes: Optional[int],
    duration_ns: Optional[int],
) -> HeapCensus:
    """The sums over all arenas, and the mapped chunks."""
    arenas = census.arenas

    def total(name: str) -> int:
        return sum(getattr(arena, name) for arena in arenas)

    share, error = census.sampled_share, census.error_bytes
    return HeapCensus(
        number,
        taken_ns,
        method,
        census.is_complete,
        len(arenas),
        system_bytes=census.system_bytes,
        **{name: total(name) for name in (*_COMMON, "resyncs")},
        mapped_chunks=len(census.mapped),
        mapped_bytes=census.mapped_bytes,
        mapped_resident_bytes=census.mapped_resident_bytes,
        read_bytes=read_bytes,
        duration_ns=duration_ns,
        attempts=census.attempts,
        sampled_permille=None if share is None else round(1000 * share),
        error_permille=None if error is None else -(-1000 * error // max(total("in_use_bytes"), 1)),
    )


#: What the records of a census and of an arena both tell.
_COMMON = (
    "in_use_chunks", "in_use_bytes", "cached_chunks", "cached_bytes", "fast_chunks", "fast_bytes",
    "free_chunks", "free_bytes", "top_bytes", "overhead_bytes", "skipped_bytes", "resident_bytes",
    "free_resident_bytes", "top_resident_bytes",
)  # fmt: skip


def arena_records(number: int, census: Census) -> list[HeapArena]:
    """The largest arenas, in the allocator's own order."""
    by_size = sorted(enumerate(census.arenas), key=lambda item: -item[1].system_bytes)
    return [arena_record(number, *item) for item in sorted(by_size[:ARENAS_AT_ENDS], key=_first)]


def _first(item: tuple[int, ArenaCount]) -> int:
    return item[0]


def arena_record(number: int, index: int, arena: ArenaCount) -> HeapArena:
    """One arena's share of the sums."""
    return HeapArena(
        number,
        index,
        arena.is_complete,
        arena.heaps,
        arena.system_bytes,
        **{name: getattr(arena, name) for name in _COMMON},
    )


def sizes_record(number: int, census: Census) -> HeapSizes:
    """What is in use, by class of size."""
    from leakcase_collector.heap.sizes import by_class

    classes = by_class(census.in_use_sizes())
    return HeapSizes(
        number,
        [smallest for smallest, _, _ in classes],
        [chunks for _, chunks, _ in classes],
        [held for _, _, held in classes],
    )
