"""Blocks that nothing refers to any more: leaked, before we came as well as since.

The program runs meanwhile, so that one look may miss a reference that moves from where was not
looked yet to where was. So looks are repeated, and only a block counts that no look found a
reference to, at the same address, of the same size and with the same content.
"""

from __future__ import annotations

import ctypes
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Callable, NamedTuple, Optional

from leakcase_collector.errors import OverBudget
from leakcase_collector.system.memory import PAGE_BYTES, Memory

from . import step as python_step
from .blocks import Blocks
from .census import ATTEMPTS, Budget, HeapInconsistent, Tour, mapped_chunks, walk_arenas
from .chunks import Chunks, Listing
from .layout import ARENA_LAYOUTS, HEADER_BYTES, HEAP_ALIGNMENT, SIZE_MASK
from .mapped import is_complete
from .marking import Marking, NativeMarking, PythonMarking
from .pages import ResidentPages
from .roots import Span, ThreadState, root_spans
from .walk_state import native_step

PAUSE_SECONDS = 0.6
#: Without the native part: so much takes some ten seconds for each look.
PYTHON_LIMIT_BYTES = 64 << 20
_WINDOW_BYTES = 1 << 20
#: As in a census: what loses more is walked again, and is of no use.
_GOOD_SHARE, _USELESS_SHARE = 0.002, 0.05


class Look(NamedTuple):
    """What one look found; `threads_running` are those whose registers were not told."""

    chunks: int
    chunk_bytes: int
    root_bytes: int
    skipped_bytes: int
    is_complete: bool
    threads: int
    threads_running: int
    blocks: Blocks


class Unreachable(NamedTuple):
    """What no look found a reference to. The figures beside are those of the last look.

    `unsteady_chunks`: how many were unreachable in the first look and do not count.
    """

    last: Look
    passes: int
    unsteady_chunks: int
    blocks: Blocks

    def sizes(self) -> Counter[int]:
        return Counter(block.size_bytes for block in self.blocks)


class Walk(NamedTuple):
    """One walk over the heap, and the chunks that it showed."""

    tour: Tour
    listing: Listing

    @property
    def lost_bytes(self) -> int:
        return sum(count.skipped_bytes for count in self.tour.counts)

    def lost_more_than(self, share: float) -> bool:
        held = sum(count.system_bytes for count in self.tour.counts)
        return self.lost_bytes > max(share * held, PAGE_BYTES)


class Means(NamedTuple):
    """What may be used: the native part, if it is there, and so much memory of the host's."""

    library: Optional[ctypes.CDLL]
    room_bytes: Optional[int] = None

    def walk(self, memory: Memory, budget: Budget) -> Walk:
        step = python_step.step if self.library is None else native_step(self.library)
        listing = Listing()
        return Walk(walk_arenas(memory, budget, step, listing.visit), listing)

    def marking(self, chunks: Chunks, spans: list[Span]) -> Marking:
        in_use_bytes = sum(chunks.sizes)
        tables_bytes = in_use_bytes // 2
        if self.room_bytes is not None and tables_bytes > self.room_bytes:
            raise OverBudget(
                f"cannot look for unreachable memory: that may take {tables_bytes >> 20} MiB, "
                f"and of this host's memory {self.room_bytes >> 20} MiB may be used. Capture where "
                "there is more."
            )
        if self.library is not None:
            return NativeMarking(chunks, spans, self.library)
        if in_use_bytes > PYTHON_LIMIT_BYTES:
            raise OverBudget(
                "cannot look for unreachable memory: that takes too long for so large a heap "
                "without the native part. Install where there is a C compiler."
            )
        return PythonMarking(chunks)


def find_unreachable(
    memory: Memory,
    budget: Budget,
    read_threads: Callable[[], list[ThreadState]],
    means: Means,
    pause_seconds: float = PAUSE_SECONDS,
) -> Unreachable:
    """Two looks, or three where what seemed unreachable turned out not to be.

    Nothing moves in a core file: there `pause_seconds` is 0, and one look is enough. Errors: those
    of `take_census`.
    """
    looks = [look_once(memory, budget, read_threads, means)]
    blocks = looks[0].blocks
    if pause_seconds and len(blocks):
        for _ in range(2):
            time.sleep(pause_seconds)
            looks.append(look_once(memory, budget, read_threads, means))
            common = looks[-1].blocks.also_in(blocks)
            is_steady = len(common) == len(blocks)
            blocks = common
            if is_steady:
                break
            blocks = blocks.without(partial(_is_listed_as_free, ResidentPages(memory)))
    return Unreachable(looks[-1], len(looks), len(looks[0].blocks) - len(blocks), blocks)


def _is_listed_as_free(pages: ResidentPages, address: int, size: int) -> bool:
    """Whether a chunk was freed into a list that could not be followed, as it changed meanwhile.

    Its first word is then a link as 2.32 and later store it (PROTECT_PTR of malloc/malloc.c): to
    nothing, or to a chunk of the same size.
    """
    at = address + HEADER_BYTES
    words = pages.words(at, 1)
    if words is None:
        return False
    link = words[0] ^ at >> 12
    if not link:
        return True
    headers = [pages.words(link - lead, 2) for lead in (0, HEADER_BYTES) if link % 16 == 0]
    return any(header is not None and header[1] & SIZE_MASK == size for header in headers)


def look_once(
    memory: Memory,
    budget: Budget,
    read_threads: Callable[[], list[ThreadState]],
    means: Means,
) -> Look:
    """One marking of everything, from the roots as they are now."""
    walk = _walk(memory, budget, means)
    tour = walk.tour
    mapped = mapped_chunks(memory, budget, tour)
    gaps = list(_gaps(walk)) if walk.lost_bytes else []
    # A mapped block ends with its mapping: it has no chunk behind it whose first word is its own.
    blocks = [chunk._replace(size_bytes=chunk.size_bytes - 8) for chunk in mapped]
    heap = [(start, end) for start, end, _ in tour.held]
    heap += [(chunk.start, chunk.end) for chunk in mapped]
    chunks = walk.listing.chunks(memory, tour, blocks)
    spans = _whole_pages(heap)
    marking = means.marking(chunks, spans)
    _scan(memory, budget, marking, spans)
    threads = read_threads()
    holes = sorted([*heap, *_own_structures(tour)])
    roots = root_spans(memory.mappings(), threads, holes) + gaps
    root_bytes = sum(_mark(memory, budget, marking, roots))
    registers = array("Q", (word & (1 << 64) - 1 for thread in threads for word in thread.words))
    marking.roots(bytearray(registers.tobytes()), 8 * len(registers))
    marking.spread()
    return Look(
        chunks=len(chunks.addresses),
        chunk_bytes=sum(chunks.sizes),
        root_bytes=root_bytes,
        skipped_bytes=walk.lost_bytes,
        is_complete=all(count.is_complete for count in tour.counts)
        and tour.parameters is not None
        and is_complete(mapped, tour.parameters),
        threads=len(threads),
        threads_running=sum(1 for thread in threads if thread.stack_pointer is None),
        blocks=Blocks.of(chunks, marking),
    )


def _walk(memory: Memory, budget: Budget, means: Means) -> Walk:
    best = means.walk(memory, budget)
    for _ in range(ATTEMPTS - 1):
        if not best.lost_more_than(_GOOD_SHARE) or budget.is_half_spent:
            break
        again = means.walk(memory, budget)
        best = again if again.lost_bytes < best.lost_bytes else best
    if best.lost_more_than(_USELESS_SHARE):
        raise HeapInconsistent(
            f"cannot look for unreachable memory: {best.lost_bytes} bytes of the heap do not fit "
            "together. They are swapped out, change too fast, or are damaged; try again when the "
            "program is idle."
        )
    return best


def _gaps(walk: Walk) -> Iterator[Span]:
    """What of the heap is no known chunk: a block that the walk lost may hold references, too."""
    tops = {arena.top: arena.top_end for arena in walk.tour.arenas}
    pieces = sorted(walk.listing.pieces, key=lambda piece: piece[0][0])
    for start, end, _ in sorted(walk.tour.held, key=lambda held: held[0]):
        at = start
        for addresses, sizes in pieces:
            if start <= addresses[0] < end:
                for address, size in zip(addresses, sizes):
                    if at < address:
                        yield tops.get(at, at), address
                    at = address + size
        at = tops.get(at, at)
        if at < end:
            yield at, end


def _own_structures(tour: Tour) -> Iterator[Span]:
    """malloc's own books, which lead to free chunks: struct malloc_state, and heap_info."""
    main = tour.arenas[0]
    layout = next(lay for lay in ARENA_LAYOUTS if bool(lay.fastbins_offset) == bool(main.fastbins))
    yield main.address, main.address + layout.size_bytes
    for start, _, count in tour.held:
        if not count.is_main:
            yield start & -HEAP_ALIGNMENT, start


def _whole_pages(spans: Iterable[Span]) -> list[Span]:
    """As whole pages, ascending, joined where they meet."""
    whole: list[Span] = []
    for start, end in sorted(spans):
        low, high = start // PAGE_BYTES * PAGE_BYTES, -(-end // PAGE_BYTES) * PAGE_BYTES
        if whole and low <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(high, whole[-1][1]))
        else:
            whole.append((low, high))
    return whole


def _scan(memory: Memory, budget: Budget, marking: Marking, spans: Iterable[Span]) -> None:
    content = bytearray(_WINDOW_BYTES)
    for span in spans:
        for low, high in memory.resident_runs(*span):
            at = low
            while (at := max(at, marking.next_address() // PAGE_BYTES * PAGE_BYTES)) < high:
                wanted = min(_WINDOW_BYTES, high - at)
                budget.spend(wanted)
                got = memory.read_into(at, memoryview(content)[:wanted])
                marking.scan(content, at, got)
                if got < wanted:
                    break
                at += got


def _mark(memory: Memory, budget: Budget, marking: Marking, spans: Iterable[Span]) -> Iterator[int]:
    content = bytearray(_WINDOW_BYTES)
    for span in spans:
        for low, high in memory.resident_runs(*span):
            for at in range(low, high, _WINDOW_BYTES):
                wanted = min(_WINDOW_BYTES, high - at)
                budget.spend(wanted)
                got = memory.read_into(at, memoryview(content)[:wanted])
                marking.roots(content, got)
                yield got
