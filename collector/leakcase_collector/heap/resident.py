"""How much of what is free lies in RAM: address space is not memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

Spans = Sequence[tuple[int, int]]


def total(spans: Spans) -> int:
    """The bytes of spans that do not overlap."""
    return sum(end - start for start, end in spans)


def overlap(spans: Spans, runs: Spans) -> int:
    """The bytes that lie in both; each is ascending and does not overlap itself."""
    shared = 0
    at = max(bisect_right(runs, spans[0]) - 1, 0) if spans else 0
    for start, end in spans:
        while at < len(runs) and runs[at][1] <= start:
            at += 1
        index = at
        while index < len(runs) and runs[index][0] < end:
            shared += min(end, runs[index][1]) - max(start, runs[index][0])
            index += 1
    return shared
