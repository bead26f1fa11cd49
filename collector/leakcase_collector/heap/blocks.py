"""Lists of unreachable blocks, of which there may be millions, and what two of them share."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .chunks import Chunks
from .marking import REFERRED, UNSEEN, Marking

_NOT_REACHED = re.compile(b"[%c%c]+" % (UNSEEN, REFERRED))


class Block(NamedTuple):
    """An unreachable chunk. `is_indirect`: another unreachable one refers to it."""

    address: int
    size_bytes: int
    content: int
    is_indirect: bool


class Blocks:
    """Unreachable chunks by ascending address, in 21 bytes each: `content` is a fingerprint."""

    def __init__(self) -> None:
        self.addresses, self.sizes = array("Q"), array("Q")
        self.contents, self.marks = array("I"), bytearray()

    def __len__(self) -> int:
        return len(self.addresses)

    def __iter__(self) -> Iterator[Block]:
        for address, size, content, mark in zip(*self._columns()):
            yield Block(address, -(-size // 16) * 16, content, mark == REFERRED)

    def _columns(self) -> tuple[array[int], array[int], array[int], bytearray]:
        return self.addresses, self.sizes, self.contents, self.marks

    @classmethod
    def of(cls, chunks: Chunks, marking: Marking) -> Blocks:
        """What a marking did not reach."""
        blocks = cls()
        for run in _NOT_REACHED.finditer(marking.marks):
            blocks._add(chunks, marking, *run.span())
        return blocks

    def _add(self, chunks: Chunks, marking: Marking, low: int, high: int) -> None:
        self.addresses += chunks.addresses[low:high]
        self.sizes += chunks.sizes[low:high]
        self.contents += marking.prints(low, high)
        self.marks += marking.marks[low:high]

    def also_in(self, other: Blocks) -> Blocks:
        """Those that `other` has, too, of the same size and content."""
        common = Blocks()
        others = zip(other.addresses, other.sizes, other.contents)
        theirs = next(others, None)
        for row in zip(*self._columns()):
            while theirs is not None and theirs[0] < row[0]:
                theirs = next(others, None)
            if theirs == row[:3]:
                common._append(row)
        return common

    def without(self, is_unwanted: Callable[[int, int], bool]) -> Blocks:
        """Those of whose address and size `is_unwanted` does not hold."""
        wanted = Blocks()
        for row in zip(*self._columns()):
            if not is_unwanted(row[0], row[1]):
                wanted._append(row)
        return wanted

    def _append(self, row: tuple[int, ...]) -> None:
        for column, value in zip(self._columns(), row):
            column.append(value)
