"""A walk over a part of a heap that is too large to be walked: windows at nearly even distances.

One window lies in each stratum of equal length, anywhere in it, but at the same place at every
look: what does not change between two looks changes no figure. In a window the walk finds the
first header as it does where it got lost, and follows the chunks up to the last that begins there.
So a chunk is met as often as its header is. How much of a window is in use needs no header of its
own: what lies before the first header belongs to the chunk before, of which that header says
whether it is in use; and a window without any lies within one chunk, which is in use unless it is
one of the large ones that the arena lists as free.

Neighbouring windows are alike where a heap is clustered: that is why they are spread evenly, and
why the error is told from the differences of neighbours (Wolter, Introduction to Variance
Estimation, 2007, chapter 8).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from leakcase_collector.system.memory import Memory

from .layout import ALIGNMENT, HEADER_BYTES, LOOK_AHEAD_BYTES, PREV_INUSE
from .resident import Spans, overlap, total
from .walk import Estimate, Spending, Stretch, Visit, Walked, Walker
from .walk_state import DONE, FULL, Step, WalkState, new_state

WINDOW_BYTES = 32 << 10
STRIDE_BYTES = 256 << 10
#: More windows than this make the estimate no better in practice, and take seconds.
MOST_WINDOWS = 16_384
#: A stretch of fewer strata is walked as a whole.
_LEAST_STRATA = 16
#: Half the width of an interval that holds the truth in more than 19 of 20 cases, in standard
#: errors: 1.96 for a normal distribution, and these are skewed.
_STANDARD_ERRORS = 2.6
#: Of false headers that a window may begin with, as a share of what is in use.
_FALSE_SHARE = 0.003
_SPREAD = 0x9E3779B97F4A7C15


def stride_for(system_bytes: int) -> int:
    """How far apart the windows are to be in a heap of that size."""
    wanted = -(-system_bytes // MOST_WINDOWS)
    return max(STRIDE_BYTES, -(-wanted // STRIDE_BYTES) * STRIDE_BYTES)


def error_bytes(in_use_bytes: int, variance: float) -> int:
    """A bound of the error that an estimate with this variance has in 19 of 20 cases."""
    return math.ceil(_STANDARD_ERRORS * math.sqrt(variance) + _FALSE_SHARE * in_use_bytes)


class _Seen(NamedTuple):
    """What is known of one window, and how much of that is in use."""

    known_bytes: int
    in_use_bytes: int


class SamplingWalker(Walker):
    """Walks windows of long stretches, and short ones as a whole.

    `large_free` are the large chunks that the arena lists as free, ascending, which is to be told
    before its stretches are walked.
    """

    def __init__(self, memory: Memory, spending: Spending, step: Step, stride_bytes: int) -> None:
        super().__init__(memory, spending, step)
        self._stride_bytes = stride_bytes
        self.large_free: Spans = ()

    def walk(self, stretch: Stretch, visit: Visit | None = None) -> Walked:
        """The chunks of `stretch`, estimated; nothing is shown to `visit` of a long one."""
        top = stretch.top or stretch.end
        if top - stretch.start < _LEAST_STRATA * self._stride_bytes:
            return super().walk(stretch, visit)
        runs = self._memory.resident_runs(stretch.start, stretch.end)
        walked = Walked(resident_bytes=total(runs))
        # The caches of threads begin their heaps: looked at, and not counted.
        self._sample(stretch, stretch.start, stretch.start + WINDOW_BYTES, runs, walked)
        self._take_counts(walked)
        walked = Walked(resident_bytes=walked.resident_bytes, tcaches=walked.tcaches)
        windows = list(self._windows(stretch.start, top))
        seen = [self._sample(stretch, at, end, runs, walked) for at, end in windows]
        self._take_counts(walked)
        looked_at = sum(end - at for at, end in windows)
        _scale(walked, seen, top - stretch.start, looked_at)
        if stretch.top:
            walked.find_top(stretch.top, stretch.end - stretch.top, runs)
        return walked

    def _windows(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        room = (self._stride_bytes - WINDOW_BYTES) // ALIGNMENT + 1
        for number, stratum in enumerate(range(start, end, self._stride_bytes)):
            at = stratum + (number * _SPREAD >> 20) % room * ALIGNMENT
            if at < end:
                yield at, min(at + WINDOW_BYTES, end)

    def _sample(self, stretch: Stretch, at: int, end: int, runs: Spans, walked: Walked) -> _Seen:
        """Walk over the chunks that begin in [at, end)."""
        for low in _starts(runs, at, end):
            state = new_state(stretch.start, stretch.end, stretch.top_end, stretch.forbidden)
            state.position = low
            state.lost = 0 if low == stretch.start else low
            self._read_and_step(state, end + LOOK_AHEAD_BYTES, runs, walked)
            if state.lost and not state.resyncs:
                continue  # no header in this part
            first = low + (state.lost_bytes if state.resyncs else 0)
            leading = first - at if self._is_before_in_use(low, first) else 0
            return self._followed(state, (at, end), runs, walked, leading)
        free = overlap([(at, end)], self.large_free)
        return _Seen(end - at, end - at - free)

    def _followed(
        self,
        state: WalkState,
        window: tuple[int, int],
        runs: Spans,
        walked: Walked,
        leading_bytes: int,
    ) -> _Seen:
        """Go on over holes in the window, and see of its last chunk whether it is in use."""
        at, end = window
        before = state.position
        while not state.lost and state.pending and state.position < end:
            self._read_and_step(state, end + LOOK_AHEAD_BYTES, runs, walked)
            if state.position <= before:
                break
            before = state.position
        in_use, stop = state.in_use_chunks, state.position
        if state.lost:
            stop = state.lost
        elif state.pending:
            pending = state.pending
            self._read_and_step(state, state.position + HEADER_BYTES, runs, walked)
            if state.pending == pending or state.lost:  # its next header is not to be had
                stop = pending
        beyond = max(stop - end, 0) if state.in_use_chunks > in_use else 0
        walked.free_chunks += state.free_chunks
        used = leading_bytes + state.in_use_bytes - beyond
        known = max(min(stop, end) - at, 0)
        return _Seen(known, min(max(used, 0), known))

    def _is_before_in_use(self, base: int, first: int) -> bool:
        head = int.from_bytes(self._buffer[first - base + 8 : first - base + 16], "little")
        return bool(head & PREV_INUSE)

    def _read_and_step(self, state: WalkState, end: int, runs: Spans, walked: Walked) -> int:
        base = state.position
        index = bisect_right(runs, (base, 1 << 64)) - 1
        if index < 0 or runs[index][1] < base + HEADER_BYTES:
            return DONE
        run_end = runs[index][1]
        wanted = min(end, run_end) - base
        self._spending.spend(wanted)
        length = self._memory.read_into(base, memoryview(self._buffer)[:wanted])
        is_last = wanted == HEADER_BYTES or length < wanted or base + length == run_end
        status = FULL
        while status == FULL:
            status = self._step(state, self._lists, self._buffer, base, length, is_last)
            self._take(state, walked, runs)
        return status


def _starts(runs: Spans, at: int, end: int) -> Iterator[int]:
    """Where what is resident of a window begins: once, and behind each hole in it."""
    index = max(bisect_right(runs, (at, 1 << 64)) - 1, 0)
    while index < len(runs) and runs[index][0] < end:
        if runs[index][1] > at:
            yield max(at, runs[index][0])
        index += 1


def _scale(walked: Walked, seen: Sequence[_Seen], body_bytes: int, windows_bytes: int) -> None:
    """Make of what was met an estimate of all of `body_bytes`."""
    known = sum(window.known_bytes for window in seen)
    if not known:
        walked.in_use.clear()
        walked.lost_bytes = body_bytes
        return
    share = sum(window.in_use_bytes for window in seen) / known
    factor = body_bytes / windows_bytes
    walked.in_use = _sizes(walked.in_use, factor, share * body_bytes)
    walked.free_chunks = round(walked.free_chunks * factor)
    walked.free_bytes = max(body_bytes - walked.in_use_bytes, 0)
    walked.free_resident_bytes = min(
        round(walked.free_resident_bytes * factor), walked.free_bytes, walked.resident_bytes
    )
    apart = [window.in_use_bytes - share * window.known_bytes for window in seen]
    differences = sum((b - a) ** 2 for a, b in zip(apart, apart[1:]))
    spread = len(seen) * differences / (2 * max(len(seen) - 1, 1))
    left_out = max(0.0, 1 - known / body_bytes)
    walked.estimate = Estimate(known, body_bytes, left_out * spread * (body_bytes / known) ** 2)


def _sizes(met: Counter[int], factor: float, in_use_bytes: float) -> Counter[int]:
    """So many of each size that they come to `in_use_bytes`.

    Small ones as often as their headers were met. Of those that are larger than a window only
    few headers are: they are made to fill what is left.
    """
    found: Counter[int] = Counter()
    left = in_use_bytes
    large = {size: count for size, count in met.items() if size >= WINDOW_BYTES and count}
    for size, count in met.items():
        if size not in large and count:
            found[size] = round(count * factor)
            left -= size * found[size]
    met_bytes = sum(size * count for size, count in large.items())
    rest = 0.0
    for size in sorted(large):
        rest += large[size] * size / met_bytes * max(left, 0.0)
        found[size] = round(rest / size)
        rest -= found[size] * size
    if not large and left >= WINDOW_BYTES:
        found[int(left) // ALIGNMENT * ALIGNMENT] += 1
    return found
