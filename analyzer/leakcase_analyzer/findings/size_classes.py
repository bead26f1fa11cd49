"""Which sizes of malloc's blocks grow."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.block_looks import LABELS, BlockLook, Holding
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, SizeClasses, SizeGrowth
from leakcase_analyzer.findings.tracks import books_of
from leakcase_analyzer.heap_looks import NOTHING, HeapLook
from leakcase_analyzer.sentences import Count, Name, Sentence, Share, Size, say

#: Classes with less of the growth than this are not named.
LEAST_SHARE = 0.05
LEAST_GROWTH_BYTES = 64 << 10
MOST_PARTS = 6
#: glibc on 64-bit machines: chunks are multiples of 16 bytes of which 8 are its own, and none is
#: smaller than 32 (`request2size`, malloc/malloc.c). One with a mapping of its own is whole pages,
#: 16 bytes of which are its own (`sysmalloc_mmap`).
GRAIN_BYTES = 16
HEADER_BYTES = 8
LEAST_CHUNK_BYTES = 32
MAPPED_FROM_BYTES = 128 << 10
PAGE_BYTES = 4096
EXACT_TO_BYTES = 4096
CLASSES_PER_DOUBLING = 16


def size_classes(evidence: Evidence) -> Iterator[Finding]:
    """Growth by class of size between the first look and the last."""
    looks = [entry.heap for entry in books_of(evidence).entries if entry.heap is not None]
    looks = [look for look in looks if look.sizes]
    if len(looks) < 2:
        return
    parts = _parts(looks[0], looks[-1], evidence.blocks[-1] if evidence.blocks else None)
    if parts:
        yield SizeClasses(
            claim=_claim(parts[0]),
            evidence_for=(
                *(_sentence(part) for part in parts[1:]),
                *(held_in_words(part, part.holding) for part in parts if part.holding is not None),
            ),
            parts=parts,
        )


def _parts(first: HeapLook, last: HeapLook, blocks: BlockLook | None) -> tuple[SizeGrowth, ...]:
    span = last.seconds - first.seconds
    grown = {
        chunk: amount.size_bytes - first.sizes.get(chunk, NOTHING).size_bytes
        for chunk, amount in last.sizes.items()
    }
    total = sum(growth for growth in grown.values() if growth > 0)
    if total < LEAST_GROWTH_BYTES or span <= 0:
        return ()
    return tuple(
        SizeGrowth(
            least_bytes=least,
            most_bytes=most,
            count=last.sizes[chunk].count - first.sizes.get(chunk, NOTHING).count,
            growth_bytes=grown[chunk],
            rate_per_second=grown[chunk] / span,
            share=grown[chunk] / total,
            holding=None if blocks is None else blocks.holding(chunk),
        )
        for chunk in sorted(grown, key=lambda one: grown[one], reverse=True)[:MOST_PARTS]
        if grown[chunk] >= LEAST_SHARE * total
        for least, most in (requested(chunk),)
    )


def requested(chunk_bytes: int) -> tuple[int, int]:
    """The least and the most that a program asks for to get a chunk of a class."""
    largest = chunk_bytes
    if chunk_bytes > EXACT_TO_BYTES:
        octave = 1 << (chunk_bytes.bit_length() - 1)
        largest += octave // CLASSES_PER_DOUBLING - GRAIN_BYTES
    if chunk_bytes <= LEAST_CHUNK_BYTES:
        return 1, largest - HEADER_BYTES
    grain = GRAIN_BYTES
    if chunk_bytes >= MAPPED_FROM_BYTES:
        grain += PAGE_BYTES
    return chunk_bytes - HEADER_BYTES - grain + 1, largest - HEADER_BYTES


def words(part: SizeGrowth) -> str:
    """A class by the sizes that a program asks for."""
    return f"blocks of {part.least_bytes:,} to {part.most_bytes:,} bytes"


def class_words(chunk_bytes: int) -> str:
    """The same, from the class's smallest chunk."""
    least, most = requested(chunk_bytes)
    return f"blocks of {least:,} to {most:,} bytes"


def _claim(part: SizeGrowth) -> Sentence:
    return say(
        "{share} of the growth in use are " + words(part) + " ({count})",
        share=Share(part.share),
        count=Count(part.count, "more block"),
    )


def _sentence(part: SizeGrowth) -> Sentence:
    return say(words(part) + " grew by {size}", size=Size(part.growth_bytes))


def held_in_words(part: SizeGrowth, holding: Holding) -> Sentence:
    """What most blocks of a class are."""
    of_them = "{share} of the " + words(part)
    share = Share(holding.share)
    if holding.class_name is not None:
        name = Name(holding.class_name)
        return say(of_them + " are objects of C++ class {name}", share=share, name=name)
    return say(of_them + f" hold {LABELS[holding.label]}", share=share)
