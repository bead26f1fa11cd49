"""Findings: each file looks at the evidence for one thing and says what it found, for and against.

A finding knows nothing of the verdict and nothing of reports. A new one is a file here and a line
in FINDINGS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.activity import activity
from leakcase_analyzer.findings.allocator_words import allocator_words
from leakcase_analyzer.findings.anonymous_memory import anonymous_memory
from leakcase_analyzer.findings.base import Finding
from leakcase_analyzer.findings.blind_heap import blind_heap
from leakcase_analyzer.findings.blind_spots import blind_spots
from leakcase_analyzer.findings.blind_trace import blind_trace
from leakcase_analyzer.findings.bounds import bounds
from leakcase_analyzer.findings.control_group import control_group
from leakcase_analyzer.findings.cpp_classes import cpp_classes
from leakcase_analyzer.findings.descriptors import descriptors
from leakcase_analyzer.findings.file_mappings import file_mappings
from leakcase_analyzer.findings.gpu_memory import gpu_memory
from leakcase_analyzer.findings.limits import limits
from leakcase_analyzer.findings.managed_heap import managed_heap
from leakcase_analyzer.findings.object_types import object_types
from leakcase_analyzer.findings.regions import regions
from leakcase_analyzer.findings.retention import retention
from leakcase_analyzer.findings.shared_memory import shared_memory
from leakcase_analyzer.findings.size_classes import size_classes
from leakcase_analyzer.findings.sockets import sockets
from leakcase_analyzer.findings.survivors import survivors
from leakcase_analyzer.findings.swap import swap
from leakcase_analyzer.findings.threads import threads
from leakcase_analyzer.findings.unreachable import unreachable

FINDINGS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    anonymous_memory,
    file_mappings,
    shared_memory,
    gpu_memory,
    threads,
    descriptors,
    sockets,
    swap,
    control_group,
    regions,
    retention,
    allocator_words,
    size_classes,
    object_types,
    managed_heap,
    cpp_classes,
    unreachable,
    survivors,
    activity,
    bounds,
    limits,
    blind_heap,
    blind_trace,
    blind_spots,
)


def find_all(evidence: Evidence) -> tuple[Finding, ...]:
    """Every finding about a case, in the order of FINDINGS."""
    return tuple(finding for find in FINDINGS for finding in find(evidence))
