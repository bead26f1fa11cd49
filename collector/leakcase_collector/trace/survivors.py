"""What became of the blocks that windows left: looked at again, later and later.

A block counts as alive where nothing says that it was freed and it still holds the words that tell
it from its like (`fingerprints`). It is dead for good where its free or its re-issue was seen while
frees were watched, where the allocator's books say so, or where it holds something else. Where
blocks of a stack are all alike, one that is as it was counts as alive too, but marked as weak; and
not even that where blocks of the stack were seen freed: then it may be another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from leakcase_collector.system.clock import NS_PER_SECOND

from .blocks import BlockLook, BlockReader
from .fingerprints import Identity, Likeness, identity_of

#: When a window's blocks are looked at, after its end; and at the capture's end.
LOOKS_AFTER_NS = tuple(s * NS_PER_SECOND for s in (10, 30, 60, 300, 900, 3600, 14400, 43200))
#: Followed blocks of one window, and of all windows.
BLOCKS_PER_WINDOW = 800
BLOCKS_IN_ALL = 6400
#: Of a stack's blocks; fewer may be those of one who tidies up at times.
_FREED_SHARE = 0.01


class LiveBlock(NamedTuple):
    """A block that was allocated in a window and not freed in it."""

    address: int
    stack: int
    size_bytes: int
    allocated_ns: int


@dataclass
class Followed:
    """A block that is looked at again; `then` is what it held when its window ended."""

    block: LiveBlock
    then: BlockLook
    now: BlockLook


class StackLook(NamedTuple):
    """What a look found of one stack's followed blocks; the dead of earlier looks are in it."""

    stack: int
    alive: int
    alive_bytes: int
    dead: int
    unknown: int
    weak: int


@dataclass
class Cohort:
    """The blocks of one window that are followed."""

    window: int
    ended_ns: int
    followed: list[Followed] = field(default_factory=list)
    dead: Counter[int] = field(default_factory=Counter)
    #: Blocks of which nothing could be read when the window ended.
    unread: Counter[int] = field(default_factory=Counter)
    looks: int = 0

    def due_ns(self) -> Optional[int]:
        """When the next look is due; None where there is none on the schedule."""
        if not self.followed or self.looks >= len(LOOKS_AFTER_NS):
            return None
        return self.ended_ns + LOOKS_AFTER_NS[self.looks]

    def bury(self, one: Followed) -> None:
        self.dead[one.block.stack] += 1


class Survivors:
    """The blocks of all windows that are still followed."""

    def __init__(self) -> None:
        self.cohorts: list[Cohort] = []
        #: By stack, blocks that were followed, and of these those that were seen freed.
        self._followed: Counter[int] = Counter()
        self._freed: Counter[int] = Counter()

    def room(self) -> int:
        """How many blocks of a further window can be followed."""
        held = sum(len(cohort.followed) for cohort in self.cohorts)
        return min(BLOCKS_PER_WINDOW, max(BLOCKS_IN_ALL - held, 0))

    def follow(
        self, window: int, ended_ns: int, blocks: Sequence[LiveBlock], reader: BlockReader
    ) -> Cohort:
        """Take the fingerprints of a window's blocks, evenly by stack where they are too many."""
        cohort = Cohort(window, ended_ns)
        for block in sorted(even_sample(blocks, self.room())):
            look = reader.read(block.address, block.size_bytes)
            if look is None:
                cohort.unread[block.stack] += 1
            else:
                cohort.followed.append(Followed(block, look, look))
                self._followed[block.stack] += 1
        self.cohorts.append(cohort)
        return cohort

    def leave_out(self, cohort: Cohort) -> None:
        """Follow its blocks no more, as if they had never been."""
        self.cohorts.remove(cohort)
        for one in cohort.followed:
            self._followed[one.block.stack] -= 1

    def addresses(self) -> set[int]:
        """Of all blocks that are followed."""
        return {one.block.address for cohort in self.cohorts for one in cohort.followed}

    def drop_dead(self, live: Mapping[int, int]) -> None:
        """Drop what a window proved dead; `live`: when the block at an address was allocated, of
        all that were seen allocated and not freed."""
        for cohort in self.cohorts:
            kept = []
            for one in cohort.followed:
                if live.get(one.block.address) == one.block.allocated_ns:
                    kept.append(one)
                else:
                    cohort.bury(one)
                    self._freed[one.block.stack] += 1
            cohort.followed = kept

    def look(self, cohort: Cohort, reader: BlockReader) -> list[StackLook]:
        """Look at a window's blocks now."""
        identities = self._identities()
        counts: dict[int, list[int]] = {}
        kept = []
        for one in cohort.followed:
            state = _state(one, reader, identities[_kind(one)])
            if state is Likeness.OTHER:
                cohort.bury(one)
                continue
            kept.append(one)
            stack = one.block.stack
            count = counts.setdefault(stack, [0, 0, 0, 0])
            if state is Likeness.UNCLEAR or (state is Likeness.ALIKE and self._frees(stack)):
                count[2] += 1
            else:
                count[0] += 1
                count[1] += one.block.size_bytes
                count[3] += state is Likeness.ALIKE
        cohort.followed = kept
        cohort.looks += 1
        return [
            StackLook(stack, alive, held, cohort.dead[stack], unknown + cohort.unread[stack], weak)
            for stack, (alive, held, unknown, weak) in sorted(_with_dead(counts, cohort).items())
        ]

    def _frees(self, stack: int) -> bool:
        """Whether the stack's blocks are freed, as far as frees were watched."""
        return self._freed[stack] > _FREED_SHARE * self._followed[stack]

    def _identities(self) -> dict[tuple[int, int], Identity]:
        """What identifies blocks, by stack and size, learned from all windows."""
        kinds: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        for cohort in self.cohorts:
            for one in cohort.followed:
                kinds.setdefault(_kind(one), []).append(one.then.words)
        return {kind: identity_of(blocks) for kind, blocks in kinds.items()}

    def weak_share(self, cohort: Cohort) -> float:
        """Of a window's followed blocks, those with nothing that tells one from another."""
        identities = self._identities()
        weak = sum(1 for one in cohort.followed if not identities[_kind(one)].tells)
        return weak / len(cohort.followed) if cohort.followed else 0.0


def _kind(one: Followed) -> tuple[int, int]:
    return one.block.stack, one.block.size_bytes


def _state(one: Followed, reader: BlockReader, identity: Identity) -> Likeness:
    address = one.block.address
    if not reader.is_mapped(address):
        return Likeness.OTHER
    now = reader.read(address, one.block.size_bytes)
    if now is None:
        return Likeness.UNCLEAR
    if reader.is_freed(address, one.then, now):
        return Likeness.OTHER
    likeness = identity.compare(one.then.words, now.words)
    if likeness in (Likeness.SAME, Likeness.ALIKE):
        one.now = one.then if now == one.then else now  # Most are as they were: held once.
    return likeness


def _with_dead(counts: dict[int, list[int]], cohort: Cohort) -> dict[int, list[int]]:
    for stack in (*cohort.dead, *cohort.unread):
        counts.setdefault(stack, [0, 0, 0, 0])
    return counts


def even_sample(blocks: Sequence[LiveBlock], most: int) -> list[LiveBlock]:
    """At most `most` of the blocks: all of the stacks that have few, equally many of the others,
    evenly over the time of their window."""
    if len(blocks) <= most:
        return list(blocks)
    stacks: dict[int, list[LiveBlock]] = {}
    for block in sorted(blocks, key=lambda one: one.allocated_ns):
        stacks.setdefault(block.stack, []).append(block)
    chosen: list[LiveBlock] = []
    left = most
    for number, group in enumerate(sorted(stacks.values(), key=len)):
        share = min(len(group), left // (len(stacks) - number))
        left -= share
        chosen.extend(group[place * len(group) // share] for place in range(share))
    return chosen
