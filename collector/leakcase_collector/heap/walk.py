"""The chunks of one stretch of memory: what is in use, by size, and what is free.

The twins of a step (`step`, and ``leakcase_walk`` in C) see one window of memory at a time; here
they are fed with those windows, of resident pages only, and what they find is added up.
"""

from __future__ import annotations

import ctypes
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable, NamedTuple, Optional, Protocol

from leakcase_collector.system.memory import PAGE_BYTES, Memory

from . import step as python_step
from .layout import ALIGNMENT, MIN_CHUNK_BYTES, PREV_INUSE, SIZE_MASK
from .pages import ResidentPages
from .resident import overlap, total
from .walk_state import COUNTED_BYTES, DONE, FULL, Lists, Step, WalkState, new_state

#: What is read at once. It bounds our memory, and how long the target's mmap lock is held.
WINDOW_BYTES = 1 << 20


class Stretch(NamedTuple):
    """Memory of one arena without gaps, from its first chunk to its end.

    `top_end` is the end of the arena's top where that is in it, else 0, and `top` where it began
    when the arena was read. `forbidden` are the bits that no header there may have.
    """

    start: int
    end: int
    top_end: int
    forbidden: int
    top: int = 0


class Estimate(NamedTuple):
    """How much of a stretch was walked, of how much, and the variance of its bytes in use."""

    looked_at_bytes: int
    body_bytes: int
    variance: float


@dataclass
class Walked:
    """What a stretch holds. `tcaches`: chunks that look like a thread's cache."""

    in_use: Counter[int] = field(default_factory=Counter)
    free_chunks: int = 0
    free_bytes: int = 0
    #: Whole pages in RAM within one free chunk each; and within the top.
    free_resident_bytes: int = 0
    top_resident_bytes: int = 0
    resident_bytes: int = 0
    top: int = 0
    top_bytes: int = 0
    closing_bytes: int = 0
    lost_bytes: int = 0
    resyncs: int = 0
    tcaches: list[int] = field(default_factory=list)
    #: Set where not all of it was walked.
    estimate: Optional[Estimate] = None

    @property
    def in_use_bytes(self) -> int:
        return sum(size * count for size, count in self.in_use.items())

    @property
    def accounted_bytes(self) -> int:
        return self.in_use_bytes + self.free_bytes + self.top_bytes + self.closing_bytes

    def find_top(self, top: int, size: int, runs: Sequence[tuple[int, int]]) -> None:
        """The top is there: resident are its pages but that of its header, which stays when
        malloc_trim gives the top back."""
        self.top, self.top_bytes = top, size
        first = -(-(top + MIN_CHUNK_BYTES) // PAGE_BYTES) * PAGE_BYTES
        self.top_resident_bytes = overlap([(first, max(first, top + size))], runs)


#: (addresses and sizes in turn of chunks in use, bytes of a window, its address, its length): the
#: window last read, which shows all of them but the beginnings of a few that lie before it.
Visit = Callable[["array[int]", bytearray, int, int], None]


class Spending(Protocol):
    """Is told of every read before it is made; raises OverBudget where it may not be."""

    def spend(self, size: int) -> None: ...


class Walker:
    """Walks stretches of one memory, with buffers of its own. `step` is either of the twins."""

    def __init__(self, memory: Memory, spending: Spending, step: Step = python_step.step) -> None:
        self._memory = memory
        self._spending = spending
        self._step = step
        self._lists = Lists.empty()
        self._buffer = bytearray(WINDOW_BYTES)

    def walk(self, stretch: Stretch, visit: Optional[Visit] = None) -> Walked:
        """All chunks of `stretch`; those in use are also shown to `visit`, one by one."""
        state = new_state(stretch.start, stretch.end, stretch.top_end, stretch.forbidden)
        state.listed_from_bytes = COUNTED_BYTES if visit is None else 0
        runs = self._memory.resident_runs(stretch.start, stretch.end)
        walked = Walked(resident_bytes=total(runs))
        while state.position < stretch.end:
            at = bisect_right(runs, (state.position, stretch.end)) - 1
            if at < 0 or runs[at][1] <= state.position:
                if at + 1 == len(runs):
                    break
                _lose(state, runs[at + 1][0])
            elif self._window(state, runs, at, walked, visit) == DONE:
                break
        _lose(state, stretch.end)
        self._find_shrunk_top(state)
        walked.lost_bytes = state.lost_bytes + (stretch.end - state.lost if state.lost else 0)
        self._take_counts(walked)
        walked.free_chunks, walked.free_bytes = state.free_chunks, state.free_bytes
        if state.found_top:
            walked.find_top(state.found_top, state.found_top_bytes, runs)
        walked.closing_bytes, walked.resyncs = state.closing_bytes, state.resyncs
        return walked

    def _find_shrunk_top(self, state: WalkState) -> None:
        """Nothing was found behind a chunk that ends with a page: it is the top, trimmed since."""
        if not state.lost or state.top_end != state.end:
            return
        header = ResidentPages(self._memory).words(state.lost, 2)
        size = header[1] & SIZE_MASK if header is not None and header[1] & PREV_INUSE else 0
        if size >= MIN_CHUNK_BYTES and (state.lost + size) % PAGE_BYTES == 0:
            state.found_top, state.found_top_bytes = state.lost, state.end - state.lost
            state.lost = 0

    def _window(
        self,
        state: WalkState,
        runs: Sequence[tuple[int, int]],
        at: int,
        walked: Walked,
        visit: Optional[Visit],
    ) -> int:
        base, run_end = state.position, runs[at][1]
        wanted = min(WINDOW_BYTES, run_end - base)
        self._spending.spend(wanted)
        length = self._memory.read_into(base, memoryview(self._buffer)[:wanted])
        is_last = length < wanted or base + length == run_end
        status = FULL
        while status == FULL:
            status = self._step(state, self._lists, self._buffer, base, length, is_last)
            if visit is not None and state.listed:
                visit(self._lists.listed[: 2 * state.listed], self._buffer, base, length)
            self._take(state, walked, runs)
        if status != DONE and is_last and state.position < run_end:
            # Unmapped since, or a header that begins at the very end of what can be read.
            _lose(state, run_end)
        return status

    def _take(self, state: WalkState, walked: Walked, runs: Sequence[tuple[int, int]]) -> None:
        lists = self._lists
        spans = lists.spans[: 2 * state.spans]
        walked.free_resident_bytes += overlap(list(zip(spans[::2], spans[1::2])), runs)
        walked.tcaches += lists.tcaches[: state.tcaches]
        sizes = lists.listed[1 : 2 * state.listed : 2]
        walked.in_use.update(size for size in sizes if size >= COUNTED_BYTES)
        state.listed = state.spans = state.tcaches = 0

    def _take_counts(self, walked: Walked) -> None:
        counts = self._lists.counts
        for index, count in enumerate(counts):
            if count:
                walked.in_use[ALIGNMENT * index] = count
        ctypes.memset(counts.buffer_info()[0], 0, len(counts) * counts.itemsize)


def _lose(state: WalkState, position: int) -> None:
    """Nothing can be read up to `position`: what is there stays unknown."""
    if state.position < position:
        state.lost = state.lost or state.pending or state.position
        state.pending = 0
        state.position = position
