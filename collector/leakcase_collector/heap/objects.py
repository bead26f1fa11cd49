"""What the blocks of a heap are: C++ objects counted by class, and a sample of all by its contents.

Under glibc's malloc the blocks are known, so that the objects are counted exactly: a block is an
object if its first word is a class's table of virtual functions. Freed blocks do not count, nor do
those that a thread keeps: their first word is a link. Under other allocators every word of
anonymous memory is looked at instead.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.memory import Memory, MemoryMapping

from .arenas import HeapNotFound
from .census import (
    ATTEMPTS,
    Budget,
    HeapInconsistent,
    Tour,
    free_lists,
    mapped_chunks,
    walk_arenas,
)
from .contents import Mapped, label
from .layout import HEADER_BYTES, IS_MMAPPED, SIZE_MASK, WORD_BYTES
from .pages import ResidentPages
from .pick import Pick, SizeClass, WordCount
from .resident import total
from .rtti import ClassNames
from .sizes import size_class
from .walk_state import Step

#: Classes of size whose contents are looked at: those with most bytes.
LABELLED_CLASSES = 48
#: A walk that lost no more than this share is not repeated.
_GOOD_SHARE = 0.01
#: One that lost more says nothing that could be relied on.
_USELESS_SHARE = 0.05
#: Larger blocks are looked at in four places.
_WHOLE_BYTES = 1024
_PLACES = 4
_WINDOW_BYTES = 32 << 10


@dataclass
class LabelCount:
    """The sample of one class of size; `labels` by the words of `contents.label` and ``object``."""

    class_bytes: int
    chunks: int
    size_bytes: int
    sampled: int = 0
    labels: Counter[str] = field(default_factory=Counter)


class ClassCount(NamedTuple):
    """Objects of one class in one class of size; both sizes are 0 where they are not known."""

    name: str
    class_bytes: int
    objects: int
    size_bytes: int


@dataclass
class Objects:
    """What was found. `labels` is None where the blocks are not known."""

    classes: list[ClassCount]
    exact: bool
    labels: list[LabelCount] | None = None


def look_into_blocks(
    memory: Memory, budget: Budget, step: Step, new_pick: Callable[[], Pick], names: ClassNames
) -> Objects:
    """All blocks of glibc's malloc. HeapNotFound, HeapUnsound, HeapInconsistent, OverBudget."""
    walk = _best_walk(memory, budget, step, new_pick)
    tour, pick = walk.tour, walk.pick
    mapped = mapped_chunks(memory, budget, tour)
    if not walk.system_bytes and not mapped:  # set up, and never asked for a block
        raise HeapNotFound(has_glibc=True)
    for chunk in mapped:
        pick.visit(array("Q", (chunk.header, chunk.end - chunk.start)), bytearray(8), 0, 0)
    pages = ResidentPages(memory)
    found = [*pick.words(), *_outside(pages, pick.outside)]
    free = free_lists(pages, tour)
    cached = {address: size for _, _, one in free for address, size in one.chunks}
    sampler = _Sampler(pages, names, Mapped(tour.mappings), cached)
    return Objects(
        _named(found, names),
        not pick.dropped and not walk.skipped_bytes,
        [sampler.look(one) for one in _largest(_without(pick.classes(), cached))],
    )


class _Walk(NamedTuple):
    """One walk over all arenas, and what was noted meanwhile."""

    tour: Tour
    pick: Pick
    skipped_bytes: int
    system_bytes: int

    def has_lost_more_than(self, share: float) -> bool:
        return self.skipped_bytes > share * self.system_bytes


def _best_walk(memory: Memory, budget: Budget, step: Step, new_pick: Callable[[], Pick]) -> _Walk:
    """As in a census: a heap that changes meanwhile is walked again, and the best walk counts."""
    best: _Walk | None = None
    refusal: NotSupported | None = None
    attempts = 0
    while attempts < ATTEMPTS and not (attempts and budget.is_half_spent):
        attempts += 1
        try:
            best = _better(best, _walk_once(memory, budget, step, new_pick()))
        except NotSupported as error:
            # Its frames would hold a pick each, which is the largest thing that we have.
            refusal = error.with_traceback(None)
            continue
        if not best.has_lost_more_than(_GOOD_SHARE):
            break
    if best is None:
        assert refusal is not None
        raise refusal
    if best.has_lost_more_than(_USELESS_SHARE):
        raise HeapInconsistent(
            f"cannot look into the blocks of the heap: {best.skipped_bytes} of its "
            f"{best.system_bytes} bytes do not fit together. They are swapped out, change too "
            "fast, or are damaged; try again when the program is idle."
        )
    return best


def _walk_once(memory: Memory, budget: Budget, step: Step, pick: Pick) -> _Walk:
    tour = walk_arenas(memory, budget, step, visit=pick.visit)
    skipped_bytes = sum(count.skipped_bytes for count in tour.counts)
    return _Walk(tour, pick, skipped_bytes, sum(one.system_bytes for one in tour.counts))


def _better(best: _Walk | None, walk: _Walk) -> _Walk:
    return walk if best is None or walk.skipped_bytes < best.skipped_bytes else best


def look_at_words(
    memory: Memory,
    budget: Budget,
    pick: Pick,
    names: ClassNames,
    mappings: Sequence[MemoryMapping],
    limit_bytes: int,
) -> Objects:
    """Anonymous memory word by word, all of it or of a sample `limit_bytes`."""
    runs = [
        run
        for m in mappings
        if m.writable and m.is_private and not m.path.startswith((b"/", b"[stack", b"[v"))
        for run in memory.resident_runs(m.start, m.end)
    ]
    every = max(1, -(-total(runs) // limit_bytes))
    buffer = bytearray(_WINDOW_BYTES)
    number = looked_bytes = 0
    for start, end in runs:
        for at in range(start, end, _WINDOW_BYTES):
            number += 1
            if number % every:
                continue
            wanted = min(_WINDOW_BYTES, end - at)
            budget.spend(wanted)
            length = memory.read_into(at, memoryview(buffer)[:wanted])
            pick.scan(buffer, length)
            looked_bytes += length
    scale = total(runs) / looked_bytes if looked_bytes else 1.0
    classes = [
        one._replace(objects=round(one.objects * scale))
        for one in _named(list(pick.words()), names)
    ]
    return Objects(classes, every == 1 and not pick.dropped)


def _outside(pages: ResidentPages, listed: array[int]) -> Iterator[WordCount]:
    for address, size in zip(listed[::2], listed[1::2]):
        first = pages.words(address + HEADER_BYTES, 1)
        if first is not None:
            yield WordCount(first[0], size_class(size), 1, size)


def _named(found: Sequence[WordCount], names: ClassNames) -> list[ClassCount]:
    """By name and class of size, most objects first. One class may have several tables."""
    counts: Counter[tuple[str, int]] = Counter()
    sizes: Counter[tuple[str, int]] = Counter()
    for one in found:
        name = names.name_of(one.word)
        if name is not None:
            counts[name, one.class_bytes] += one.blocks
            sizes[name, one.class_bytes] += one.size_bytes
    classes = [ClassCount(*key, count, sizes[key]) for key, count in counts.items()]
    return sorted(classes, key=lambda one: (-one.objects, one.name, one.class_bytes))


def _without(classes: Iterator[SizeClass], cached: dict[int, int]) -> Iterator[SizeClass]:
    """Blocks that a thread or a fastbin keeps are not in use."""
    chunks: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for size in cached.values():
        chunks[size_class(size)] += 1
        sizes[size_class(size)] += size
    for one in classes:
        key = one.class_bytes
        # Some of the cached ones may have been handed out since they were counted.
        left = max(one.chunks - chunks[key], 0)
        left_bytes = max(one.size_bytes - sizes[key], 0)
        if left and left_bytes:
            yield one._replace(chunks=left, size_bytes=left_bytes)


def _largest(classes: Iterator[SizeClass]) -> list[SizeClass]:
    largest = sorted(classes, key=lambda one: -one.size_bytes)[:LABELLED_CLASSES]
    return sorted(largest, key=lambda one: one.class_bytes)


class _Sampler:
    """Looks at the contents of blocks."""

    def __init__(
        self, pages: ResidentPages, names: ClassNames, mapped: Mapped, cached: dict[int, int]
    ) -> None:
        self._pages = pages
        self._names = names
        self._mapped = mapped
        self._cached = cached

    def look(self, found: SizeClass) -> LabelCount:
        count = LabelCount(found.class_bytes, found.chunks, found.size_bytes)
        for address in found.sampled:
            if address in self._cached:
                continue
            pieces = self._pieces(address, found.class_bytes)
            if pieces:
                count.sampled += 1
                name = self._label(pieces)
                if name is not None:
                    count.labels[name] += 1
        return count

    def _pieces(self, address: int, class_bytes: int) -> list[bytes]:
        """Some of the contents, as far as they are in RAM; none if the block changed its size."""
        header = self._pages.words(address, 2)
        if header is None:
            return []
        size = header[1] & SIZE_MASK
        if not header[1] & IS_MMAPPED and size_class(size) != class_bytes:
            return []
        start, room = address + HEADER_BYTES, size - HEADER_BYTES
        if not header[1] & IS_MMAPPED:
            room += WORD_BYTES  # The prev_size of the next chunk is this one's while it is in use.
        if room <= _WHOLE_BYTES:
            places = [(start, room)]
        else:
            piece = _WHOLE_BYTES // _PLACES
            step = (room - piece) // (_PLACES - 1) // WORD_BYTES * WORD_BYTES
            places = [(start + step * number, piece) for number in range(_PLACES)]
        read = [self._pages.read(*place) for place in places]
        return [content for content in read if content is not None]

    def _label(self, pieces: list[bytes]) -> str | None:
        first = int.from_bytes(pieces[0][:WORD_BYTES], "little")
        if self._names.name_of(first) is not None:
            return "object"
        labels = {label(piece, self._mapped) for piece in pieces}
        # What is not filled yet does not say what the rest is.
        labels = labels - {"zero"} or labels
        return labels.pop() if len(labels) == 1 else None
