"""Anonymous memory, resident or in swap: the heap, stacks, and all that belongs to no file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen
from leakcase_analyzer.findings.tracks import ANONYMOUS, books_of
from leakcase_analyzer.findings.trends import Knowledge, trend
from leakcase_analyzer.sentences import Sentence, Size, say

#: Blocks in use that come to less than this, or than this share of what is kept, are at play.
LEAST_IN_USE_BYTES = 1 << 20
LEAST_IN_USE_SHARE = 0.1


def anonymous_memory(evidence: Evidence) -> Iterator[Finding]:
    """Swap counts: a page that was swapped out is held as much as one that was not."""
    found = trend(evidence, ANONYMOUS)
    if found is None:
        return
    used_more = _used_more(evidence) if found.growth.reason == "retention-level" else None
    if used_more is not None:
        known = Knowledge(status="undecided", evidence_against=(used_more,))
        found = trend(evidence, ANONYMOUS, known) or found
    yield found
    status = evidence.columns("status")
    if status is not None and status.get("rss_anon_bytes") is None:
        yield NotSeen(
            claim=say("anonymous memory by itself"),
            because=say("the kernel does not tell it from files (before Linux 4.5)"),
            effect=say("all resident memory was judged in its place"),
            weight=0.8,
        )


def _used_more(evidence: Evidence) -> Sentence | None:
    """What is in use grew from look to look within memory that was kept free before.

    Resident memory cannot show such a leak until that room is used up.
    """
    entries = books_of(evidence).entries
    used = [entry.in_use_bytes for entry in entries]
    if len(used) < 2 or any(b < a for a, b in pairwise(used)):
        return None
    last = entries[-1]
    grown = used[-1] - used[0]
    if grown < max(LEAST_IN_USE_BYTES, LEAST_IN_USE_SHARE * (last.kept_bytes or 0)):
        return None
    return say(
        "within memory that was kept free, blocks in use grew by {grown} to {used}",
        grown=Size(grown),
        used=Size(used[-1]),
    )
