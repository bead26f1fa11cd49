"""Memory held on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, RuledOut, Track
from leakcase_analyzer.findings.tracks import Quantity
from leakcase_analyzer.findings.trends import ruled_out, trend
from leakcase_analyzer.sentences import say


def _find(evidence: Evidence) -> Track | None:
    """The source with the most readings: two sources count the same memory twice."""
    found = [c for c in evidence.gpu.values() if len(c)]
    if not found:
        return None
    most = max(found, key=len)
    return Track(most.seconds, most.values["held_bytes"])


GPU = Quantity("GPU memory", "gpu", "bytes", _find)


def gpu_memory(evidence: Evidence) -> Iterator[Finding]:
    """GPU memory that grows, or that there is none of it."""
    found = trend(evidence, GPU)
    if found is not None:
        yield found
        excluded = ruled_out("growing GPU memory", found)
        if excluded is not None:
            yield excluded
        return
    looked = any(cost.probe == "gpu" and cost.runs > 0 for cost in evidence.costs)
    blind = any(gap.probe == "gpu" for gap in evidence.gaps)
    last = evidence.snapshots[-1] if evidence.snapshots else None
    mapped = last is None or any(key[0] == "gpu-device" for key in last.regions)
    if looked and not blind and not mapped:
        yield RuledOut(
            claim=say("growing GPU memory"),
            because=say("the process has no GPU device open or mapped"),
            brief=say("no GPU in use"),
        )
