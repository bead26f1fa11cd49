"""What could not be seen of the allocations, why, and what that does to the answer."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen
from leakcase_analyzer.sentences import Sentence, say

#: What each probe of the allocations would have shown, and what its absence does.
TRACE_PROBES = {
    "allocation-trace": ("which code allocates it", "no function or line can be named"),
}
#: Why not, where the collector said more than a reason.
DETAILS = {
    "no-entry-point": "no function of an allocator that is known was found in the program",
    "costly-entry-point": "its allocator's functions could be watched at too high a cost only",
    "calls-too-many": "it calls its allocator too often to be watched at the allowed cost",
    "bpf": "the kernel refused to load the program that watches",
    "perf-event": "the kernel refused the event that the watching hangs on",
    "uprobe": "the kernel could not watch the allocator's functions",
    "tracefs": "the kernel's tracing files are not there or not to be written",
    "bpf-program": "the kernel's verifier did not accept the program that watches",
    "elf": "the program's files could not be opened",
    "symbols": "the program's symbols could not be read",
    "cut-short": "the collector, or what holds its probes, was stopped meanwhile",
    "bpftrace": "bpftrace is not there, or failed",
    "memleak-bpfcc": "memleak-bpfcc is not there, or failed",
}
REASONS = {
    "not-permitted": "the collector was not permitted to watch (it takes root)",
    "not-supported": "this kernel does not offer it",
    "target-gone": "the process had ended by then",
    "over-limit": "there was more of it than is read",
    "over-budget": "it would have cost the process more than was allowed",
    "left-out": "it was left out on request",
    "no-time": "there was no time for it",
}
OTHER_REASON = "watching its allocator failed"
#: Nobody allowed it: then the level as a whole is named as missing.
NOT_ASKED = "not-consented"


def blind_trace(evidence: Evidence) -> Iterator[Finding]:
    """Gaps of the probes that watch allocations."""
    found = {
        (gap.probe, gap.reason, gap.detail or "")
        for gap in evidence.gaps
        if gap.probe in TRACE_PROBES and gap.reason != NOT_ASKED
    }
    for probe, reason, detail in sorted(found):
        what, effect = TRACE_PROBES[probe]
        if evidence.tracing.windows:
            what, effect = "at some times, " + what, "the other times were used"
            if evidence.tracing.tools:
                what, effect = "allocations by our own means", "another tool was used instead"
        yield NotSeen(claim=say(what), because=_why(reason, detail), effect=say(effect))


def _why(reason: str, detail: str) -> Sentence:
    return say(DETAILS.get(detail) or REASONS.get(reason, OTHER_REASON))
