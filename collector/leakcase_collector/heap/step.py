"""One step of the walk over chunks, in Python: the same as ``leakcase_walk`` of the native part.

A chunk says how long it is; whether it is in use, the next one says (PREV_INUSE). So the walk is
one chain, and where a header cannot be (its page is swapped out, or the program wrote to it while
it was read) it looks for the next address from which several headers in a row fit together.
"""

from __future__ import annotations

from array import array

from .layout import (
    GROWTH_BYTES,
    HEADER_BYTES,
    LOOK_AHEAD_BYTES,
    MIN_CHUNK_BYTES,
    PREV_INUSE,
    SIZE_MASK,
    TCACHES,
    TORN_LISTS,
)
from .walk_state import COUNTED_BYTES, DONE, FULL, MORE, Lists, WalkState

#: Headers in a row that must fit together before a lost walk goes on.
_HOPS = 6
_TCACHE_BYTES = frozenset(layout.chunk_bytes for layout in TCACHES)


def step(
    state: WalkState, lists: Lists, content: bytearray, base: int, length: int, is_last: bool
) -> int:
    """Walk as far as the window [base, base + length) goes.

    MORE: a window that starts at `state.position` is needed. DONE: the end was reached. FULL: take
    away what is listed and call again. `is_last`: what follows the window cannot be read.
    """
    words = memoryview(content)[: length & ~7].cast("Q")
    window_end = base + length
    view = _View(words, base, window_end, state)
    margin = HEADER_BYTES if is_last else LOOK_AHEAD_BYTES
    while True:
        if state.position >= state.end:
            return _finish(state)
        if state.lost and not _resync(state, view):
            state.position = max(window_end & ~15, state.position)
            return MORE
        if max(state.listed, state.spans, state.tcaches) >= state.capacity:
            return FULL
        _quick(state, lists, view, window_end - margin)
        if state.position + margin > window_end:
            return MORE
        _careful(state, lists, view)


class _View:
    """The words of one window, and what they say at an address in it."""

    def __init__(self, words: memoryview, base: int, window_end: int, state: WalkState) -> None:
        self.words = words
        self.base = base
        self.window_end = window_end
        self.end, self.top_end, self.forbidden = state.end, state.top_end, state.forbidden
        self.page_bytes = state.page_bytes

    def size(self, p: int) -> int:
        """The chunk's size; 0 where no chunk can begin. The top may have grown beyond `end`."""
        head = self.words[((p - self.base) >> 3) + 1]
        size = head & SIZE_MASK
        if head & self.forbidden or size < MIN_CHUNK_BYTES:
            return 0
        beyond = p + size - self.end
        if beyond > 0 and not (
            self.top_end == self.end
            and head & PREV_INUSE
            and beyond <= GROWTH_BYTES
            and (p + size) % self.page_bytes == 0
        ):
            return 0
        return size

    def is_top(self, p: int, size: int) -> bool:
        return bool(p < self.top_end <= p + size)

    def fits_before(self, p: int, previous: int) -> bool:
        """Where the chunk before is free, prev_size repeats its size."""
        index = (p - self.base) >> 3
        if not previous or self.words[index + 1] & PREV_INUSE:
            return True
        return self.words[index] == previous

    def closes(self, p: int) -> bool:
        """The end of a heap that is full: sysmalloc leaves a header of 16 bytes, then another.

        Or, where less than MINSIZE was left, one header of size 0 at the very end.
        """
        index = (p - self.base) >> 3
        size = self.words[index + 1] & SIZE_MASK
        if size == HEADER_BYTES and p + 32 <= min(self.end, self.window_end):
            following = self.words[index + 3]
            return following & SIZE_MASK in (0, HEADER_BYTES) and bool(following & PREV_INUSE)
        return size == 0 and p + HEADER_BYTES == self.end

    def is_tcache(self, p: int, size: int) -> int:
        """Whether the content has a thread cache's shape: lists that are empty by both accounts."""
        for layout in TCACHES:
            if size == layout.chunk_bytes and p + size <= self.window_end:
                first = ((p - self.base) >> 3) + 2
                middle = first + layout.entries_offset // 8
                entries = self.words[middle : middle + layout.lists]
                counts = self.words[first:middle].cast("B")
                if layout.count_bytes == 2:
                    counts = counts.cast("H")
                most = max(counts)
                if not most or not any(entries):
                    return 0
                nothing = most if layout.is_slots else 0
                torn = sum(
                    (count == nothing) != (entry == 0) for count, entry in zip(counts, entries)
                )
                return int(torn <= TORN_LISTS and not any(entry & 15 for entry in entries))
        return 0

    def is_chain(self, q: int) -> bool:
        """Whether several headers from `q` on fit together, as far as the window shows them."""
        previous = 0
        for hop in range(_HOPS):
            if q == self.end:
                return hop > 0
            if q + HEADER_BYTES > self.window_end:
                return hop > 1
            if not self.fits_before(q, previous):
                return False
            size = self.size(q)
            if not size:
                return hop > 0 and self.closes(q)
            if self.is_top(q, size):
                return hop > 0
            previous = size
            q += size
        return True


def _quick(state: WalkState, lists: Lists, view: _View, last: int) -> None:
    """Walk over what is ordinary, up to address `last`; stop before what wants a closer look."""
    words, base, counts, forbidden = view.words, view.base, lists.counts, view.forbidden
    p, pending, before = state.position, state.pending, state.pending_bytes
    end = state.top_end if p < state.top_end else state.end
    if not pending or state.pending_is_tcache:
        return
    # Chunks that are counted, perhaps listed, and nothing else: no page lies wholly within.
    is_listing = not state.listed_from_bytes
    ordinary = state.page_bytes if is_listing else min(state.page_bytes, state.listed_from_bytes)
    # One place is left for the closer look.
    most = 2 * (state.capacity - state.listed - 1)
    listed: list[int] = []
    used = used_bytes = free = free_bytes = 0
    while p <= last:
        index = (p - base) >> 3
        head = words[index + 1]
        size = head & SIZE_MASK
        if head & forbidden or size < MIN_CHUNK_BYTES or p + size >= end:
            break
        if size in _TCACHE_BYTES or before >= ordinary or len(listed) >= most:
            break
        if head & PREV_INUSE:
            counts[before >> 4] += 1
            used += 1
            used_bytes += before
            if is_listing:
                listed += (pending, before)
        elif words[index] == before:
            free += 1
            free_bytes += before
        else:
            break
        pending, before = p, size
        p += size
    lists.listed[2 * state.listed : 2 * state.listed + len(listed)] = array("Q", listed)
    state.listed += len(listed) // 2
    state.position, state.pending, state.pending_bytes = p, pending, before
    state.in_use_chunks += used
    state.in_use_bytes += used_bytes
    state.free_chunks += free
    state.free_bytes += free_bytes


def _careful(state: WalkState, lists: Lists, view: _View) -> None:
    """One step, whatever is there."""
    p = state.position
    size = view.size(p)
    if not size or not view.fits_before(p, state.pending_bytes if state.pending else 0):
        if not size and view.closes(p):
            _settle(state, lists, view, p)
            closing = min(2 * HEADER_BYTES, state.end - p)
            state.closing_bytes += closing
            state.position = p + closing
        else:
            state.lost = state.pending or p
        state.pending = 0
        return
    _settle(state, lists, view, p)
    if view.is_top(p, size):
        state.found_top, state.found_top_bytes = p, state.top_end - p
        state.position = state.top_end
        state.pending = 0
        return
    state.pending, state.pending_bytes = p, size
    state.pending_is_tcache = view.is_tcache(p, size)
    state.position = p + size


def _resync(state: WalkState, view: _View) -> bool:
    """Go on from the next address where headers fit together; False if none is in the window."""
    for q in range(max(state.position, view.base), view.window_end - HEADER_BYTES + 1, 16):
        if q >= state.end:
            break
        if view.is_chain(q):
            state.lost_bytes += q - state.lost
            state.resyncs += 1
            state.lost = 0
            state.position = q
            return True
    return False


def _settle(state: WalkState, lists: Lists, view: _View, p: int) -> None:
    """Book the chunk before `p`, now that the header at `p` says whether it is in use."""
    chunk, size = state.pending, state.pending_bytes
    if not chunk:
        return
    if view.words[((p - view.base) >> 3) + 1] & PREV_INUSE:
        state.in_use_chunks += 1
        state.in_use_bytes += size
        if size < COUNTED_BYTES:
            lists.counts[size >> 4] += 1
        if size >= state.listed_from_bytes:
            lists.listed[2 * state.listed] = chunk
            lists.listed[2 * state.listed + 1] = size
            state.listed += 1
        if state.pending_is_tcache:
            lists.tcaches[state.tcaches] = chunk
            state.tcaches += 1
        return
    state.free_chunks += 1
    state.free_bytes += size
    # As mtrim does: pages behind the struct malloc_chunk of a free chunk hold nothing.
    low = -(-(chunk + 48) // state.page_bytes) * state.page_bytes
    high = (chunk + size) // state.page_bytes * state.page_bytes
    if low < high:
        lists.spans[2 * state.spans] = low
        lists.spans[2 * state.spans + 1] = high
        state.spans += 1


def _finish(state: WalkState) -> int:
    """The end, with no header after the last chunk: it is not known whether that is in use."""
    lost = state.lost or state.pending
    if lost:
        state.lost_bytes += state.end - lost
        state.lost = state.pending = 0
    return DONE
