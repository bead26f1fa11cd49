"""Shared memory: memfd, tmpfs, System V, and anonymous mappings shared with children."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, Trend
from leakcase_analyzer.findings.mapped_extent import capped_trend
from leakcase_analyzer.findings.tracks import GROUP_SHARED, SHARED
from leakcase_analyzer.findings.trends import Knowledge, ruled_out, trend
from leakcase_analyzer.sentences import say


def shared_memory(evidence: Evidence) -> Iterator[Finding]:
    """What the process has mapped, and what its control group holds unmapped."""
    mapped = capped_trend(evidence, SHARED)
    unmapped = _unmapped(evidence, mapped)
    for found in (mapped, unmapped):
        if found is not None:
            yield found
    if unmapped is None:
        excluded = ruled_out("growing shared memory", mapped)
        if excluded is not None:
            yield excluded


def _unmapped(evidence: Evidence, mapped: Trend | None) -> Trend | None:
    """Files in tmpfs and memfds that are written and not mapped: only the group's figure grows."""
    found = trend(evidence, GROUP_SHARED)
    if found is None or found.status != "leak" or (mapped is not None and mapped.rises):
        return None
    facts = evidence.cgroup_facts
    alone = facts is not None and facts.shared_with_processes == 0
    return trend(
        evidence,
        GROUP_SHARED,
        Knowledge(
            counts=alone,
            evidence_for=(say("the process has not mapped it: a file in tmpfs, or a memfd"),),
            evidence_against=()
            if alone
            else (say("other processes of the control group may hold it"),),
        ),
    )
