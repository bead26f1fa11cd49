"""What tells one block from its like: the words that mostly differ among blocks of one stack.

Blocks that one line of code allocates hold much in common: the same table of functions, the same
sizes, flags and zeros. That such a word is still there says little, for the next block in the same
place would hold it, too. A word that differs from block to block, an address or a number or a name,
says that this is still the same object.
"""

from __future__ import annotations

import enum
import math
import struct
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

#: Of a block's beginning, so much is looked at.
CONTENT_BYTES = 512
_WORD_BYTES = 8
#: Of pairs of blocks, so few may be equal at a position that identifies.
_EQUAL_PAIRS = 0.1
#: Few blocks that differ do not prove that all do: pairs that are thought to have been seen
#: before, and of these the equal ones.
_PAIRS_BEFORE, _EQUAL_BEFORE = 50.0, 0.5
#: Of the identifying words, so many must be as they were.
_UNCHANGED = 0.5
#: By chance, another block may hold the words that are as they were so often.
_COINCIDENCE = 1 / 256

Words = tuple[int, ...]


class Likeness(enum.Enum):
    """What a block's words say of it."""

    SAME = "the same block as before"
    #: All is as before, and nothing of it tells one block from another.
    ALIKE = "this block or one like it"
    UNCLEAR = "too little is as before"
    OTHER = "another block"


class Identity(NamedTuple):
    """The positions at which blocks of one stack and size mostly differ, and how often two of
    them are equal there all the same."""

    positions: tuple[int, ...] = ()
    chances: tuple[float, ...] = ()

    @property
    def tells(self) -> bool:
        """Whether blocks can be told apart at all."""
        return math.prod(self.chances) <= _COINCIDENCE

    def compare(self, then: Words, now: Words) -> Likeness:
        """Whether the block that held `then` is the one that holds `now`."""
        if not self.tells:
            return Likeness.ALIKE if then == now else Likeness.OTHER
        unchanged = [
            chance
            for position, chance in zip(self.positions, self.chances)
            if position < min(len(then), len(now)) and then[position] == now[position]
        ]
        if len(unchanged) < _UNCHANGED * len(self.positions):
            return Likeness.OTHER
        return Likeness.SAME if math.prod(unchanged) <= _COINCIDENCE else Likeness.UNCLEAR


def words_of(content: bytes) -> Words:
    """The whole 64-bit words of it, and what remains as a last one."""
    whole, rest = divmod(len(content), _WORD_BYTES)
    words = struct.unpack_from(f"={whole}Q", content)
    return (*words, int.from_bytes(content[-rest:], "little")) if rest else words


def identity_of(blocks: Sequence[Words]) -> Identity:
    """What tells blocks of one stack and size apart; nothing where there is one block only."""
    count = len(blocks)
    if count < 2:
        return Identity()
    pairs = count * (count - 1)
    positions, chances = [], []
    for position, values in enumerate(zip(*blocks)):
        equal = sum(times * (times - 1) for times in Counter(values).values())
        if equal <= _EQUAL_PAIRS * pairs:
            positions.append(position)
            chances.append((equal / 2 + _EQUAL_BEFORE) / (pairs / 2 + _PAIRS_BEFORE))
    return Identity(tuple(positions), tuple(chances))
