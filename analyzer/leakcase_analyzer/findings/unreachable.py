"""Blocks that nothing refers to any more: leaked for certain, during the capture or before it."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen, Observation
from leakcase_analyzer.findings.size_classes import class_words
from leakcase_analyzer.sentences import Count, Share, Size, say

#: A class with this much of it is worth naming.
LEADING_SHARE = 0.3


def unreachable(evidence: Evidence) -> Iterator[Finding]:
    """How much, in which blocks, and what the search could not look at."""
    found = evidence.unreachable
    if found is None:
        return
    size, chunks = found.unreachable_bytes, found.unreachable_chunks
    if not chunks:
        yield Observation(
            topic="unreachable",
            claim=say(
                "something still refers to each of {blocks} in use: if it leaks, it is still kept",
                blocks=Count(found.looked_at_chunks, "block"),
            ),
        )
    else:
        yield Observation(
            topic="unreachable",
            claim=say(
                "{size} in {blocks} are leaked for certain: nothing refers to them any more",
                size=Size(size),
                blocks=Count(chunks, "block"),
            ),
        )
        classes = list(zip(found.class_bytes, found.chunk_bytes, strict=False))
        most_bytes, chunk = max(classes, default=(0, 0))
        if most_bytes >= LEADING_SHARE * size:
            yield Observation(
                topic="unreachable",
                claim=say(
                    "{share} of that are " + class_words(chunk), share=Share(most_bytes / size)
                ),
            )
    if not found.complete:
        yield NotSeen(
            claim=say("all references to what is in use"),
            because=say("some of the process's memory was in swap or could not be read"),
            effect=say("a block that is only referred to from there looks unreachable"),
            weight=0.97,
        )
