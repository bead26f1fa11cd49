"""Which types of Python's objects grow, and whether they are what memory grows by."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen, ObjectTypes, TypeGrowth
from leakcase_analyzer.findings.books import at
from leakcase_analyzer.findings.tracks import anonymous_and_swap, books_of
from leakcase_analyzer.heap_looks import NOTHING, Amount, PythonLook
from leakcase_analyzer.sentences import Count, Name, Sentence, Share, Size, say

MOST_TYPES = 32
#: Types in words: the first, and so many more.
MOST_NAMED = 4
#: But for those that grew by less than this of what the first did.
WORTH_NAMING = 0.01
#: Less growth than this is noise of any interpreter at work.
LEAST_GROWTH_BYTES = 64 << 10
#: Of what a type had at first nothing is known where it was not among the listed ones; it counts
#: as none where it can have been no more than this of what the type has at last.
MOST_UNLISTED_SHARE = 0.05
REFERENCE_BYTES = 8


def object_types(evidence: Evidence) -> Iterator[Finding]:
    """Growth by type between the first look and the last."""
    looks = evidence.python
    # Where the lists could not be walked, what is larger than a pool's block is missing.
    whole = [look for look in looks if look.total.tracked_bytes is not None]
    if len(looks) < 2:
        return
    first, last = (whole[0], whole[-1]) if len(whole) > 1 else (looks[0], looks[-1])
    types = _types(first, last)
    if first.total.tracked_bytes is None or last.total.tracked_bytes is None:
        yield NotSeen(
            claim=say("Python's objects of more than 512 bytes"),
            because=say("the collector's lists changed faster than they could be walked"),
            effect=say("growth by type is that of smaller objects"),
        )
    grown = _growth_bytes(first, last)
    yield ObjectTypes(
        claim=_claim(types, grown),
        evidence_for=tuple(
            _sentence(one)
            for one in types[1:MOST_NAMED]
            if grown >= LEAST_GROWTH_BYTES
            and one.growth_bytes >= WORTH_NAMING * types[0].growth_bytes
        ),
        types=types,
        share=_share(evidence, first, last, grown),
        could_hold_all=_could_hold_all(evidence, grown),
    )


def _types(first: PythonLook, last: PythonLook) -> tuple[TypeGrowth, ...]:
    grown = []
    for name, after in last.types.items():
        before = first.types.get(name, NOTHING)
        unlisted = name not in first.types and first.least_listed_bytes
        if unlisted > MOST_UNLISTED_SHARE * after.size_bytes:
            continue
        if after.size_bytes > before.size_bytes:
            grown.append(_growth(name, before, after))
    return tuple(sorted(grown, key=lambda one: -one.growth_bytes)[:MOST_TYPES])


def _growth(name: str, before: Amount, after: Amount) -> TypeGrowth:
    return TypeGrowth(
        name=name,
        count=after.count - before.count,
        growth_bytes=after.size_bytes - before.size_bytes,
    )


def _growth_bytes(first: PythonLook, last: PythonLook) -> int:
    """What Python's objects grew by, at least: as counted, or as pymalloc's own books say."""
    objects = last.object_bytes - first.object_bytes
    blocks = last.block_bytes - first.block_bytes
    return max(objects, blocks) if first.has_pools and last.has_pools else objects


def _share(evidence: Evidence, first: PythonLook, last: PythonLook, grown: int) -> float | None:
    track = anonymous_and_swap(evidence)
    before = None if track is None else at(track, first.seconds)
    after = None if track is None else at(track, last.seconds)
    if before is None or after is None or after - before < LEAST_GROWTH_BYTES:
        return None
    return min(1.0, max(0.0, grown / (after - before)))


def _could_hold_all(evidence: Evidence, grown: int) -> bool | None:
    """Whether objects may refer to all that malloc has in use more than at first.

    Strings and bytes of more than 512 bytes are malloc's blocks and are not counted, but each that
    is kept costs a reference in an object that is. None: malloc's books are not known.
    """
    ends = books_of(evidence).ends
    if ends is None or ends[0].heap is None or ends[1].heap is None:
        return None
    before, after = ends[0].heap.total, ends[1].heap.total
    blocks = after.in_use_chunks + after.mapped_chunks - before.in_use_chunks - before.mapped_chunks
    return max(0, grown) / REFERENCE_BYTES >= 0.5 * blocks


def _claim(types: tuple[TypeGrowth, ...], grown: int) -> Sentence:
    if types and grown >= LEAST_GROWTH_BYTES:
        return say(
            "Python's objects grew by {all}; {name} by {size}: {count}",
            all=Size(grown),
            name=Name(types[0].name),
            size=Size(types[0].growth_bytes),
            count=Count(types[0].count, "more object"),
        )
    if grown >= LEAST_GROWTH_BYTES:
        return say("Python's objects grew by {all}", all=Size(grown))
    return say("Python's objects did not grow")


def _sentence(one: TypeGrowth) -> Sentence:
    return say(
        "{name} grew by {size}: {count}",
        name=Name(one.name),
        size=Size(one.growth_bytes),
        count=Count(one.count, "more object"),
    )


def share_in_words(share: float) -> Sentence:
    """The part of the growth that Python's objects are."""
    return say("Python's objects are {share} of the growth", share=Share(share))
