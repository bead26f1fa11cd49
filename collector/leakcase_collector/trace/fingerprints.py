"""What tells one block from its like: the words that mostly differ among blocks of one stack.

Blocks that one line of code allocates hold much in common: the same table of functions, the same
sizes, flags and zeros. That such a word is still there says little, for the next block in the same
place would hold it, too. A word that differs from block to block, an address or a number or a name,
says that this is still the same object.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

#: Of a block's beginning, so much is looked at.
CONTENT_BYTES = 512
_WORD_BYTES = 8
#: Of pairs of blocks, so few may be equal at a position that identifies.
_EQUAL_PAIRS = 0.1
#: Of the identifying words, so many must be as they were.
_UNCHANGED = 0.5

Words = tuple[int, ...]


class Likeness(NamedTuple):
    """Whether a block is what it was; `is_weak` where another one might look the same."""

    is_same: bool
    is_weak: bool


def words_of(content: bytes) -> Words:
    """The whole 64-bit words of it, and what remains as a last one."""
    whole, rest = divmod(len(content), _WORD_BYTES)
    words = struct.unpack_from(f"={whole}Q", content)
    return (*words, int.from_bytes(content[-rest:], "little")) if rest else words


def identifying_positions(blocks: Sequence[Words]) -> tuple[int, ...]:
    """The positions at which blocks of one stack and size mostly differ, ascending.

    None are known where there is one block only.
    """
    count = len(blocks)
    if count < 2:
        return ()
    pairs = count * (count - 1)
    found = []
    for position, values in enumerate(zip(*blocks)):
        equal = sum(times * (times - 1) for times in Counter(values).values())
        if equal <= _EQUAL_PAIRS * pairs:
            found.append(position)
    return tuple(found)


def compare(then: Words, now: Words, positions: Sequence[int]) -> Likeness:
    """Whether the block that held `then` is the one that holds `now`, by what identifies it."""
    if not positions:
        return Likeness(then == now, True)
    unchanged = sum(1 for position in positions if then[position] == now[position])
    return Likeness(unchanged >= _UNCHANGED * len(positions), False)
