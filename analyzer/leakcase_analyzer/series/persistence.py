"""The rule "floor-block-persistence": a leak's floor rises, evenly, in events, to the end.

The steps, tried in order; the first that fires rules:

(a) it is free memory that grows, or that makes the level: retention
(b) resident memory swings or stands, the bytes in use rise evenly: leak
(c) the floor does not grow: stable, or bounded where memory comes and goes above it
(d) growth has stopped: bounded, unless the quiet may be chance
(e) growth slows down: undecided
(f) the floor rises evenly to the end: leak, unless something speaks against it
(g) it rises unevenly: undecided
(h) where (d), (e) or (g) fired, a tail may be a leak by itself: start-ups hide leaks

Twelve other rules were measured beside this one (trend tests, regressions, change points, a
learned classifier): all call warm-ups, filling caches and page noise leaks far more often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from leakcase_analyzer.series.census import (
    NO_CENSUS,
    Census,
    end_medians,
    read_census,
)
from leakcase_analyzer.series.floor import BYTES, Floor, Scale, measure
from leakcase_analyzer.series.samples import Floats, Samples, tail_of

Status: TypeAlias = Literal["leak", "retention", "bounded", "stable", "undecided"]
Reason: TypeAlias = Literal[
    "steady-floor",  # leak: the floor rises evenly to the end
    "steady-tail",  # leak: so it does in the last half, after a warm-up
    "steady-in-use",  # leak: the series swings or stands, the bytes in use rise evenly
    "retention-growing",  # retention: what grows is free memory that the allocator keeps
    "retention-level",  # retention: much of what is resident is free, nothing grows
    "saturated",  # bounded: growth stopped, and the quiet since is no chance
    "falls-back",  # bounded: memory comes and goes above a level floor
    "flat",  # stable
    "late-rise",  # undecided: the level rose at the very end
    "quiet",  # undecided: growth stopped, the quiet may be chance
    "decelerating",  # undecided: growth slows down
    "few-events",  # undecided: fewer than three events make the growth
    "bursty",  # undecided: growth is uneven
    "slight",  # undecided: growth is steady, but too little yet to be called
    "few-periods",  # undecided: too few periods of the sawtooth to see its floor
    "managed-runtime",  # undecided: a garbage collector has not yet shown its floor
    "census-disagrees",  # undecided: the allocator's bytes in use do not grow with it
    "too-short",  # undecided: too few samples
    "unordered-time",  # undecided: the clock ran backwards
]

LEAST_SAMPLES = 24
# Steady growth of less than this many times the least that is growth at all is not called yet:
# heaps that settle for minutes after their warm-up (SQLite, Redis at its bound) grow so.
CALLED_FROM = 2.0
# The last third grows at least so fast, in units of the whole.
STEADY_RATIO = 0.7
LEAST_EVENTS = 3.0
FEW_BLOCKS = 5
# Below this the allocator's slack is nobody's trouble (step a).
LEAST_RETENTION_BYTES = 4 << 20
LEAST_RETENTION_SHARE = 0.4
# A collector's floor shows after this many major collections, or this long (at 1 Hz a window of
# ten minutes ends some seconds early).
LEAST_COLLECTIONS = 3
MANAGED_WINDOW_SECONDS = 590.0


@dataclass(frozen=True)
class Ruling:
    """The step that fired and what it looked at."""

    status: Status
    reason: Reason
    floor: Floor
    """What decided: the series' floor, or that of its tail or of the bytes in use."""
    whole: Floor
    census: Census


@dataclass(frozen=True)
class Collector:
    """The garbage collector that owns the memory; `major_collections` None: not known."""

    major_collections: int | None


def rule(samples: Samples, scale: Scale, collector: Collector | None) -> Ruling:
    """Judge at least LEAST_SAMPLES samples."""
    return _Case(samples, scale, collector).ruling()


class _Case:
    """One series under judgement; the steps share what is measured once."""

    def __init__(self, samples: Samples, scale: Scale, collector: Collector | None) -> None:
        self.samples, self.scale, self.collector = samples, scale, collector
        self.floor = measure(samples.t, samples.y, scale, samples.cpu)
        first, last = end_medians(samples.y)
        # Where a sawtooth happens to begin and to end tells nothing of its level.
        swings = self.floor.big_drops > 0
        self.level_growth = self.floor.growth if swings else max(self.floor.growth, last - first)
        self.census = self.late_census = NO_CENSUS
        late = tail_of(samples, samples.t.size // 2)
        first, last = end_medians(late.y)
        self.late_growth = last - first
        if scale is BYTES:
            self.census = read_census(samples, self.level_growth)
            self.late_census = read_census(late, self.late_growth)

    def ruling(self) -> Ruling:
        return (
            self._retention_grows()
            or self._leak_of_bytes_in_use()
            or self._retention_stands()
            or self._no_floor_growth()
            or self._slowing_down()
            or self._steady()
        )

    def _say(self, status: Status, reason: Reason, floor: Floor | None = None) -> Ruling:
        return Ruling(status, reason, floor or self.floor, self.floor, self.census)

    def _retention_grows(self) -> Ruling | None:
        """(a) What grows is free memory, in the whole window and in its last half."""
        grown, least = self.level_growth, self.floor.least_growth
        if grown < least or not self.census.is_free_memory(grown):
            return None
        late = self.late_census
        known = late.covers_growth is not None
        if known and self.late_growth >= least and not late.is_free_memory(self.late_growth):
            return None
        return self._say("retention", "retention-growing")

    def _leak_of_bytes_in_use(self) -> Ruling | None:
        """(b) Resident memory swings or stands, the bytes in use have a steady floor."""
        in_use, used = self.samples.in_use, self.census.in_use_growth
        if in_use is None or used is None:
            return None
        swings = self.floor.big_drops > 0
        if not swings and self.floor.growth >= self.floor.least_growth:
            return None
        known = np.isfinite(in_use)
        # What stands while more is used was kept free before: as much as is worth calling.
        least = self.floor.least_growth * (0.5 if swings else 2.0)
        least = max(least, 0.5 * self.floor.growth)
        if np.count_nonzero(known) < LEAST_SAMPLES or used < least:
            return None
        floor = measure(self.samples.t[known], in_use[known], self.scale)
        q3 = floor.last_third_ratio
        if floor.growth >= least and floor.rate_low > 0 and q3 is not None and q3 >= STEADY_RATIO:
            return self._say("leak", "steady-in-use", floor)
        return None

    def _retention_stands(self) -> Ruling | None:
        """(a) Much of what is resident is free, and nothing grows."""
        free = self.census.free_bytes
        if self.level_growth >= self.floor.least_growth or free is None:
            return None
        resident = end_medians(self.samples.y)[1]
        if free > LEAST_RETENTION_BYTES and free >= LEAST_RETENTION_SHARE * resident:
            return self._say("retention", "retention-level")
        return None

    def _no_floor_growth(self) -> Ruling | None:
        """(c) The floor does not grow."""
        y, least = self.samples.y, self.floor.least_growth
        if self.floor.growth >= least:
            return None
        if float(np.ptp(y)) <= max(2 * least, 0.02 * float(np.median(y))):
            return self._say("stable", "flat")
        if _rises_late(y, least):
            return self._say("undecided", "late-rise")
        return self._say("bounded", "falls-back")

    def _slowing_down(self) -> Ruling | None:
        """(d) Growth has stopped, or (e) it slows down; (h) unless the last half is steady."""
        floor, q3 = self.floor, self.floor.last_third_ratio
        if q3 is None or q3 <= 0.3:
            if floor.quiet_chance <= 0.05 and not self._tail_still_grows():
                return self._steady_tail() or self._say("bounded", "saturated")
            return self._steady_tail() or self._say("undecided", "quiet")
        if floor.last_third_z <= -1 and q3 < 0.9:
            return self._steady_tail() or self._say("undecided", "decelerating")
        return None

    def _steady(self) -> Ruling:
        """(f) The floor rises evenly to the end; (g) or it does so unevenly."""
        if not steady(self.floor):
            return self._steady_tail() or self._say("undecided", self._why_uneven())
        veto = self._veto()
        if veto is None and self.floor.growth < CALLED_FROM * self.floor.least_growth:
            veto = "slight"
        if veto:
            return self._say("undecided", veto)
        return self._say("leak", "steady-floor", self._without_warm_up(self.floor))

    def _without_warm_up(self, floor: Floor) -> Floor:
        """The floor of a tail, where what came before it raises the rate beyond what that tail
        allows: a leak's rate is what goes on."""
        for tail in self._tails():
            if steady(tail) and floor.rate > tail.rate_high:
                floor = tail
        return floor

    def _why_uneven(self) -> Reason:
        if self.floor.effective_events < LEAST_EVENTS:
            return "few-events"
        return "few-periods" if self.floor.blocks < FEW_BLOCKS else "bursty"

    def _tails(self) -> Iterator[Floor]:
        """The window without its first eighth, quarter, half: what came after a warm-up."""
        size = self.samples.t.size
        for start in (size // 8, size // 4, size // 2):
            if size - start >= LEAST_SAMPLES:
                tail = tail_of(self.samples, start)
                yield measure(tail.t, tail.y, self.scale, tail.cpu)

    def _tail_still_grows(self) -> bool:
        """Growth that has stopped leaves a tail that is level, or has stopped itself."""
        return any(
            tail.growth >= tail.least_growth
            and tail.last_third_ratio is not None
            and tail.last_third_ratio > 0.3
            for tail in self._tails()
        )

    def _steady_tail(self) -> Ruling | None:
        """(h) A tail by itself, where a warm-up precedes a steady rise."""
        for tail in self._tails():
            rises = (
                tail.blocks >= FEW_BLOCKS
                and tail.growth >= CALLED_FROM * tail.least_growth
                and tail.rate_low > 0
                and tail.last_third_ratio is not None
                and tail.last_third_ratio >= 0.9
                and tail.last_third_z > -1
            )
            if rises and not self._veto():
                return self._say("leak", "steady-tail", self._without_warm_up(tail))
        return None

    def _veto(self) -> Reason | None:
        """Why a steady rise is no leak yet."""
        floor = self.floor
        if undecidable_yet(self.samples, floor, self.collector):
            return "managed-runtime"
        used = self.census.in_use_growth
        covers = self.census.covers_growth and self.late_census.covers_growth is not False
        if covers and used is not None and used < 0.3 * floor.growth:
            return "census-disagrees"
        return None


def undecidable_yet(samples: Samples, floor: Floor, collector: Collector | None) -> bool:
    """Whether a garbage collector may still be letting garbage pile up."""
    if collector is None or samples.window_seconds >= MANAGED_WINDOW_SECONDS:
        return False
    seen = collector.major_collections
    return (floor.big_drops if seen is None else seen) < LEAST_COLLECTIONS


def most_top_share(increments: int) -> float:
    """The most of all growth that one block may hold."""
    return max(0.5, 2.1 / increments)


def steady(floor: Floor) -> bool:
    """Whether the floor rises evenly, in several events, to the end of the window."""
    q3, top = floor.last_third_ratio, floor.top_share
    return (
        q3 is not None
        and top is not None
        and q3 >= STEADY_RATIO
        and floor.rate_low > 0
        and top <= most_top_share(len(floor.increments))
        and floor.effective_events >= LEAST_EVENTS
    )


def _rises_late(y: Floats, least: float) -> bool:
    """Whether the last samples all lie above what was seen before."""
    before, last = y[: -max(1, y.size // 12)], y[-max(2, y.size // 24) :]
    return float(last.min()) >= float(np.percentile(before, 98)) + least
