"""What the growth will meet, and when; and what the kernel has killed already."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import (
    Bound,
    Finding,
    Observation,
    RuledOut,
    TimeToLimit,
    Trend,
)
from leakcase_analyzer.findings.bounds import bounds
from leakcase_analyzer.findings.mapped_extent import capped_trend
from leakcase_analyzer.findings.tracks import (
    ADDRESS_SPACE,
    ANONYMOUS,
    DESCRIPTORS,
    SHARED,
)
from leakcase_analyzer.findings.trends import amount, trend
from leakcase_analyzer.sentences import Count, Span, say

RAISE = "raise it"


def limits(evidence: Evidence) -> Iterator[Finding]:
    """Time to the control group's limit, the host's memory, and the process's own limits."""
    held = [capped_trend(evidence, quantity) for quantity in (ANONYMOUS, SHARED)]
    rate = sum(_rate(found) for found in held)
    yield from _group(evidence, rate)
    yield from _host(evidence, rate)
    yield from _collected_heap(evidence, rate)
    own = evidence.limits
    if own is not None:
        space = trend(evidence, ADDRESS_SPACE)
        if space is not None and own.address_space_bytes is not None:
            yield from _meets(
                "the process's address space limit RLIMIT_AS",
                "bytes",
                own.address_space_bytes,
                own.address_space_bytes - space.last,
                _rate(space),
                RAISE,
            )
        opened = trend(evidence, DESCRIPTORS)
        if opened is not None and own.open_files is not None:
            yield from _meets(
                "the process's limit of open files",
                "fds",
                own.open_files,
                own.open_files - opened.last,
                _rate(opened),
                RAISE,
            )
    yield from _kills(evidence)


def _rate(found: Trend | None) -> float:
    """Growth per second where there is a leak's, else 0: nobody runs into a limit by noise."""
    if found is None or found.status != "leak":
        return 0.0
    return found.growth.rate_per_second or 0.0


def _group(evidence: Evidence, rate: float) -> Iterator[Finding]:
    facts, columns = evidence.cgroup_facts, evidence.columns("cgroup")
    limit = None if facts is None else facts.limit_bytes
    current = None if columns is None else columns.last("current_bytes")
    if columns is None or limit is None or current is None:
        return
    droppable = columns.last("inactive_file_bytes") or 0.0
    room = limit - (current - droppable)
    yield from _meets("the control group's memory limit", "bytes", limit, room, rate, RAISE)


def _host(evidence: Evidence, rate: float) -> Iterator[Finding]:
    columns = evidence.columns("host")
    available = None if columns is None else columns.last("available_bytes")
    if columns is None or available is None:
        return
    room = available + (columns.last("swap_free_bytes") or 0.0)
    yield from _meets(
        "the end of the host's free memory and swap", "bytes", room, room, rate, "make room there"
    )


def _collected_heap(evidence: Evidence, rate: float) -> Iterator[Finding]:
    """The limit of a collected heap, by what its collections leave."""
    looks = [(at, heap.kept_bytes) for at, heap in evidence.managed if heap.kept_bytes is not None]
    if rate <= 0 or len(looks) < 2:
        return
    (begun, first), (ended, last) = looks[0], looks[-1]
    for bound in bounds(evidence):
        if isinstance(bound, Bound) and bound.managed_only and ended > begun:
            kept_rate = min(rate, (last - first) / (ended - begun))
            limit = "the limit of its collected heap, " + bound.setting
            size = bound.bound_bytes
            yield from _meets(limit, "bytes", size, size - last, kept_rate, RAISE)


def _meets(
    limit: str, unit: str, most: float, room: float, rate: float, way_out: str
) -> Iterator[Finding]:
    if rate <= 0:
        return
    seconds = max(0.0, room) / rate
    yield TimeToLimit(
        claim=say(
            "at this rate it meets " + limit + " ({most}) in {span}",
            most=amount(unit, most),
            span=Span(seconds),
        ),
        limit=limit,
        limit_amount=most,
        seconds=seconds,
        way_out=way_out,
    )


def _kills(evidence: Evidence) -> Iterator[Finding]:
    own = [kill for kill in evidence.oom_kills if kill.is_target]
    near = [kill for kill in evidence.oom_kills if kill.in_target_cgroup and not kill.is_target]
    if own or near:
        count = Count(len(own or near), "time")
        who = "this process" if own else "a process of the same control group"
        yield Observation(
            topic="oom-kill",
            claim=say("the kernel's OOM killer has killed " + who + " {count}", count=count),
        )
        return
    read = any(cost.probe == "kernel-log" and cost.runs > 0 for cost in evidence.costs)
    if read and not any(gap.probe == "kernel-log" for gap in evidence.gaps):
        yield RuledOut(
            claim=say("OOM kills"),
            because=say("the kernel's log shows none of this process or its control group"),
            brief=say("no OOM kill"),
        )
