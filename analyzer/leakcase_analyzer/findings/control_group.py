"""The control group's figure: what of it is the process, and what is page cache."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, Observation, RuledOut
from leakcase_analyzer.findings.tracks import (
    ANONYMOUS,
    KERNEL_SLAB,
    KERNEL_SOCKETS,
    PAGE_CACHE,
)
from leakcase_analyzer.findings.trends import Knowledge, ruled_out, trend
from leakcase_analyzer.sentences import Count, Size, say

#: Growth of the neighbours that is worth a word.
NEIGHBOURS_BYTES = 8 << 20


def control_group(evidence: Evidence) -> Iterator[Finding]:
    """Page cache grows a container's figure and is no leak: the kernel drops it when needed."""
    columns = evidence.columns("cgroup")
    if columns is None:
        return
    facts = evidence.cgroup_facts
    alone = facts is not None and facts.shared_with_processes == 0
    yield from _page_cache(evidence)
    for quantity in (KERNEL_SOCKETS, KERNEL_SLAB):
        found = trend(evidence, quantity, Knowledge(counts=alone))
        if found is None:
            continue
        yield found
        excluded = ruled_out(quantity.what, found) if alone else None
        if excluded is not None:
            yield excluded
    yield from _neighbours(evidence)


def _neighbours(evidence: Evidence) -> Iterator[Finding]:
    """Who else uses up the group's limit, where it has one."""
    facts, columns = evidence.cgroup_facts, evidence.columns("cgroup")
    if facts is None or columns is None or facts.limit_bytes is None:
        return
    if not facts.shared_with_processes:
        return
    yield Observation(
        topic="shared-group",
        claim=say(
            "it shares its control group's limit with {count}",
            count=Count(facts.shared_with_processes, "other process"),
        ),
    )
    group, own = columns.growth("anon_bytes"), trend(evidence, ANONYMOUS)
    if group is None or own is None:
        return
    elsewhere = group - (own.last - own.first)
    if elsewhere > max(NEIGHBOURS_BYTES, own.last - own.first):
        yield Observation(
            topic="neighbours-grow",
            claim=say("those grew by {size} meanwhile, more than it did", size=Size(elsewhere)),
        )


def _page_cache(evidence: Evidence) -> Iterator[Finding]:
    found = trend(evidence, PAGE_CACHE, Knowledge(counts=False))
    if found is None:
        return
    yield found
    if found.last - found.first > 1 << 20:
        yield RuledOut(
            claim=say("page cache in the container's figure"),
            because=say(
                "{size} of what the control group gained is page cache, which the kernel drops "
                "when memory is needed; it was not counted",
                size=Size(found.last - found.first),
            ),
        )
    else:
        excluded = ruled_out("page cache in the container's figure", found)
        if excluded is not None:
            yield excluded
