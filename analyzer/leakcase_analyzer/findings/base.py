"""What a finding is: a claim with the evidence for and against it, and its numbers.

Each kind of finding is a type; the verdict asks for types and reads numbers, never sentences.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from leakcase_analyzer.block_looks import Holding
from leakcase_analyzer.columns import Floats
from leakcase_analyzer.sentences import Sentence
from leakcase_analyzer.series.growth import Growth, Status
from leakcase_analyzer.series.trigger import When

Unit: TypeAlias = Literal["bytes", "threads", "fds", "sockets"]
#: What a quantity is a part of, and so what its growth would be a leak of.
Subject: TypeAlias = Literal[
    "anonymous", "file", "shared", "gpu", "threads", "descriptors", "sockets", "kernel", "cgroup"
]


@dataclass(frozen=True)
class Track:
    """One quantity over time, NaN where not measured; `cpu_seconds` beside it where known."""

    seconds: Floats
    values: Floats
    cpu_seconds: Floats | None = None

    @property
    def window_seconds(self) -> float:
        return float(self.seconds[-1] - self.seconds[0]) if self.seconds.size else 0.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim with its evidence."""

    claim: Sentence
    evidence_for: tuple[Sentence, ...] = ()
    evidence_against: tuple[Sentence, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Trend(Finding):
    """How one quantity behaved. `status` is the series' own answer after what else is known.

    `counts`: whether it is the target's own, so that its growth is the target's leak.
    """

    what: str
    subject: Subject
    unit: Unit
    status: Status
    growth: Growth
    first: float
    last: float
    lowest: float
    highest: float
    track: Track = field(repr=False)
    counts: bool = True
    bounded_by: Sentence | None = None
    """What bounds it although it grows still."""

    @property
    def rises(self) -> bool:
        """Grows, or may: it did, and has not stopped."""
        if self.status == "undecided":
            return (self.growth.rate_low or 0.0) > 0 and self.growth.reason != "quiet"
        return self.status == "leak"


@dataclass(frozen=True, kw_only=True)
class RegionGrowth:
    """One group of mappings that grew between the snapshots; `share` of what was judged."""

    kind: str
    path: str | None
    name: str | None
    growth_bytes: float
    rate_per_second: float
    share: float
    is_arena: bool = False


@dataclass(frozen=True, kw_only=True)
class Attribution(Finding):
    """Which mappings the growth of one subject lies in."""

    subject: Subject
    regions: tuple[RegionGrowth, ...]
    unexplained_share: float


@dataclass(frozen=True, kw_only=True)
class Activity(Finding):
    """Whether memory grows when the target works, when it rests, or always."""

    trigger: When
    subject: Subject


@dataclass(frozen=True)
class HeapChange:
    """What became of the heap between the first look into it and the last, in resident bytes."""

    seconds: float
    in_use_bytes: float
    kept_bytes: float | None
    held_bytes: float
    """What anonymous memory grew by meanwhile."""
    error_bytes: float = 0.0
    """A bound of the error of `in_use_bytes`, where heaps were estimated."""

    @property
    def is_certain(self) -> bool:
        """Whether the error is small beside what it would decide."""
        return self.error_bytes <= 0.25 * max(abs(self.in_use_bytes), abs(self.held_bytes))

    @property
    def covers(self) -> bool:
        """Whether the books account for at least half of the growth."""
        return self.in_use_bytes + (self.kept_bytes or 0) >= 0.5 * self.held_bytes


@dataclass(frozen=True, kw_only=True)
class HeapState(Finding):
    """What the process's allocators have in use and keep free, in resident bytes.

    Of `kept_bytes`, `returnable_bytes` is what malloc could give back at once, `top_bytes` the end
    of its main arena, `beyond_main_bytes` what lies in the arenas of threads, and
    `python_kept_bytes` what is pymalloc's; of `in_use_bytes`, `python_in_use_bytes` is. None: not
    known.
    """

    in_use_bytes: float
    kept_bytes: float | None
    held_bytes: float | None
    """Anonymous memory at that moment, swap included."""
    returnable_bytes: float | None
    top_bytes: float | None
    beyond_main_bytes: float | None
    python_kept_bytes: float
    python_in_use_bytes: float
    arenas: int
    change: HeapChange | None
    error_bytes: float = 0.0
    """A bound of the error of `in_use_bytes`, and of `kept_bytes`; 0 where they were counted."""

    @property
    def kept_share(self) -> float:
        """The part of anonymous memory that is kept free, as far as both are known."""
        return (self.kept_bytes or 0.0) / self.held_bytes if self.held_bytes else 0.0


@dataclass(frozen=True, kw_only=True)
class SizeGrowth:
    """Blocks of one class of size that are more than at first.

    `least_bytes` and `most_bytes` bound what the program asks malloc for in such a block. `share`
    is of all that classes of size grew by.
    """

    least_bytes: int
    most_bytes: int
    count: int
    growth_bytes: float
    rate_per_second: float
    share: float
    holding: Holding | None = None
    """What most of these blocks are at the last look."""


@dataclass(frozen=True, kw_only=True)
class SizeClasses(Finding):
    """Which sizes of malloc's blocks grow, the largest growth first."""

    parts: tuple[SizeGrowth, ...]


@dataclass(frozen=True, kw_only=True)
class TypeGrowth:
    """Objects of one type that are more than at first."""

    name: str
    count: int
    growth_bytes: int


@dataclass(frozen=True, kw_only=True)
class ClassGrowth:
    """Objects of one C++ class that are more than at first; None: their sizes are not known."""

    name: str
    count: int
    growth_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class CppClasses(Finding):
    """Which classes of C++ objects grow, the largest growth first; there is at least one."""

    classes: tuple[ClassGrowth, ...]


@dataclass(frozen=True, kw_only=True)
class ObjectTypes(Finding):
    """Which types of the runtime's objects grow, the largest growth first.

    `share` is the part of the growth of anonymous memory that the runtime's own objects are: None
    where memory did not grow. `could_hold_all`: whether so much was added to objects that they
    might refer to every block that malloc has in use beyond those of the first look.
    """

    types: tuple[TypeGrowth, ...]
    share: float | None
    could_hold_all: bool | None
    runtime: str = "cpython"


@dataclass(frozen=True, kw_only=True)
class Bound(Finding):
    """A limit that the program itself was given for what it keeps."""

    setting: str
    bound_bytes: int
    managed_only: bool


@dataclass(frozen=True, kw_only=True)
class TimeToLimit(Finding):
    """When growth at this rate meets a limit."""

    limit: str
    limit_amount: float
    seconds: float
    way_out: str
    """What moves the limit away, as a command."""


@dataclass(frozen=True, kw_only=True)
class Observation(Finding):
    """Something that matters and decides nothing; `topic` is a word for machines."""

    topic: str


@dataclass(frozen=True, kw_only=True)
class RuledOut(Finding):
    """A cause that the evidence excludes: the claim. `what` is the quantity, where it is one.

    `brief` is both in a few words, for where there is no room; None: this deserves room.
    """

    because: Sentence
    what: str | None = None
    brief: Sentence | None = None


@dataclass(frozen=True, kw_only=True)
class NotSeen(Finding):
    """Something that could not be seen; `claim` is what.

    `weight` is the factor by which it lowers the confidence: 1.0 does not.
    """

    because: Sentence
    effect: Sentence
    weight: float = 1.0
