"""How full a collected heap is, and whether memory grows by it: managed, or native."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, ObjectTypes, Observation, TypeGrowth
from leakcase_analyzer.findings.books import at
from leakcase_analyzer.findings.native_growth import native_blocks_explain
from leakcase_analyzer.findings.tracks import anonymous_and_swap
from leakcase_analyzer.heap_looks import NOTHING, Amount
from leakcase_analyzer.sentences import Code, Count, Name, Sentence, Share, Size, say
from leakcase_bundle.records import ManagedClasses, ManagedHeap

#: Growth below this says nothing about its parts.
LEAST_GROWTH_BYTES = 256 << 10
MOST_TYPES, MOST_NAMED = 32, 4
#: A part that grew by more than this of the whole took the place of something else.
MORE_THAN_ADDED = 1.5
#: From this share of the growth on, it is the collected heap that grows.
MOST_OF_IT = 0.5


@dataclass(frozen=True)
class ManagedChange:
    """What became of a collected heap between the first look and the last; None: not known."""

    seconds: float
    held_bytes: float
    """What anonymous memory grew by meanwhile."""
    resident_bytes: int
    kept_bytes: int | None
    """Growth of what outlived collections."""
    collections: int | None

    @property
    def share(self) -> float | None:
        """The part of the growth that lies in the collected heap; None where nothing grew."""
        if self.held_bytes < LEAST_GROWTH_BYTES:
            return None
        return min(1.0, max(0.0, self.resident_bytes / self.held_bytes))

    @property
    def is_most(self) -> bool:
        """Whether most of what memory grew by lies in the collected heap."""
        return (self.share or 0.0) >= MOST_OF_IT

    @property
    def fills(self) -> bool:
        """Whether collections left half of what memory grew by, at least: a heap whose pages are
        resident already fills up without any growth of its own."""
        return self.held_bytes >= LEAST_GROWTH_BYTES and self._left_most_of(self.held_bytes)

    @property
    def is_confirmed(self) -> bool:
        """Whether collections left at least half of what the heap grew by."""
        return self.resident_bytes > 0 and self._left_most_of(self.resident_bytes)

    def _left_most_of(self, growth_bytes: float) -> bool:
        return bool(self.collections) and (self.kept_bytes or 0) >= MOST_OF_IT * growth_bytes


@dataclass(frozen=True, kw_only=True)
class ManagedState(Finding):
    """A collected heap at the last look."""

    runtime: str
    heap: ManagedHeap
    change: ManagedChange | None


def managed_heap(evidence: Evidence) -> Iterator[Finding]:
    """The heap at the last look and its change, and the classes of objects that grow."""
    looks = evidence.managed
    if looks:
        last = looks[-1][1]
        change = _change(evidence)
        yield ManagedState(
            claim=_claim(last),
            evidence_for=() if change is None else tuple(_growth_in_words(last.runtime, change)),
            runtime=last.runtime,
            heap=last,
            change=change,
        )
    classes = evidence.managed_classes
    if len(classes) > 1:
        yield _types(classes[0][1], classes[-1][1])
    yield from _native_growth(evidence)


def _native_growth(evidence: Evidence) -> Iterator[Finding]:
    """What of the JVM's own native memory grew most, by purpose."""
    looks = evidence.managed_native
    if len(looks) < 2:
        return
    first, last = (
        dict(zip(look.purposes, look.committed_bytes, strict=False))
        for look in (looks[0][1], looks[-1][1])
    )
    grown = {
        purpose: size - first.get(purpose, 0)
        for purpose, size in last.items()
        if purpose != "java-heap"
    }
    most = max(grown, key=lambda purpose: grown[purpose], default=None)
    if most is not None and grown[most] >= LEAST_GROWTH_BYTES:
        yield Observation(
            claim=say(
                "of what the JVM allocates natively for itself, {purpose} grew most, by {size}",
                purpose=Code(most),
                size=Size(grown[most]),
            ),
            topic="jvm-native-memory",
        )


def lies_in_collected_heap(evidence: Evidence, in_malloc_bytes: float = 0.0) -> bool:
    """Whether most of the growth is of a collected heap, by the runtime's own figures.

    `in_malloc_bytes`: what malloc's blocks in use grew by. Python's objects come from calls that
    can be watched, so that its heap is none of these.
    """
    change = _change(evidence)
    if change is None:
        return False
    if change.is_most:
        return change.resident_bytes > in_malloc_bytes
    # One that only fills is what grows where nothing else is seen to.
    return (
        change.fills
        and in_malloc_bytes < MOST_OF_IT * change.held_bytes
        and not native_blocks_explain(evidence, anonymous_and_swap(evidence))
    )


def _change(evidence: Evidence) -> ManagedChange | None:
    held = anonymous_and_swap(evidence)
    looks = [look for look in evidence.managed if look[1].resident_bytes is not None]
    if held is None or len(looks) < 2:
        return None
    (begun, first), (ended, last) = looks[0], looks[-1]
    before, after = at(held, begun), at(held, ended)
    if before is None or after is None:
        return None
    return ManagedChange(
        seconds=ended - begun,
        held_bytes=after - before,
        resident_bytes=(last.resident_bytes or 0) - (first.resident_bytes or 0),
        kept_bytes=_difference(first.kept_bytes, last.kept_bytes),
        collections=_difference(first.collections, last.collections),
    )


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _claim(heap: ManagedHeap) -> Sentence:
    name = Code(heap.runtime)
    if heap.used_bytes is None:
        return say(
            "the heap of {name} holds {size} in RAM", name=name, size=Size(heap.resident_bytes or 0)
        )
    return say(
        "the heap of {name} holds {used} of objects in {room}",
        name=name,
        used=Size(heap.used_bytes),
        room=Size(heap.resident_bytes or heap.committed_bytes or heap.used_bytes),
    )


def _growth_in_words(runtime: str, change: ManagedChange) -> Iterator[Sentence]:
    share = change.share
    if share is None:
        return
    if change.resident_bytes > MORE_THAN_ADDED * change.held_bytes:
        yield say(
            "the heap of {name} has grown by {size}, and all memory together by {held}",
            name=Code(runtime),
            size=Size(change.resident_bytes),
            held=Size(change.held_bytes),
        )
    else:
        yield say(
            "of {held} that were added {size} lie in the heap of {name}: {share}",
            held=Size(change.held_bytes),
            size=Size(min(max(0, change.resident_bytes), change.held_bytes)),
            name=Code(runtime),
            share=Share(share),
        )
    if change.collections and change.kept_bytes is not None:
        yield say(
            "after {count} what outlived them has changed by {size}",
            count=Count(change.collections, "collection"),
            size=Size(change.kept_bytes),
        )


def _types(first: ManagedClasses, last: ManagedClasses) -> ObjectTypes:
    """What grew by class; a class that is not listed at first counts as what was listed least."""
    before = {name: Amount(count, size) for name, count, size in _rows(first)}
    least = min((size for _, _, size in _rows(first)), default=0) if first.folded_classes else 0
    grown = []
    for name, count, size in _rows(last):
        then = before.get(name, NOTHING)
        if name not in before and least > 0.05 * size:
            continue
        if size > then.size_bytes:
            grown.append(
                TypeGrowth(name=name, count=count - then.count, growth_bytes=size - then.size_bytes)
            )
    types = tuple(sorted(grown, key=lambda one: -one.growth_bytes)[:MOST_TYPES])
    return ObjectTypes(
        claim=_first_in_words(types),
        evidence_for=tuple(_in_words(one) for one in types[1:MOST_NAMED]),
        types=types,
        share=None,
        could_hold_all=None,
        runtime=last.runtime,
    )


def _rows(classes: ManagedClasses) -> list[tuple[str, int, int]]:
    rows = zip(classes.names, classes.counts, classes.sizes_bytes, strict=False)
    return [(str(name), count, size) for name, count, size in list(rows)[:2048]]


def _first_in_words(types: tuple[TypeGrowth, ...]) -> Sentence:
    return _in_words(types[0]) if types else say("the objects of no class have become more")


def _in_words(one: TypeGrowth) -> Sentence:
    return say(
        "objects of {name} grew by {size}: {count}",
        name=Name(one.name),
        size=Size(one.growth_bytes),
        count=Count(one.count, "more object"),
    )
