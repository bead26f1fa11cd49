"""How much of the process is in swap, where RSS does not show it."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, Observation, RuledOut
from leakcase_analyzer.sentences import CountRate, Share, Size, say

#: Beyond this share of what a process holds, a restart would destroy most of the evidence.
MOSTLY = 0.5
#: Pages read back in per second beyond which a process waits for its memory.
THRASHING_PER_SECOND = 20.0


def swap(evidence: Evidence) -> Iterator[Finding]:
    """Swap counts as memory held; that it is there at all changes what to do first."""
    status = evidence.columns("status")
    if status is None:
        return
    swapped, resident = status.last("swap_bytes"), status.last("rss_bytes")
    if swapped is None or resident is None:
        return
    ever = status.get("swap_bytes")
    if swapped == 0 and ever is not None and not (ever > 0).any():
        yield RuledOut(
            claim=say("growth hidden in swap"),
            because=say("nothing of the process is in swap"),
            brief=say("swap 0 B"),
        )
        return
    grown = status.growth("swap_bytes") or 0.0
    share = swapped / (swapped + resident)
    yield Observation(
        topic="mostly-in-swap" if share > MOSTLY else "swap",
        claim=say(
            "{share} of what it holds ({size}) is in swap, where RSS does not show it",
            share=Share(share),
            size=Size(swapped),
        ),
        evidence_for=(say("swap grew by {size} meanwhile", size=Size(grown)),) if grown > 0 else (),
    )
    yield from _thrashing(evidence)


def _thrashing(evidence: Evidence) -> Iterator[Finding]:
    stat = evidence.columns("stat")
    faults = None if stat is None else stat.growth("major_faults")
    if stat is None or faults is None:
        return
    seconds = float(stat.seconds[-1] - stat.seconds[0])
    if seconds > 0 and faults / seconds >= THRASHING_PER_SECOND:
        yield Observation(
            topic="thrashing",
            claim=say(
                "it waits for pages from disk or swap: {rate}",
                rate=CountRate(faults / seconds, "major fault"),
            ),
        )
