"""What became of the blocks of each place in the code, over all windows of a case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from leakcase_analyzer.code_names import responsible, wrappers
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.series.survival import Cohort, Curve, curve
from leakcase_analyzer.trace_looks import Alive, Frame, Site, Tracing, Watched

#: What makes frames one place: the function where it has a name, else the address.
Place: TypeAlias = tuple[str, str | None, str | int | None, str | None]

#: Frees were watched so much longer than allocations: then what has nothing in it that tells it
#: from its like is seldom taken for another.
ENOUGH_LINGER_NS = 900_000_000
#: What such a block counts where frees were not.
WEAK_WORTH = 0.5
NEVER_SEEN = Site(0, 0, 0, 0, 0)


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

    @property
    def age_seconds(self) -> float:
        return self.cohort.looks[-1][0] if self.cohort.looks else 0.0

    @property
    def alive(self) -> float:
        return self.cohort.looks[-1][1] if self.cohort.looks else self.cohort.size


@dataclass(frozen=True, slots=True)
class Staying:
    """Blocks that live on, as far as they were followed."""

    blocks: float
    size_bytes: float


@dataclass
class PlaceFate:
    """All that is known of one place's blocks, when all windows have been added."""

    place: Place
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
        """By stack, what is alive at the last age: what was followed for less long is scaled."""
        found: dict[int, Staying] = {}
        for batch in self.batches:
            later = _later(self.curve, batch.age_seconds)
            before = found.get(batch.stack, Staying(0.0, 0.0))
            found[batch.stack] = Staying(
                before.blocks + batch.alive * later, before.size_bytes + batch.alive_bytes * later
            )
        return found

    @property
    def staying_bytes(self) -> float:
        """That of all its stacks."""
        return sum(one.size_bytes for one in self.staying.values())

    @property
    def main_stack(self) -> int:
        """The stack of which most stays."""
        return max(sorted(self.staying), key=lambda stack: self.staying[stack].size_bytes)


def _later(found: Curve, age_seconds: float) -> float:
    """Of those alive at an age, the share that lives to the curve's end."""
    now = found.at(age_seconds)
    return found.last_share / now if now else 0.0


def place_of(frame: Frame | None) -> Place:
    """What a frame has in common with others that belong together."""
    if frame is None:
        return ("unknown", None, None, None)
    if frame.function is not None:
        return (frame.code, frame.module, frame.function, frame.file)
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
    windows = [one for one in tracing.windows if not one.outstanding]
    numbers = {stack for one in windows for stack in _stacks(one)}
    frames = frames_by_stack(tracing, numbers)
    found: dict[Place, PlaceFate] = {}
    for position, window in enumerate(windows):
        for stack in _stacks(window):
            place = place_of(frames[stack])
            fate = found.setdefault(place, PlaceFate(place))
            site = window.sites.get(stack, NEVER_SEEN)
            fate.allocations += site.allocations
            fate.freed += site.freed
            batch = _batch(position, stack, window, site)
            fate.frames[stack] = frames[stack]
            if batch is not None:
                fate.batches.append(batch)
    return list(found.values())


def _stacks(window: Watched) -> set[int]:
    return set(window.sites).union(*(look.rows for look in window.looks))


def _batch(position: int, stack: int, window: Watched, site: Site) -> Batch | None:
    looks = [(look.age_seconds, look.rows[stack]) for look in window.looks if stack in look.rows]
    size = max((row.alive + row.dead + row.unknown for _, row in looks), default=0)
    if not size:
        if not site.kept:
            return None
        return Batch(position, stack, Cohort(site.kept, ()), site.kept_bytes, 0, 0)
    scale = max(1.0, site.kept / size)
    known = [(age, row) for age, row in looks if row.alive + row.dead]
    cohort = Cohort(scale * size, tuple((age, scale * _alive(row, size)) for age, row in known))
    last = known[-1][1] if known else looks[-1][1]
    each_bytes = last.alive_bytes / last.alive if last.alive else 0.0
    alive_bytes = scale * _alive(last, size) * each_bytes
    if window.total.linger_ns < ENOUGH_LINGER_NS and last.alive:
        alive_bytes *= 1 - (1 - WEAK_WORTH) * min(1.0, last.weak / last.alive)
    return Batch(position, stack, cohort, alive_bytes, last.weak, last.unknown)


def _alive(row: Alive, size: int) -> float:
    """Those of unknown fate are as the others are."""
    known = row.alive + row.dead
    return size * row.alive / known if known else 0.0
