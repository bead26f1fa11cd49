"""The census: one walk over everything that glibc's malloc has, and whether it adds up.

Nothing stops meanwhile, so that a busy heap changes under the reader: what does not fit is skipped
and counted, and the walk is repeated while that is much. What is told is the best of the walks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from leakcase_collector.errors import CollectorError, NotSupported, OverBudget
from leakcase_collector.system.clock import monotonic_ns
from leakcase_collector.system.memory import PAGE_BYTES, Memory, MemoryMapping

from . import step as python_step
from .arenas import Arena, HeapNotFound, arena_addresses, find_main_arena, read_arena
from .bins import large_free_chunks
from .cached import FreeList, fastbin_lists, tcache_lists
from .counts import ArenaCount, Census
from .mapped import MappedChunk, Parameters, find_mapped_chunks, find_parameters, is_complete
from .pages import ResidentPages
from .resident import total
from .sampling import SamplingWalker, stride_for
from .stretches import heap_stretches, main_stretches
from .walk import Visit, Walker
from .walk_state import Step

ATTEMPTS = 4
#: A walk that lost no more than this share is not repeated.
_GOOD_SHARE = 0.01
#: One that lost more says nothing that could be relied on.
_USELESS_SHARE = 0.05


class HeapInconsistent(CollectorError):
    """The heap's chunks do not fit together: damaged, or changing faster than it can be read."""

    gap_detail = "heap-inconsistent"


class Budget:
    """What a census, or `what` else, may cost; it is told of every read before it is made."""

    def __init__(
        self, bytes_limit: int, wall_limit_ns: int, what: str = "the census of the heap"
    ) -> None:
        self._what = what
        self.read_bytes = 0
        self._bytes_limit = bytes_limit
        self._wall_limit_ns = wall_limit_ns
        self._deadline_ns = monotonic_ns() + wall_limit_ns

    def anew(self) -> Budget:
        """The same once more, from now on."""
        return Budget(self._bytes_limit, self._wall_limit_ns, self._what)

    @property
    def is_half_spent(self) -> bool:
        """Whether another attempt as dear as all so far would go beyond."""
        left_ns = self._deadline_ns - monotonic_ns()
        return 2 * self.read_bytes > self._bytes_limit or 2 * left_ns < self._wall_limit_ns

    def spend(self, size: int) -> None:
        """OverBudget where `size` more bytes are too many, or the time is up."""
        self.read_bytes += size
        if self.read_bytes > self._bytes_limit or monotonic_ns() > self._deadline_ns:
            raise OverBudget(
                f"{self._what} was given up after {self.read_bytes >> 20} MiB: it would "
                "cost more than it may. The native part (a C compiler at installation) makes it "
                "about ten times cheaper."
            )


def take_census(
    memory: Memory,
    budget: Budget,
    step: Step = python_step.step,
    whole_bytes: int | None = None,
) -> Census:
    """The best of up to `ATTEMPTS` walks.

    A heap of more than `whole_bytes` is estimated from a sample of it, and so is one whose walk
    would cost more than the budget; None: neither. HeapNotFound where glibc's malloc does not serve
    the program, HeapUnsound where its arenas are not as they are known to be, HeapInconsistent
    where no walk came to an end that can be relied on, OverBudget.
    """
    try:
        return _best_walk(memory, budget, step, whole_bytes)
    except OverBudget:
        if not whole_bytes:
            raise
        again = budget.anew()
        census = _best_walk(memory, again, step, 0)
        budget.read_bytes += again.read_bytes
        return census


def _best_walk(memory: Memory, budget: Budget, step: Step, whole_bytes: int | None) -> Census:
    best: Census | None = None
    refusal: CollectorError | None = None
    attempts = 0
    while attempts < ATTEMPTS and not (attempts and budget.is_half_spent):
        attempts += 1
        try:
            census = _walk_once(memory, budget, step, whole_bytes)
        except NotSupported as error:
            refusal = error.with_traceback(None)  # Its frames hold a window's bytes.
            continue
        if best is None or census.skipped_bytes < best.skipped_bytes:
            best = census
        if best.is_complete or best.skipped_bytes <= _GOOD_SHARE * best.system_bytes:
            break
    if best is None:
        assert refusal is not None
        raise refusal
    if best.skipped_bytes > max(_USELESS_SHARE * best.system_bytes, PAGE_BYTES):
        raise HeapInconsistent(
            f"cannot take a census of the heap: {best.skipped_bytes} of its {best.system_bytes} "
            "bytes do not fit together. They are swapped out, change too fast, or are damaged; "
            "try again when the program is idle."
        )
    if not best.system_bytes and not best.mapped:  # set up, and never asked for a block
        raise HeapNotFound(has_glibc=True)
    best.attempts = attempts
    return best


def _walk_once(memory: Memory, budget: Budget, step: Step, whole_bytes: int | None) -> Census:
    tour = walk_arenas(memory, budget, step, whole_bytes=whole_bytes)
    _take_out_cached(ResidentPages(memory), tour)
    mapped = mapped_chunks(memory, budget, tour)
    resident = sum(total(memory.resident_runs(chunk.start, chunk.end)) for chunk in mapped)
    complete = None if tour.parameters is None else is_complete(mapped, tour.parameters)
    return Census(tour.counts, mapped, complete, resident)


@dataclass
class Tour:
    """One walk over all arenas, before what only looks as if in use is taken out."""

    arenas: list[Arena]
    mappings: list[MemoryMapping]
    parameters: Parameters | None
    counts: list[ArenaCount] = field(default_factory=list)
    #: Start and end of each stretch, and whose it is.
    held: list[tuple[int, int, ArenaCount]] = field(default_factory=list)
    tcaches: list[int] = field(default_factory=list)


def walk_arenas(
    memory: Memory,
    budget: Budget,
    step: Step,
    visit: Visit | None = None,
    whole_bytes: int | None = None,
) -> Tour:
    """Count, and show to `visit` if asked for, the chunks of all arenas.

    Where they have more than `whole_bytes`, a sample of them. Errors: those of `take_census`.
    """
    mappings = memory.mappings()
    place = find_main_arena(memory, mappings)
    tour = Tour([], mappings, find_parameters(place, mappings))
    addresses = arena_addresses(ResidentPages(memory), place)
    walker = Walker(memory, budget, step)
    if whole_bytes is not None:
        pages = ResidentPages(memory)
        held = sum(read_arena(pages, place, address).system_bytes for address in addresses)
        if held > whole_bytes:
            walker = SamplingWalker(memory, budget, step, stride_for(held))
    for address in addresses:
        # As late as possible: an arena's top moves while others are walked.
        pages = ResidentPages(memory)
        arena = read_arena(pages, place, address)
        tour.arenas.append(arena)
        if isinstance(walker, SamplingWalker):
            walker.large_free = large_free_chunks(pages, place, arena)
        count = ArenaCount(arena.is_main, arena.system_bytes)
        if arena.is_main:
            stretches, overhead = main_stretches(pages, arena, mappings, tour.parameters)
        else:
            stretches, overhead = heap_stretches(pages, arena, place.layout)
        count.overhead_bytes += overhead
        for stretch in stretches:
            walked = walker.walk(stretch, visit)
            count.add(walked)
            tour.held.append((stretch.start, stretch.end, count))
            tour.tcaches += walked.tcaches
        tour.counts.append(count)
    return tour


def _take_out_cached(pages: ResidentPages, tour: Tour) -> None:
    ordered = sorted(tour.held, key=lambda stretch: stretch[0])
    seen: set[int] = set()
    for is_fast, home, free in free_lists(pages, tour):
        for address, size in free.chunks:
            owner = _owner(ordered, address)
            if owner is not None and address not in seen:
                seen.add(address)
                owner.take_out(size, is_fast)
        # The rest of a list that changed while it was read: as many as its thread says.
        owner = _owner(ordered, home)
        if owner is not None and free.chunk_bytes is not None:
            for _ in range(free.length - len(free.chunks)):
                owner.take_out(free.chunk_bytes, is_fast)


def free_lists(pages: ResidentPages, tour: Tour) -> Iterator[tuple[bool, int, FreeList]]:
    """Lists of what is free and looks as if in use: whether a fastbin, and an address in whose
    arena it is at home."""
    for address in tour.tcaches:
        for free in tcache_lists(pages, address):
            yield False, address, free
    for arena in tour.arenas:
        for free in fastbin_lists(pages, arena.fastbins):
            yield True, arena.top, free


def mapped_chunks(memory: Memory, budget: Budget, tour: Tour) -> list[MappedChunk]:
    """The blocks that have a mapping of their own, ascending."""
    held = [(start, end) for start, end, _ in tour.held]
    spans = anonymous_spans(tour.mappings, held)
    return find_mapped_chunks(memory, budget, spans, tour.parameters)


def _owner(ordered: Sequence[tuple[int, int, ArenaCount]], address: int) -> ArenaCount | None:
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if ordered[middle][0] <= address:
            low = middle + 1
        else:
            high = middle
    if low and address < ordered[low - 1][1]:
        return ordered[low - 1][2]
    return None


def anonymous_spans(
    mappings: Sequence[MemoryMapping], held: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Where mapped chunks may be: private, writable, of no file, no stack, no arena's.

    The kernel may have joined the mapping of an arena's heap with theirs: then what is left of it.
    """
    spans = []
    ordered = sorted(held)
    for mapping in mappings:
        if not (mapping.writable and mapping.is_private):
            continue
        if mapping.path and not mapping.path.startswith(b"[anon"):
            continue
        at = mapping.start
        for start, end in ordered:
            if start >= mapping.end or end <= at:
                continue
            if at < start:
                spans.append((at, start))
            at = -(-end // PAGE_BYTES) * PAGE_BYTES
        if at < mapping.end:
            spans.append((at, mapping.end))
    return spans
