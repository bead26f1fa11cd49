"""What became of the blocks of each place in the code, over all windows of a case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np

from leakcase_analyzer.code_names import responsible, wrappers
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.series.survival import SAME_AGE, Cohort, Curve, curve
from leakcase_analyzer.trace_looks import (
    LARGEST_SIZE,
    Alive,
    Frame,
    Site,
    Sizes,
    Tracing,
    Watched,
)

#: What makes frames one place: the function where it has a name, else the address.
Place: TypeAlias = tuple[str, str | None, str | int | None, str | None]

#: Frees were watched so much longer than allocations: then what has nothing in it that tells it
#: from its like is seldom taken for another.
ENOUGH_LINGER_NS = 900_000_000
#: What such a block counts where frees were not.
WEAK_WORTH = 0.5
#: The part of the windows that must have been followed to an age to compare places at it.
FAIR_PART = 1 / 3
#: A hostile case's windows may have no length.
LEAST_SECONDS = 1e-6
NEVER_SEEN = Site(0, 0, 0, 0, 0)
#: Sizes that only a window of all sizes watched, and such as every window did.
ANY_SIZE: Sizes = (0, LARGEST_SIZE)
NO_SIZE: Sizes = (LARGEST_SIZE, 0)


@dataclass(frozen=True)
class Coverage:
    """The windows that watched all that a stack allocates, and their seconds.

    Where some windows watched a part of the sizes, they tell nothing of a stack whose blocks are of
    others, and of one whose blocks are on both sides only how many of them fall in between: it is
    weighed by the windows that watched all sizes. What a narrow window saw alone, none of those
    having seen any of it, is as it seems.
    """

    sizes: Sizes
    """Of the stack's blocks, from the least to the most."""
    seconds: float


@dataclass(frozen=True)
class Batch:
    """The blocks of one stack that one window left."""

    window: int
    """Its place among the windows."""
    stack: int
    cohort: Cohort
    """In blocks; the last look's bytes are `alive_bytes`."""
    alive_bytes: float
    weak: float
    unknown: float
    coverage: Coverage
    """The windows that its stack is to be weighed by."""
    counts: bool
    """Whether its own is one of them."""

    @property
    def age_seconds(self) -> float:
        return self.cohort.looks[-1][0] if self.cohort.looks else 0.0

    @property
    def alive(self) -> float:
        return self.cohort.looks[-1][1] if self.cohort.looks else self.cohort.size


@dataclass(frozen=True, slots=True)
class Staying:
    """What lives on, as far as it was followed, for each second of the windows of its kind.

    Some kinds of blocks are watched in windows of their own, of another length; only their rates
    can be added.
    """

    blocks_per_second: float
    bytes_per_second: float


@dataclass
class PlaceFate:
    """All that is known of one place's blocks, when all windows have been added."""

    place: Place
    common_age_seconds: float
    """Up to which what stays is compared among all places."""
    frames: dict[int, Frame | None] = field(default_factory=dict)
    """By stack, the frame that it is named after."""
    batches: list[Batch] = field(default_factory=list)
    allocations: int = 0
    freed: int = 0

    @cached_property
    def curve(self) -> Curve:
        """How long its blocks live."""
        return curve([batch.cohort for batch in self.batches])

    @cached_property
    def staying(self) -> Mapping[int, Staying]:
        """By stack, at the common age: what was followed for less long is scaled down."""
        found: dict[int, Staying] = {}
        for batch in self.batches:
            if not batch.counts:
                continue
            later = self._later(batch.age_seconds) / batch.coverage.seconds
            before = found.get(batch.stack, Staying(0.0, 0.0))
            found[batch.stack] = Staying(
                before.blocks_per_second + batch.alive * later,
                before.bytes_per_second + batch.alive_bytes * later,
            )
        return found

    def _later(self, age_seconds: float) -> float:
        """Of those alive at an age, the share that lives to the common one."""
        if age_seconds * SAME_AGE >= self.common_age_seconds:
            return 1.0
        now = self.curve.at(age_seconds)
        return self.curve.at(self.common_age_seconds) / now if now else 0.0

    @property
    def staying_per_second(self) -> float:
        """The bytes of all its stacks."""
        return sum(one.bytes_per_second for one in self.staying.values())

    @property
    def main_stack(self) -> int:
        """The stack of which most stays."""
        return max(sorted(self.staying), key=lambda stack: self.staying[stack].bytes_per_second)


def place_of(frame: Frame | None) -> Place:
    """What a frame has in common with others that belong together."""
    if frame is None:
        return ("unknown", None, None, None)
    if frame.function is not None:
        # A native function's module tells it; the file is known of some of its stacks at most.
        file = None if frame.code == "native" else frame.file
        return (frame.code, frame.module, frame.function, file)
    return (frame.code, frame.module, frame.address, None)


def frames_by_stack(tracing: Tracing, stacks: Iterable[int]) -> Mapping[int, Frame | None]:
    """The frame that each stack is named after."""
    told = {number: tracing.stack(number) for number in stacks}
    passing_on = wrappers(told.values())
    return {number: responsible(stack, passing_on) for number, stack in told.items()}


def fates_of(evidence: Evidence) -> list[PlaceFate]:
    """By place, of all windows of bursts; computed once."""
    if "fates" not in evidence.judged:
        evidence.judged["fates"] = _fates(evidence.tracing)
    found: list[PlaceFate] = evidence.judged["fates"]
    return found


def _fates(tracing: Tracing) -> list[PlaceFate]:
    windows = [one for one in tracing.windows if not one.outstanding and not one.maps]
    numbers = {stack for one in windows for stack in _stacks(one)}
    frames = frames_by_stack(tracing, numbers)
    found: dict[Place, PlaceFate] = {}
    covered, age = coverages(windows), common_age(windows)
    for position, window in enumerate(windows):
        for stack in _stacks(window):
            place = place_of(frames[stack])
            fate = found.setdefault(place, PlaceFate(place, age))
            site = window.sites.get(stack, NEVER_SEEN)
            fate.allocations += site.allocations
            fate.freed += site.freed
            batch = _batch(position, stack, window, site, covered[stack, window.total.watched])
            fate.frames[stack] = frames[stack]
            if batch is not None:
                fate.batches.append(batch)
    return list(found.values())


def _stacks(window: Watched) -> set[int]:
    return set(window.sites).union(*(look.rows for look in window.looks))


def common_age(windows: Sequence[Watched]) -> float:
    """The greatest age that a fair part of the windows was followed to; 0 where none was."""
    ages = sorted((one.looks[-1].age_seconds for one in windows if one.looks), reverse=True)
    return ages[min(len(ages) - 1, int(FAIR_PART * len(ages)))] if ages else 0.0


def watched_seconds(windows: Sequence[Watched]) -> Mapping[str | None, float]:
    """How long each kind of blocks was watched in all, never nothing."""
    found: dict[str | None, float] = {}
    for window in windows:
        kind = window.total.watched
        found[kind] = found.get(kind, LEAST_SECONDS) + window.duration_seconds
    return found


def coverages(windows: Sequence[Watched]) -> Mapping[tuple[int, str | None], Coverage]:
    """By stack and kind of window."""
    sizes: dict[tuple[int, str | None], Sizes] = {}
    seen: dict[tuple[int, str | None], list[Watched]] = {}
    left: dict[tuple[int, str | None], list[Watched]] = {}
    for window in windows:
        kind = window.total.watched
        for stack in _stacks(window):
            seen.setdefault((stack, kind), []).append(window)
            site = window.sites.get(stack, NEVER_SEEN)
            if site.kept or _followed(window, stack):
                left.setdefault((stack, kind), []).append(window)
            if site.kept_sizes is not None:
                least, most = zip(site.kept_sizes, sizes.get((stack, kind), NO_SIZE), strict=True)
                sizes[stack, kind] = (min(least), max(most))
    seconds = {kind: _Seconds(windows, kind) for kind in {one.total.watched for one in windows}}
    found = {}
    for (stack, kind), where in seen.items():
        known = sizes.get((stack, kind), ANY_SIZE)
        if not any(window.watched_all(known) for window in left.get((stack, kind), where)):
            known = NO_SIZE
        found[stack, kind] = Coverage(known, LEAST_SECONDS + seconds[kind].of(known))
    return found


class _Seconds:
    """For how long blocks of which sizes were watched, in windows of one kind."""

    def __init__(self, windows: Sequence[Watched], kind: str | None) -> None:
        of_kind = [one for one in windows if one.total.watched == kind]
        bands = np.array([one.sizes for one in of_kind], dtype=np.uint64)
        self._least, self._most = bands[:, 0], bands[:, 1]
        self._seconds = np.array([one.duration_seconds for one in of_kind])

    def of(self, sizes: Sizes) -> float:
        least, most = np.uint64(sizes[0]), np.uint64(sizes[1])
        return float(self._seconds[(self._least <= least) & (most <= self._most)].sum())


def _followed(window: Watched, stack: int) -> int:
    """How many of a stack's blocks were looked at again."""
    rows = (look.rows[stack] for look in window.looks if stack in look.rows)
    return max((row.alive + row.dead + row.unknown for row in rows), default=0)


def _batch(
    position: int, stack: int, window: Watched, site: Site, covered: Coverage
) -> Batch | None:
    looks = [(look.age_seconds, look.rows[stack]) for look in window.looks if stack in look.rows]
    size = _followed(window, stack)
    counts = window.watched_all(covered.sizes)
    if not size:
        if not site.kept:
            return None
        return Batch(position, stack, Cohort(site.kept, ()), site.kept_bytes, 0, 0, covered, counts)
    scale = max(1.0, site.kept / size)
    known = [(age, row) for age, row in looks if row.alive + row.dead]
    cohort = Cohort(scale * size, tuple((age, scale * _alive(row, size)) for age, row in known))
    last = known[-1][1] if known else looks[-1][1]
    each_bytes = last.alive_bytes / last.alive if last.alive else 0.0
    alive_bytes = scale * _alive(last, size) * each_bytes
    if window.total.linger_ns < ENOUGH_LINGER_NS and last.alive:
        alive_bytes *= 1 - (1 - WEAK_WORTH) * min(1.0, last.weak / last.alive)
    return Batch(position, stack, cohort, alive_bytes, last.weak, last.unknown, covered, counts)


def _alive(row: Alive, size: int) -> float:
    """Those of unknown fate are as the others are."""
    known = row.alive + row.dead
    return size * row.alive / known if known else 0.0
