"""The chunks of one stretch of memory: what is in use, by size, and what is free.

The twins of a step (`step`, and ``leakcase_walk`` in C) see one window of memory at a time; here
they are fed with those windows, of resident pages only, and what they find is added up.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from leakcase_collector.system.memory import Memory

from . import step as python_step
from .walk_state import COUNTED_BYTES, DONE, FULL, Lists, Step, WalkState, new_state

#: What is read at once. It bounds our memory, and how long the target's mmap lock is held.
WINDOW_BYTES = 1 << 20


class Stretch(NamedTuple):
    """Memory of one arena without gaps, from its first chunk to its end.

    `top_end` is the end of the arena's top where that is in it, else 0. `forbidden` are the bits
    that no header there may have.
    """

    start: int
    end: int
    top_end: int
    forbidden: int


@dataclass
class Walked:
    """What a stretch holds. `tcaches`: chunks that look like a thread's cache."""

    in_use: Counter[int] = field(default_factory=Counter)
    free_chunks: int = 0
    free_bytes: int = 0
    #: Whole pages within free chunks, by ascending address.
    free_spans: list[tuple[int, int]] = field(default_factory=list)
    top: int = 0
    top_bytes: int = 0
    closing_bytes: int = 0
    lost_bytes: int = 0
    resyncs: int = 0
    tcaches: list[int] = field(default_factory=list)
    #: In-use chunks (address, size) that were asked for.
    listed: list[tuple[int, int]] = field(default_factory=list)
    #: Parts that were in RAM.
    runs: list[tuple[int, int]] = field(default_factory=list)

    @property
    def in_use_bytes(self) -> int:
        return sum(size * count for size, count in self.in_use.items())

    @property
    def accounted_bytes(self) -> int:
        return self.in_use_bytes + self.free_bytes + self.top_bytes + self.closing_bytes


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

    def walk(self, stretch: Stretch, listed_from_bytes: int = COUNTED_BYTES) -> Walked:
        """All chunks of `stretch`; in-use ones of `listed_from_bytes` and more are listed, too."""
        state = new_state(stretch.start, stretch.end, stretch.top_end, stretch.forbidden)
        state.listed_from_bytes = min(listed_from_bytes, COUNTED_BYTES)
        runs = self._memory.resident_runs(stretch.start, stretch.end)
        walked = Walked(runs=list(runs))
        while state.position < stretch.end:
            at = bisect_right(runs, (state.position, stretch.end)) - 1
            if at < 0 or runs[at][1] <= state.position:
                if at + 1 == len(runs):
                    break
                _lose(state, runs[at + 1][0])
                continue
            if self._window(state, runs[at][1], walked) == DONE:
                break
        _lose(state, stretch.end)
        walked.lost_bytes = state.lost_bytes + (stretch.end - state.lost if state.lost else 0)
        self._take(state, walked)
        _take_counts(self._lists, walked, listed_from_bytes)
        walked.free_chunks, walked.free_bytes = state.free_chunks, state.free_bytes
        walked.top, walked.top_bytes = state.found_top, state.found_top_bytes
        walked.closing_bytes, walked.resyncs = state.closing_bytes, state.resyncs
        return walked

    def _window(self, state: WalkState, run_end: int, walked: Walked) -> int:
        base = state.position
        wanted = min(WINDOW_BYTES, run_end - base)
        self._spending.spend(wanted)
        length = self._memory.read_into(base, memoryview(self._buffer)[:wanted])
        is_last = length < wanted or base + length == run_end
        status = FULL
        while status == FULL:
            status = self._step(state, self._lists, self._buffer, base, length, is_last)
            self._take(state, walked)
        if status != DONE and is_last and state.position < run_end:
            # Unmapped since, or a header that begins at the very end of what can be read.
            _lose(state, run_end)
        return status

    def _take(self, state: WalkState, walked: Walked) -> None:
        lists = self._lists
        walked.listed += _pairs(lists.listed, state.listed)
        walked.free_spans += _pairs(lists.spans, state.spans)
        walked.tcaches += lists.tcaches[: state.tcaches]
        state.listed = state.spans = state.tcaches = 0


def _lose(state: WalkState, position: int) -> None:
    """Nothing can be read up to `position`: what is there stays unknown."""
    if state.position < position:
        state.lost = state.lost or state.pending or state.position
        state.pending = 0
        state.position = position


def _pairs(flat: Sequence[int], count: int) -> list[tuple[int, int]]:
    return list(zip(flat[: 2 * count : 2], flat[1 : 2 * count : 2]))


def _take_counts(lists: Lists, walked: Walked, listed_from_bytes: int) -> None:
    """Sizes counted by the step, and of larger chunks by the list; the counts are reset."""
    counts = lists.counts
    for index, count in enumerate(counts):
        if count:
            walked.in_use[16 * index] = count
    ctypes.memset(counts.buffer_info()[0], 0, len(counts) * counts.itemsize)
    for _, size in walked.listed:
        if size >= COUNTED_BYTES:
            walked.in_use[size] += 1
    if listed_from_bytes > COUNTED_BYTES:
        walked.listed = [(a, size) for a, size in walked.listed if size >= listed_from_bytes]
