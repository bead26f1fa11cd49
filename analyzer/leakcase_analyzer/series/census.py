"""What the allocator's own books say beside a resident series: in use, or free but kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leakcase_analyzer.series.samples import Floats, Samples

# A census of the beginning and one of the end speak for what lies between, no shorter span does.
LEAST_COVERAGE = 2 / 3


@dataclass(frozen=True)
class Census:
    """The books over the window, in bytes; None where they were not read often enough."""

    in_use_growth: float | None
    free_growth: float | None
    free_bytes: float | None
    """Free bytes at the end, at most what is resident."""
    covers_growth: bool | None
    """Whether the books account for the resident growth, by half or more and by no more than
    half as much again.

    With less the memory is not this allocator's (pymalloc's arenas, stacks, direct mmap); with
    more its free bytes are address space that was never resident, or has been given back. Then
    the books can neither blame nor acquit.
    """

    def is_free_memory(self, grown: float) -> bool:
        """Whether free memory makes a growth of `grown` bytes, and the bytes in use do not."""
        used, spare = self.in_use_growth, self.free_growth
        if used is None or spare is None or not self.covers_growth:
            return False
        return spare >= 0.5 * grown and used <= 0.35 * grown


NO_CENSUS = Census(None, None, None, None)


def read_census(samples: Samples, resident_growth: float) -> Census:
    """Compare both ends of the books. `resident_growth` is the series' own, in bytes."""
    # The allocator's free bytes are address space: pages given back are counted still.
    resident = None if samples.free is None else np.minimum(samples.free, samples.y)
    used = _end_to_end(samples.t, samples.in_use)
    kept = _end_to_end(samples.t, resident)
    covers = None
    if used is not None and kept is not None and resident_growth > 0:
        covers = 0.5 * resident_growth <= used + kept <= 1.5 * resident_growth
    return Census(used, kept, _at_end(resident), covers)


def end_medians(y: Floats) -> tuple[float, float]:
    """Medians of the first and of the last twelfth: the level at both ends, without its noise."""
    part = max(1, y.size // 12)
    return float(np.median(y[:part])), float(np.median(y[-part:]))


def _end_to_end(t: Floats, y: Floats | None) -> float | None:
    if y is None:
        return None
    known = np.flatnonzero(np.isfinite(y))
    if known.size < 2 or t[known[-1]] - t[known[0]] < LEAST_COVERAGE * (t[-1] - t[0]):
        return None
    first, last = end_medians(y[known])
    return last - first


def _at_end(y: Floats | None) -> float | None:
    if y is None:
        return None
    known = y[np.isfinite(y)]
    return end_medians(known)[1] if known.size else None
