"""Blocks that nothing refers to any more: leaked, during the capture or before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen, Observation
from leakcase_analyzer.findings.size_classes import class_words
from leakcase_analyzer.findings.tracks import books_of
from leakcase_analyzer.heap_looks import NOTHING
from leakcase_analyzer.sentences import Count, Sentence, Share, Size, say
from leakcase_bundle.records import HeapUnreachable

#: A class with this much of it is worth naming.
LEADING_SHARE = 0.3
#: Registers that a function keeps for its caller (System V ABI, AMD64): a system call's caller may
#: have a reference there and nowhere else, and they are not told.
HIDDEN_REGISTERS = 6
#: Growth between two looks below this says nothing about its parts.
LEAST_GROWTH_BYTES = 256 << 10
#: Growth is explained where this share of it is, and is not where less than that is.
MOST_OF_IT, HARDLY_ANY = 0.5, 0.1
#: What was leaked beyond what was added by this much was leaked before.
EARLIER_SHARE, EARLIER_BYTES = 0.25, 1 << 20


@dataclass(frozen=True, kw_only=True)
class Unreachable(Observation):
    """Blocks without a reference, and what of the growth between two looks they may be."""

    size_bytes: int
    blocks: int
    certain: bool
    """More than what registers may hold, and nothing was in swap, unread."""
    growth_bytes: int | None
    """What classes of size grew by between the first look and the last; None: not known."""
    explained_bytes: int

    @property
    def explained_share(self) -> float | None:
        """The part of that growth whose classes have as much without a reference."""
        if self.growth_bytes is None or self.growth_bytes < LEAST_GROWTH_BYTES:
            return None
        return self.explained_bytes / self.growth_bytes


def unreachable(evidence: Evidence) -> Iterator[Finding]:
    """How much, in which blocks, and what the search could not look at."""
    record = evidence.unreachable
    if record is None:
        return
    found = _found(evidence, record)
    yield found
    yield from (Observation(topic="unreachable", claim=line) for line in _details(found, record))
    yield from _not_seen(record)
    if evidence.runtime is None:  # A runtime's pools are told by its own counts of objects.
        yield NotSeen(
            claim=say("what is leaked within pools of the program's own"),
            because=say("such a pool is one block to malloc, and is referred to as a whole"),
            effect=say("only whole blocks of malloc are found to be unreachable"),
        )


def _found(evidence: Evidence, record: HeapUnreachable) -> Unreachable:
    grown = _grown(evidence)
    leaked = dict(zip(record.chunk_bytes, record.class_bytes, strict=False))
    explained = sum(min(size, leaked.get(chunk, 0)) for chunk, size in (grown or {}).items())
    # What the walk lost or did not know was searched for references; only swap was not.
    hidden = HIDDEN_REGISTERS * record.threads
    certain = not record.swapped_bytes and record.direct_chunks > hidden
    return Unreachable(
        topic="unreachable",
        claim=_claim(record, certain, hidden),
        size_bytes=record.unreachable_bytes,
        blocks=record.unreachable_chunks,
        certain=certain,
        growth_bytes=None if grown is None else sum(grown.values()),
        explained_bytes=explained,
    )


def _grown(evidence: Evidence) -> Mapping[int, int] | None:
    """What each class of size that is more than at the first look grew by; None: not known."""
    looks = [entry.heap for entry in books_of(evidence).entries if entry.heap is not None]
    looks = [look for look in looks if look.sizes]
    if len(looks) < 2:
        return None
    first, last = looks[0].sizes, looks[-1].sizes
    grown = {
        chunk: amount.size_bytes - first.get(chunk, NOTHING).size_bytes
        for chunk, amount in last.items()
    }
    return {chunk: size for chunk, size in grown.items() if size > 0}


def _claim(record: HeapUnreachable, certain: bool, hidden: int) -> Sentence:
    size, blocks = Size(record.unreachable_bytes), Count(record.unreachable_chunks, "block")
    if not record.unreachable_chunks:
        return say(
            "something still refers to each of {blocks} in use: if it leaks, it is still kept",
            blocks=Count(record.looked_at_chunks, "block"),
        )
    if certain:
        return say(
            "{size} in {blocks} are leaked for certain: nothing refers to them any more",
            size=size,
            blocks=blocks,
        )
    if record.direct_chunks <= hidden:
        return say(
            "no reference was found to {size} in {blocks}: so few may be in use all the same, by "
            "references in registers alone",
            size=size,
            blocks=blocks,
        )
    return say("no reference was found to {size} in {blocks}", size=size, blocks=blocks)


def _details(found: Unreachable, record: HeapUnreachable) -> Iterator[Sentence]:
    few = record.direct_chunks <= HIDDEN_REGISTERS * record.threads
    if not found.blocks or (few and not found.certain):
        return
    classes = list(zip(record.class_bytes, record.chunk_bytes, strict=False))
    most_bytes, chunk = max(classes, default=(0, 0))
    if most_bytes >= LEADING_SHARE * found.size_bytes:
        yield say(
            "{share} of that are " + class_words(chunk), share=Share(most_bytes / found.size_bytes)
        )
    grown, share = found.growth_bytes, found.explained_share
    if share is not None and share >= MOST_OF_IT:
        yield say(
            "that is {share} of what was added between two looks: not a cache, which would refer "
            "to it",
            share=Share(share),
        )
    elif share is not None and share < HARDLY_ANY:
        yield say("what was added between two looks is still referred to: a cache, or a kept list")
    earlier = None if grown is None else found.size_bytes - found.explained_bytes
    if earlier is not None and earlier >= max(EARLIER_BYTES, EARLIER_SHARE * found.size_bytes):
        yield say("{size} of that leaked before the first look", size=Size(earlier))


def _not_seen(record: HeapUnreachable) -> Iterator[Finding]:
    if not record.complete:
        yield NotSeen(
            claim=say("all references to what is in use"),
            because=say("some of the process's memory was in swap or could not be read"),
            effect=say("a block that is only referred to from there looks unreachable"),
            weight=0.97,
        )
    if record.unreachable_chunks:
        yield NotSeen(
            claim=say("references that are no plain addresses"),
            because=say("tagged or compressed pointers, and those that only the kernel holds"),
            effect=say("a block that is only referred to that way looks unreachable"),
        )
