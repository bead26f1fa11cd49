"""What a finding is: a claim with the evidence for and against it, and its numbers.

Each kind of finding is a type; the verdict asks for types and reads numbers, never sentences.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

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
