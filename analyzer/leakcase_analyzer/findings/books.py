"""What the allocators of the process have in use and keep free, at each look.

For CPython two allocators count: malloc, and pymalloc, whose arenas the interpreter maps by
itself, so that they are none of malloc's (`_PyObject_ArenaMmap`, Objects/obmalloc.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from leakcase_analyzer.columns import Floats
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Track
from leakcase_analyzer.heap_looks import HeapLook, PythonLook
from leakcase_analyzer.sentences import Sentence, Share, Size, say

#: Two looks no further apart than this, or than this share of the window, are one moment.
SAME_MOMENT_SECONDS = 2.0
SAME_MOMENT_SHARE = 0.05
#: A look speaks for another time where memory has changed by no more than this in between.
STILL_TRUE_SHARE = 0.1
STILL_TRUE_BYTES = 1 << 20
#: Books that lack more of the arenas than this cannot be compared.
MOST_SKIPPED_SHARE = 0.1
#: Between a census and the sample beside it a process may grow by this much of what it holds.
SLACK_SHARE = 0.1
SLACK_BYTES = 1 << 20


@dataclass(frozen=True)
class Told:
    """What an allocator said of itself; `kept_bytes` None where that is address space only."""

    in_use_bytes: int
    kept_bytes: int | None


@dataclass(frozen=True)
class Entry:
    """The books at one moment, in resident bytes; None: not known."""

    seconds: float
    heap: HeapLook | None
    python: PythonLook | None
    told: Told | None = None
    """The allocator's own words, where its books were not read."""

    @property
    def in_use_bytes(self) -> int:
        """Blocks in use, of malloc and of pymalloc."""
        native = 0 if self.told is None else self.told.in_use_bytes
        native = native if self.heap is None else self.heap.in_use_bytes
        return native + (0 if self.python is None else self.python.block_bytes)

    @property
    def error_bytes(self) -> float:
        """A bound of the error of both figures; 0 where malloc's heap was not estimated."""
        return 0.0 if self.heap is None else self.heap.error_bytes

    @property
    def kept_bytes(self) -> int | None:
        """Freed and kept, by malloc and by pymalloc."""
        native = 0 if self.told is None else self.told.kept_bytes
        native = native if self.heap is None else self.heap.kept_bytes
        if native is None:
            return None
        return native + (0 if self.python is None else self.python.kept_bytes)


@dataclass(frozen=True)
class Books:
    """The usable looks in order of time, and why others are not used."""

    entries: tuple[Entry, ...]
    """Those that can be compared: of the same allocators each."""
    last: Entry | None
    """The last look, with all that is known of that moment: pymalloc's books of another one where
    the memory held has hardly changed since."""
    doubts: tuple[Sentence, ...]

    @property
    def ends(self) -> tuple[Entry, Entry] | None:
        """The first and the last entry of two or more."""
        return (self.entries[0], self.entries[-1]) if len(self.entries) > 1 else None


def read_books(evidence: Evidence, held: Track | None) -> Books:
    """The books of a case; `held` is its anonymous memory, which they must fit into."""
    looks, doubts = [], []
    for look in evidence.heap:
        doubt = _doubt(look, None if held is None else at(held, look.seconds))
        if doubt is None:
            looks.append(look)
        else:
            doubts.append(doubt)
    pools = [look for look in evidence.python if look.has_pools]
    near = max(SAME_MOMENT_SECONDS, SAME_MOMENT_SHARE * evidence.window_seconds)
    entries = _entries(looks, pools, near) or _told(evidence, held)
    return Books(
        entries=_comparable(entries),
        last=_with_pools(entries[-1], pools, held) if entries else None,
        doubts=tuple(dict.fromkeys(doubts)),
    )


def _comparable(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Entries of the same allocators: those of both where there are such, else malloc's alone."""
    both = tuple(one for one in entries if one.heap is not None and one.python is not None)
    if len(both) > 1 or len(both) == len(entries) or any(one.heap is None for one in entries):
        return both or entries
    return tuple(replace(one, python=None) for one in entries)


def _entries(
    looks: Sequence[HeapLook], pools: Sequence[PythonLook], near: float
) -> tuple[Entry, ...]:
    """Each look into malloc's heap with pymalloc's books of that moment, where there are any."""
    if not looks:
        return tuple(Entry(one.seconds, None, one) for one in pools)
    found = []
    for look in looks:
        other = min(pools, key=lambda one: abs(one.seconds - look.seconds), default=None)
        is_near = other is not None and abs(other.seconds - look.seconds) <= near
        found.append(Entry(look.seconds, look, other if is_near else None))
    return tuple(found)


def _with_pools(last: Entry, pools: Sequence[PythonLook], held: Track | None) -> Entry:
    """On a busy host the two counts of one moment may lie many seconds apart."""
    if last.heap is None or last.python is not None:
        return last
    true = [one for one in pools if still_true(held, one.seconds, last.seconds)]
    nearest = min(true, key=lambda one: abs(one.seconds - last.seconds), default=None)
    return replace(last, python=nearest)


def still_true(held: Track | None, seconds: float, later: float) -> bool:
    """Whether what a look found at one time speaks for another; `held`: all anonymous memory."""
    if held is None:
        return False
    then, now = at(held, seconds), at(held, later)
    if then is None or now is None:
        return False
    return abs(now - then) <= max(STILL_TRUE_BYTES, STILL_TRUE_SHARE * now)


def _told(evidence: Evidence, held: Track | None) -> tuple[Entry, ...]:
    """By the allocator's own words. What it keeps is bounded by what the process holds beside what
    is in use: jemalloc's figure is the most that can be resident."""
    found = []
    for look in evidence.words:
        used, kept = look.in_use_bytes, look.kept_bytes
        holds = None if held is None else at(held, look.seconds)
        if used is None or (holds is not None and used > holds * (1 + SLACK_SHARE) + SLACK_BYTES):
            continue  # Much of it was never touched: it is no memory yet.
        if kept is not None and holds is not None:
            kept = min(kept, max(0, round(holds) - used))
        found.append(Entry(look.seconds, None, None, Told(used, kept)))
    return tuple(found)


def _doubt(look: HeapLook, held_bytes: float | None) -> Sentence | None:
    """Why a look is not to be relied on, or None."""
    total = look.total
    if total.skipped_bytes > MOST_SKIPPED_SHARE * max(1, total.system_bytes):
        return say(
            "{share} of its heaps could not be accounted for",
            share=Share(total.skipped_bytes / max(1, total.system_bytes)),
        )
    if look.error_bytes > MOST_SKIPPED_SHARE * max(1, total.system_bytes):
        return say("its estimate may be wrong by {error}", error=Size(look.error_bytes))
    resident = total.resident_bytes
    if resident is None or held_bytes is None:
        return None
    shown = resident + (total.mapped_resident_bytes or 0)
    if shown > held_bytes * (1 + SLACK_SHARE) + SLACK_BYTES:
        return say(
            "they show {shown} in RAM where the process held {held}",
            shown=Size(shown),
            held=Size(held_bytes),
        )
    return None


def at(track: Track, seconds: float) -> float | None:
    """The measured value nearest to a time."""
    known = np.flatnonzero(np.isfinite(track.values))
    if not known.size:
        return None
    nearest = known[np.argmin(np.abs(track.seconds[known] - seconds))]
    return float(track.values[nearest])


def beside(books: Books, track: Track) -> tuple[Floats, Floats] | None:
    """Bytes in use and bytes kept, each at the samples nearest to the looks; None: no look.

    All else is NaN: what lies between two looks was not measured.
    """
    if not books.entries or not track.seconds.size:
        return None
    used, kept = np.full(track.seconds.size, np.nan), np.full(track.seconds.size, np.nan)
    for entry in books.entries:
        place = int(np.argmin(np.abs(track.seconds - entry.seconds)))
        used[place] = entry.in_use_bytes
        kept[place] = np.nan if entry.kept_bytes is None else entry.kept_bytes
    return used, kept
