"""Where in the code memory that stays is allocated: what a suspect is, and the finding of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from leakcase_analyzer.findings.base import Finding
from leakcase_analyzer.sentences import Sentence
from leakcase_analyzer.series.survival import Curve, Pattern
from leakcase_analyzer.series.trigger import When
from leakcase_analyzer.trace_looks import Frame, Stack

#: survivors: blocks of short windows, looked at again later. outstanding: everything was traced,
#: and this is what was not freed. mappings: whole mappings of memory, all of which were watched.
#: window: blocks of short windows that nobody looked at again.
Basis: TypeAlias = Literal["survivors", "outstanding", "mappings", "window"]
#: early: all of it is from the first half of the time traced, so it holds memory but does not grow.
Fate: TypeAlias = Pattern | Literal["early"]


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One function (where it has no name, one place) whose blocks stay, with its main stack."""

    basis: Basis
    frame: Frame | None
    """What it is named after; None: the case tells no frame."""
    stack: Stack
    """Of its stacks the one of which most stays."""
    stacks: int
    fate: Fate
    share: float | None
    """Of the bytes that stay; None for what does not."""
    bytes_per_second: float | None
    confidence: float
    """That blocks from here go on to be kept: 0 to 1."""
    held_bytes: float
    """What stayed of the blocks that were followed, or is not freed."""
    blocks: float
    """So many blocks are that."""
    followed: float
    """Of so many."""
    freed: float
    """So many of those were seen to go."""
    curve: Curve
    trigger: When
    evidence: tuple[Sentence, ...]


@dataclass(frozen=True, kw_only=True)
class Suspects(Finding):
    """Who allocates what stays, most of it first, and whose blocks were seen to go.

    Of a case in which allocations were traced there is one, even where nothing stayed.
    """

    basis: Basis
    suspects: tuple[Suspect, ...]
    passing: tuple[Suspect, ...]
    """Whose blocks live long and then go: caches, sessions, queues."""
    windows: int
    window_seconds: float
    """Traced in all."""
    allocations: int
    followed_seconds: float
    """The age at the last look."""
    growth_per_second: float | None
    """Of the heap, as measured; None: it does not grow, or that is not known."""
    in_work: tuple[Suspect, ...] = ()
    """Whose blocks were alive at the last look, which was early, while memory does not rise."""
    kept_per_second: float
    """What the suspects' blocks would add up to if none was ever freed later."""
    aside: bool = False
    """What grows is a collected heap, which the watched calls do not fill: no suspect's share is
    of that growth, and who maps memory is the runtime."""

    @property
    def leading(self) -> Suspect | None:
        """The first suspect, where it has most of what stays and what it is is known."""
        first = self.suspects[0] if self.suspects and not self.aside else None
        if first is None or first.frame is None or (first.share or 0.0) < LEADING_SHARE:
            return None
        return first if first.confidence >= LEADING_CONFIDENCE else None


#: A suspect with less than this is not told in the first line.
LEADING_SHARE = 0.3
LEADING_CONFIDENCE = 0.5
