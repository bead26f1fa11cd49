"""Does this series grow for good?

`judge` cleans one series, asks the rule (persistence.py), and says how sure that is, what it
would have missed, and how much longer to watch. What one series cannot tell it does not say: a
cache that is still filling looks exactly as a leak does, so "leak" means "steady, no bound seen
so far", and evidence from the heap must tell the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from leakcase_analyzer.series.census import NO_CENSUS, Census
from leakcase_analyzer.series.confidence import confidence
from leakcase_analyzer.series.detectable import least_detectable_rate
from leakcase_analyzer.series.floor import BYTES, COUNT, Floor
from leakcase_analyzer.series.persistence import (
    LEAST_SAMPLES,
    MANAGED_WINDOW_SECONDS,
    Collector,
    Reason,
    Ruling,
    Status,
    rule,
    steady,
    undecidable_yet,
)
from leakcase_analyzer.series.samples import Samples, SeriesError, clean

__all__ = ["Census", "Floor", "Growth", "Reason", "SeriesError", "Status", "judge"]

# The window whose figures of merit are known best.
FULL_WINDOW_SECONDS = 120.0
# Watching three times as long settles about half of the undecided, nineteen of twenty of these
# rightly (bench/accuracy.py).
WATCH_FACTOR = 3.0


@dataclass(frozen=True)
class Growth:
    """One judged series. Amounts are in its unit (bytes, or a count), rates are per second."""

    status: Status
    reason: Reason
    rate_per_second: float | None
    """The floor's rate, with its 95 % interval; None when there was nothing to judge."""
    rate_low: float | None
    rate_high: float | None
    total_growth: float | None
    """What the floor rose by over the whole window."""
    window_seconds: float
    samples: int
    blocks: int
    least_detectable_rate_per_second: float | None
    """The least steady growth that this window would have shown; None: none at all."""
    watch_longer_seconds: float | None
    """How much longer to watch from here; None when decided."""
    steady_no_bound_seen: bool
    """The floor rises evenly to the end of the window, whatever else forbids to call it a leak."""
    confidence: float
    """How often such an answer was right on programs of known truth; 0 when undecided."""
    floor: Floor | None
    """What the steps compared: the tail's when the tail decided, the bytes' in use when they
    did; None when there was nothing to judge."""
    census: Census


def judge(
    t_seconds: ArrayLike,
    y: ArrayLike,
    *,
    cpu_seconds: ArrayLike | None = None,
    in_use_bytes: ArrayLike | None = None,
    free_bytes: ArrayLike | None = None,
    unit: Literal["bytes", "count"] = "bytes",
    managed_runtime: bool = False,
    major_collections: int | None = None,
) -> Growth:
    """Judge one series: resident bytes (RssAnon + VmSwap, RssFile, ...), or a count of things.

    `t_seconds`: any monotonic clock. `cpu_seconds`: the process's running total of CPU time.
    `in_use_bytes`, `free_bytes`: the allocator's books, where and when they were read (for a
    series of bytes only). NaN means "not measured" everywhere. `managed_runtime`: a moving or
    generational collector owns this memory (JVM, V8, .NET, Go); `major_collections`: how many it
    made in the window, where that is known, else the series' big drops are counted.

    Raises SeriesError when the arrays do not fit together; whatever may be wrong with the data
    itself gives "undecided".
    """
    samples = clean(t_seconds, y, cpu_seconds=cpu_seconds, in_use=in_use_bytes, free=free_bytes)
    if not samples.in_order:
        return _unjudged(samples, "unordered-time")
    if samples.t.size < LEAST_SAMPLES or samples.window_seconds < 1.0:
        return _unjudged(samples, "too-short")
    scale = COUNT if unit == "count" else BYTES
    collector = Collector(major_collections) if managed_runtime else None
    ruling = rule(samples, scale, collector)
    detectable = None
    if not undecidable_yet(samples, ruling.whole, collector):
        detectable = least_detectable_rate(ruling.whole)
    floor = ruling.floor
    return Growth(
        status=ruling.status,
        reason=ruling.reason,
        rate_per_second=floor.rate,
        rate_low=floor.rate_low,
        rate_high=floor.rate_high,
        total_growth=ruling.whole.growth,
        window_seconds=samples.window_seconds,
        samples=samples.t.size,
        blocks=floor.blocks,
        least_detectable_rate_per_second=detectable,
        watch_longer_seconds=_watch_longer(samples, ruling),
        steady_no_bound_seen=ruling.status == "leak" or steady(ruling.whole),
        confidence=confidence(ruling.status, samples.window_seconds, _supported(ruling)),
        floor=floor,
        census=ruling.census,
    )


def _supported(ruling: Ruling) -> bool:
    """Whether the allocator's books agree with the answer."""
    return bool(ruling.census.covers_growth) or ruling.reason == "steady-in-use"


def _watch_longer(samples: Samples, ruling: Ruling) -> float | None:
    if ruling.status != "undecided":
        return None
    window = samples.window_seconds
    longer = (WATCH_FACTOR - 1) * window
    if ruling.reason == "managed-runtime":
        return max(longer, MANAGED_WINDOW_SECONDS - window)
    return longer


def _unjudged(samples: Samples, reason: Reason) -> Growth:
    """Nothing to judge: watch until a full window is there."""
    window = samples.window_seconds
    spacing = window / (samples.t.size - 1) if samples.t.size > 1 else 0.0
    needed = max(FULL_WINDOW_SECONDS, LEAST_SAMPLES * spacing)
    return Growth(
        status="undecided",
        reason=reason,
        rate_per_second=None,
        rate_low=None,
        rate_high=None,
        total_growth=None,
        window_seconds=window,
        samples=samples.t.size,
        blocks=0,
        least_detectable_rate_per_second=None,
        watch_longer_seconds=max(needed - window, needed / 2),
        steady_no_bound_seen=False,
        confidence=0.0,
        floor=None,
        census=NO_CENSUS,
    )
