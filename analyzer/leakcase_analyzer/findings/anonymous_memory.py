"""Anonymous memory, resident or in swap: the heap, stacks, and all that belongs to no file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen, Trend
from leakcase_analyzer.findings.tracks import ANONYMOUS, books_of
from leakcase_analyzer.findings.trends import Knowledge, trend
from leakcase_analyzer.sentences import Size, say
from leakcase_analyzer.series.persistence import LEAST_RETENTION_BYTES, LEAST_RETENTION_SHARE

#: Blocks in use that come to less than this, or than this share of what is kept, are at play.
LEAST_IN_USE_BYTES = 1 << 20
LEAST_IN_USE_SHARE = 0.1
#: A look within this last part of the window speaks for its end.
LATE_SHARE = 0.1
#: Growth is the allocator's where most of it is free and hardly any is in use: the shares of the
#: rule that judges the books of both ends (step a of series/persistence.py).
MOST_OF_IT, HARDLY_IN_USE = 0.5, 0.35


def anonymous_memory(evidence: Evidence) -> Iterator[Finding]:
    """Swap counts: a page that was swapped out is held as much as one that was not."""
    found = trend(evidence, ANONYMOUS)
    if found is None:
        return
    known = _freed_again(evidence, found)
    if found.growth.reason == "retention-level":
        known = _in_use_after_all(evidence)
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


def _freed_again(evidence: Evidence, found: Trend) -> Knowledge | None:
    """What one look at the end says of growth, where none at the beginning can be compared.

    What is in use grew by no more than what is in use now; and of what is kept free, no more than
    was held at the beginning can have been kept then.
    """
    last, grown = books_of(evidence).last, found.last - found.first
    if found.status in ("stable", "retention") or last is None or last.kept_bytes is None:
        return None
    is_late = last.seconds >= (1 - LATE_SHARE) * evidence.window_seconds
    kept_growth = last.kept_bytes - found.first
    if not is_late or grown < LEAST_RETENTION_BYTES or kept_growth < MOST_OF_IT * grown:
        return None
    if last.in_use_bytes > HARDLY_IN_USE * grown:
        return None
    freed = say(
        "of {grown} that were added no more than {used}, all that is, can be in use",
        grown=Size(grown),
        used=Size(last.in_use_bytes),
    )
    return Knowledge(status="retention", evidence_for=(freed,))


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
