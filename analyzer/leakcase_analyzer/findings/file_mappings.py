"""Resident pages of mapped files."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding
from leakcase_analyzer.findings.mapped_extent import capped_trend
from leakcase_analyzer.findings.tracks import FILE
from leakcase_analyzer.findings.trends import ruled_out


def file_mappings(evidence: Evidence) -> Iterator[Finding]:
    """Growth counts only where more of files is mapped than before."""
    found = capped_trend(evidence, FILE)
    if found is None:
        return
    yield found
    excluded = ruled_out("growing file mappings", found)
    if excluded is not None:
        yield excluded
