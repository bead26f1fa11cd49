"""What could not be seen, why, and what that does to the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen
from leakcase_analyzer.findings.blind_heap import HEAP_PROBES
from leakcase_analyzer.findings.blind_trace import TRACE_PROBES
from leakcase_analyzer.sentences import Code, Count, Share, Span, say
from leakcase_analyzer.series.growth import FULL_WINDOW_SECONDS


class Blindness(NamedTuple):
    """What a probe would have shown, what its absence does, and the weight of that."""

    what: str
    effect: str
    weight: float = 1.0


PROBES = {
    "identity": Blindness("who the process is", "the report cannot name it"),
    "status": Blindness("its memory figures", "growth cannot be judged", 0.7),
    "stat": Blindness("its CPU time and page faults", "work and rest cannot be told apart", 0.98),
    "descriptors": Blindness("its open descriptors", "a descriptor leak cannot be ruled out", 0.97),
    "threads": Blindness("its threads by name", "threads that come and go are not seen"),
    "cgroup": Blindness("its control group", "limits and page cache of a container are not known"),
    "host": Blindness("the host's memory", "the time until the host runs out is not known"),
    "limits": Blindness("its resource limits", "the time until it meets one is not known"),
    "settings": Blindness(
        "settings of its allocator and runtime", "a bound that it was given would be missed", 0.95
    ),
    "modules": Blindness("its program and libraries", "versions and build-ids are not known"),
    "runtime": Blindness("its language runtime", "a collected heap may pass as native", 0.95),
    "regions": Blindness("its mappings", "which mappings grew is not known", 0.95),
    "rollup": Blindness("its share of shared memory", "shared pages are counted in full"),
    "sockets": Blindness("its sockets by state", "connections that nobody closes are not named"),
    "gpu": Blindness("its GPU memory", "growth on a GPU would be missed"),
    "kernel-log": Blindness("the kernel's log", "earlier OOM kills are not known"),
    "session": Blindness("a part of the capture", "what happened then is not known", 0.95),
}
UNKNOWN_PROBE = Blindness("evidence of a newer collector", "this version cannot use it")

REASONS = {
    "not-permitted": "the collector was not permitted to look",
    "not-supported": "this kernel or host does not offer it",
    "target-gone": "the process had ended by then",
    "over-limit": "there was more of it than is read",
    "over-budget": "it would have cost more than was allowed",
    "not-consented": "nobody agreed to it",
    "failed": "reading it failed",
    "malformed": "what the kernel printed was not understood",
    "left-out": "it was left out on request",
    "disk-full": "the disk was full",
    "no-time": "there was no time for it",
}
UNKNOWN_REASON = "of a reason that this version does not know"

LOSSES = {
    "ticks": "sample",
    "regions": "mapping",
    "descriptors": "descriptor",
    "threads": "thread",
    "sockets": "socket",
    "types": "type",
    "records": "record",
    "frames": "frame",
    "rows": "row",
    "blocks": "block",
    "stacks": "stack",
    "calls": "call",
}
MEMORY_NOT_READ = NotSeen(
    claim=say("what the memory holds, and whether anything still refers to it"),
    because=say(
        "the process's memory was not read ({level} was not part of this case)",
        level=Code("--allow read-memory"),
    ),
    effect=say(
        "a leak cannot be told from a cache that still fills, nor memory in use from memory "
        "that was freed and kept by the allocator"
    ),
)
NOT_TRACED = NotSeen(
    claim=say("which code allocates it"),
    because=say(
        "allocations were not traced ({level} was not part of this case)",
        level=Code("--allow trace"),
    ),
    effect=say("no function or line can be named"),
)
#: Losses of the file rather than of the capture.
OF_THE_FILE = frozenset({"records", "frames"})
#: Losses of what is small by itself, and told in sums.
OF_LITTLE_WEIGHT = frozenset({"types", "sockets"})
#: A share of missed samples above this is worth a word.
MISSED_SHARE = 0.02


def blind_spots(evidence: Evidence) -> Iterator[Finding]:
    """The case's own state, the capture's losses, gaps by probe, and what was not part of it."""
    yield from _case(evidence)
    yield from _capture(evidence)
    yield from _gaps(evidence)
    yield from _window(evidence)
    yield from _levels(evidence)


def _case(evidence: Evidence) -> Iterator[Finding]:
    reading = evidence.reading
    if reading.truncated:
        yield NotSeen(
            claim=say("the end of the capture"),
            because=say("the case was cut off: its last frame is missing, as after a kill"),
            effect=say("everything before that was read and judged"),
            weight=0.97,
        )
    elif not reading.complete:
        yield NotSeen(
            claim=say("damaged parts of the case"),
            because=say("{count} could not be read", count=Count(reading.problem_count, "place")),
            effect=say("the rest was judged, but may have been changed as well"),
            weight=0.8,
        )
    if reading.left_out_records:
        yield NotSeen(
            claim=say("{count} of the case", count=Count(reading.left_out_records, "record")),
            because=say("the case holds more of a kind than the analyzer keeps"),
            effect=say("what they say is missing here"),
            weight=0.95,
        )
    if reading.unknown_records:
        yield NotSeen(
            claim=say("{count}", count=Count(reading.unknown_records, "record of a newer kind")),
            because=say("a newer collector wrote them; update {name}", name=Code("leakcase")),
            effect=say("what they say is missing here"),
        )
    if evidence.exec_seconds is not None:
        yield NotSeen(
            claim=say("the program that ran in this process before"),
            because=say(
                "it was replaced (exec) {span} into the capture", span=Span(evidence.exec_seconds)
            ),
            effect=say("only the samples since then were judged"),
        )


def _capture(evidence: Evidence) -> Iterator[Finding]:
    status, collector = evidence.columns("status"), evidence.columns("collector")
    missed = None if collector is None else collector.last("missed_ticks")
    if status is not None and missed:
        share = missed / (missed + len(status))
        if share > MISSED_SHARE:
            yield NotSeen(
                claim=say("{share} of the samples", share=Share(share)),
                because=say("the collector did not get to run in time"),
                effect=say("short events may have been missed"),
                weight=max(0.7, 1 - share),
            )
    for what in sorted({loss.what for loss in evidence.losses} - {"ticks"}):
        count = sum(loss.count for loss in evidence.losses if loss.what == what)
        yield NotSeen(
            claim=say("{count}", count=Count(count, LOSSES.get(what, "thing"))),
            because=say(
                "damaged when the case was recovered"
                if what in OF_THE_FILE
                else "not found in the part of the kernel's tables that was read"
                if what == "sockets"
                else "left out by the collector, to stay within its bounds"
            ),
            effect=say("what it would say is missing here"),
            weight=1.0 if what in OF_LITTLE_WEIGHT else 0.97,
        )
    happened = {event.what for _, event in evidence.events}
    if happened & {"stopped", "target-frozen"}:
        yield NotSeen(
            claim=say("how it behaves when it runs all the time"),
            because=say("the process was stopped for a part of the capture"),
            effect=say("its growth while running is faster than the rate given"),
            weight=0.9,
        )
    if "clock-step" in happened:
        yield NotSeen(
            claim=say("what happened while the host slept"),
            because=say("the host was suspended during the capture"),
            effect=say("that time is not part of the window"),
        )


def _gaps(evidence: Evidence) -> Iterator[Finding]:
    told = HEAP_PROBES.keys() | TRACE_PROBES.keys()
    found = {(gap.probe, gap.reason) for gap in evidence.gaps if gap.probe not in told}
    for probe, reason in sorted(found):
        blind = PROBES.get(probe, UNKNOWN_PROBE)
        # A host without the thing loses nothing by our not seeing it.
        weight = 1.0 if reason == "not-supported" else blind.weight
        yield NotSeen(
            claim=say(blind.what),
            because=say(REASONS.get(reason, UNKNOWN_REASON)),
            effect=say(blind.effect),
            weight=weight,
        )


def _window(evidence: Evidence) -> Iterator[Finding]:
    status = evidence.columns("status")
    seconds = 0.0 if status is None else float(status.seconds[-1] - status.seconds[0])
    # The weight of a short window is in the confidence of the judged series already.
    if 0 < seconds < FULL_WINDOW_SECONDS - 10:
        yield NotSeen(
            claim=say("anything slower than the window"),
            because=say("the process was watched for {span} only", span=Span(seconds)),
            effect=say("slow growth is missed, and a long warm-up looks like a leak"),
        )


def _levels(evidence: Evidence) -> Iterator[Finding]:
    allowed = () if evidence.header is None else evidence.header.levels
    if "read-memory" not in allowed:
        yield MEMORY_NOT_READ
    if "trace" not in allowed:
        yield NOT_TRACED
