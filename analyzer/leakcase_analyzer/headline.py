"""The first line of every report: the answer, in one plain sentence."""

from __future__ import annotations

from leakcase_analyzer.findings.base import HeapState, Trend
from leakcase_analyzer.findings.trends import amount, amount_rate
from leakcase_analyzer.kinds import Kind
from leakcase_analyzer.sentences import Quantity, Sentence, Size, SizeRate, Span, say
from leakcase_analyzer.series.growth import Status

#: What grows, by kind; else the quantity's own name.
KIND_WORDS: dict[Kind, str] = {
    "heap": "heap memory",
    "managed-heap": "the runtime's heap",
    "mmap": "mapped anonymous memory",
    "shared-memory": "shared memory",
    "file-mapping": "mapped file memory",
}
COUNT_LEAKS: dict[Kind, str] = {
    "threads": "threads are started and do not end",
    "fds": "descriptors are opened and not closed",
}
#: Below this confidence a leak is called probable.
SURE = 0.6


def headline(
    status: Status,
    kind: Kind,
    main: Trend,
    memory: Trend | None,
    confidence: float,
    watch_longer_seconds: float | None,
    bound_bytes: int | None,
    heap: HeapState | None,
) -> Sentence:
    """The answer about `main`; `memory` is what grows behind it, where that is something else."""
    if status == "leak":
        likely = "Leak" if confidence >= SURE else "Probably a leak"
        if kind in COUNT_LEAKS and main.unit != "bytes":
            return _count_leak(likely + ": " + COUNT_LEAKS[kind], main, memory)
        return say(
            likely + ": " + KIND_WORDS.get(kind, main.what) + " grows steadily by {rate}; "
            "no bound was seen in {window}.",
            rate=amount_rate(main.unit, main.growth.rate_per_second or 0.0),
            window=Span(main.growth.window_seconds),
        )
    if bound_bytes is not None:
        return say(
            "Undecided: " + main.what + " fills towards the program's own bound "
            "({held} of {bound}); watch {watch} more.",
            held=Size(main.last),
            bound=Size(bound_bytes),
            watch=Span(watch_longer_seconds or main.growth.window_seconds),
        )
    if status == "undecided":
        return _undecided(main, watch_longer_seconds)
    if status == "stable":
        return _stable(main)
    if status == "retention":
        return _retention(main, heap)
    return _bounded(main)


def _retention(main: Trend, heap: HeapState | None) -> Sentence:
    """That nothing leaks, although memory is held, and how much of it."""
    text = "Retention, no leak: {kept} of {held} held are freed memory that the allocator keeps"
    if heap is None or heap.kept_bytes is None:
        return say("Retention, no leak: memory that was freed is kept by the allocator.")
    if main.growth.reason == "retention-growing":
        text += "; what is in use does not grow"
    held = Size(heap.held_bytes if heap.held_bytes is not None else main.last)
    return say(text + ".", kept=Size(heap.kept_bytes), held=held)


def _count_leak(claim: str, main: Trend, memory: Trend | None) -> Sentence:
    quantities: dict[str, Quantity] = {
        "first": amount(main.unit, main.first),
        "last": amount(main.unit, main.last),
        "window": Span(main.growth.window_seconds),
        "rate": amount_rate(main.unit, main.growth.rate_per_second or 0.0),
    }
    claim += ", {first} to {last} in {window} ({rate})"
    if memory is not None and memory.growth.rate_per_second is not None:
        quantities["memory"] = SizeRate(memory.growth.rate_per_second)
        claim += "; memory grows too, by {memory}"
    return say(claim + ".", **quantities)


def _undecided(main: Trend, longer: float | None) -> Sentence:
    window = Span(main.growth.window_seconds)
    watch = Span(longer if longer is not None else main.growth.window_seconds)
    grown = main.last - main.first
    if grown <= 0:
        return say(
            "Undecided: " + main.what + " cannot be judged yet; watch {watch} more.", watch=watch
        )
    return say(
        "Undecided: " + main.what + " rose by {grown} in {window}; watch {watch} more.",
        grown=amount(main.unit, grown),
        window=window,
        watch=watch,
    )


def _stable(main: Trend) -> Sentence:
    least = main.growth.least_detectable_rate_per_second
    window = Span(main.growth.window_seconds)
    level = amount(main.unit, main.last)
    if least is None:
        return say(
            "No leak seen: " + main.what + " is steady at {level} over {window}.",
            level=level,
            window=window,
        )
    return say(
        "No leak: " + main.what + " is steady at {level}; in {window} growth above {least} "
        "would have shown.",
        level=level,
        window=window,
        least=amount_rate(main.unit, least),
    )


def _bounded(main: Trend) -> Sentence:
    window = Span(main.growth.window_seconds)
    if main.bounded_by is not None:
        return say(
            "No leak: " + main.what + " grew by {grown} in {window}, "
            "within what was mapped before.",
            grown=amount(main.unit, main.last - main.first),
            window=window,
        )
    if main.growth.reason == "falls-back":
        return say(
            "No leak: " + main.what + " moved between {lowest} and {highest}, above a steady "
            "floor.",
            lowest=amount(main.unit, main.lowest),
            highest=amount(main.unit, main.highest),
        )
    return say(
        "No leak: " + main.what + " rose by {grown}, then stopped; it holds {level}.",
        grown=amount(main.unit, main.last - main.first),
        level=amount(main.unit, main.last),
    )
