"""Anonymous memory, resident or in swap: the heap, stacks, and all that belongs to no file."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen
from leakcase_analyzer.findings.tracks import ANONYMOUS
from leakcase_analyzer.findings.trends import trend
from leakcase_analyzer.sentences import say


def anonymous_memory(evidence: Evidence) -> Iterator[Finding]:
    """Swap counts: a page that was swapped out is held as much as one that was not."""
    found = trend(evidence, ANONYMOUS)
    if found is None:
        return
    yield found
    status = evidence.columns("status")
    if status is not None and status.get("rss_anon_bytes") is None:
        yield NotSeen(
            claim=say("anonymous memory by itself"),
            because=say("the kernel does not tell it from files (before Linux 4.5)"),
            effect=say("all resident memory was judged in its place"),
            weight=0.8,
        )
