"""Anonymous memory, resident or in swap: the heap, stacks, and all that belongs to no file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen
from leakcase_analyzer.findings.tracks import ANONYMOUS, books_of
from leakcase_analyzer.findings.trends import Knowledge, trend
from leakcase_analyzer.sentences import Size, say
from leakcase_analyzer.series.persistence import LEAST_RETENTION_SHARE

#: Blocks in use that come to less than this, or than this share of what is kept, are at play.
LEAST_IN_USE_BYTES = 1 << 20
LEAST_IN_USE_SHARE = 0.1


def anonymous_memory(evidence: Evidence) -> Iterator[Finding]:
    """Swap counts: a page that was swapped out is held as much as one that was not."""
    found = trend(evidence, ANONYMOUS)
    if found is None:
        return
    known = _in_use_after_all(evidence) if found.growth.reason == "retention-level" else None
    if known is not None:
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


def _in_use_after_all(evidence: Evidence) -> Knowledge | None:
    """What looks before the last say against it that memory which is free now is kept for nothing.

    It may be used again and again. Or what is in use grows within it: resident memory cannot show
    such a leak until that room is used up.
    """
    entries = books_of(evidence).entries
    kept = [entry.kept_bytes or 0 for entry in entries]
    used = [entry.in_use_bytes for entry in entries]
    if min(kept) < LEAST_RETENTION_SHARE * (min(kept) + max(used)):
        room = say("at another look only {kept} were free: it is used again", kept=Size(min(kept)))
        return Knowledge(status="stable", evidence_against=(room,))
    grown = used[-1] - used[0]
    rises = all(a <= b for a, b in pairwise(used))
    if rises and grown >= max(LEAST_IN_USE_BYTES, LEAST_IN_USE_SHARE * kept[-1]):
        more = say(
            "within memory that was kept free, blocks in use grew by {grown} to {used}",
            grown=Size(grown),
            used=Size(used[-1]),
        )
        return Knowledge(status="undecided", evidence_against=(more,))
    return None
