"""Every chunk that is in use, one by one: for those who look at what is in them."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from leakcase_collector.system.memory import Memory

from . import step as python_step
from .census import Budget, Tour, free_lists, mapped_chunks, walk_arenas
from .mapped import MappedChunk
from .pages import ResidentPages
from .walk_state import Step


class Chunks(NamedTuple):
    """Chunks by ascending address, as long as both arrays: chunk i is at `addresses[i]`.

    A chunk begins with a header of 16 bytes, behind which is the program's block; what the program
    may write is `sizes[i]` - 8 bytes of an arena's chunk, `sizes[i]` - 16 of a mapped one.
    """

    addresses: array[int]
    sizes: array[int]


def in_use_chunks(memory: Memory, budget: Budget, step: Step = python_step.step) -> Chunks:
    """One walk. Chunks that are cached for re-use are left out, mapped ones are in.

    Needs 32 bytes of our memory for each chunk while it is made. Errors: those of `take_census`.
    """
    listing = Listing()
    tour = walk_arenas(memory, budget, step, listing.visit)
    return listing.chunks(memory, tour, mapped_chunks(memory, budget, tour))


class Listing:
    """Takes down what a walk shows, cached chunks among it."""

    def __init__(self) -> None:
        self.pieces: list[tuple[array[int], array[int]]] = []

    def visit(self, listed: array[int], content: bytearray, base: int, length: int) -> None:
        """A visitor for `walk_arenas`."""
        self.pieces.append((listed[::2], listed[1::2]))

    def chunks(self, memory: Memory, tour: Tour, mapped: Iterable[MappedChunk]) -> Chunks:
        """What was taken down, and given away here, without what is cached, and `mapped` ones."""
        lists = free_lists(ResidentPages(memory), tour)
        cached = sorted({address for _, _, free in lists for address, _ in free.chunks})
        addresses, sizes = array("Q"), array("Q")
        pieces = [(array("Q", [c.header]), array("Q", [c.size_bytes])) for c in mapped]
        pieces += self.pieces
        self.pieces = []
        pieces.sort(key=lambda piece: piece[0][0], reverse=True)
        while pieces:
            starts, lengths = pieces.pop()
            for low, high in _between(starts, cached):
                addresses += starts[low:high]
                sizes += lengths[low:high]
        return Chunks(addresses, sizes)


def _between(starts: array[int], cached: list[int]) -> list[tuple[int, int]]:
    """The index ranges of `starts` that hold none of `cached`; both ascending."""
    ranges = []
    low = 0
    for index in range(bisect_left(cached, starts[0]), len(cached)):
        at = bisect_left(starts, cached[index])
        if at == len(starts):
            break
        if starts[at] == cached[index]:
            ranges.append((low, at))
            low = at + 1
    ranges.append((low, len(starts)))
    return ranges
