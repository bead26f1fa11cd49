"""Both twins mark the same, whatever the words are and whichever pages are missing."""

from __future__ import annotations

import random
from array import array

import pytest

from leakcase_collector.heap.chunks import Chunks
from leakcase_collector.heap.marking import NativeMarking, PythonMarking
from leakcase_collector.system import native

PAGE = 4096
SPANS = ((0x10000, 0x18000), (0x40000, 0x4A000), (0x70000, 0x73800))


def heap(rng: random.Random) -> tuple[Chunks, bytearray]:
    """Chunks of all sizes in three spans, the last of which ends within a page, and the words of
    the whole: many of them point at, into, or just beside a chunk."""
    chunks = Chunks(array("Q"), array("Q"))
    for start, end in SPANS:
        at = start + 16 * rng.randrange(4)
        while at < end - 64:
            size = min(16 * rng.choice((2, 3, 5, 40, 600)), end - at - 16)
            if rng.random() < 0.8:
                chunks.addresses.append(at)
                chunks.sizes.append(size)
            at += size
    words = array("Q", bytes(SPANS[-1][1]))
    for place in range(len(words)):
        if rng.random() < 0.2:
            target = rng.choice(chunks.addresses) + rng.choice((0, 8, 16, 24, 32, 200, 9000))
            words[place] = rng.choice((target, target, rng.getrandbits(64), 0x72FFF, 0x737F8))
    return chunks, bytearray(words.tobytes())


@pytest.mark.skipif(native.load() is None, reason="the native part is not built")
@pytest.mark.parametrize("seed", range(60))
def test_both_mark_the_same_with_pages_that_are_missing(seed: int) -> None:
    rng = random.Random(seed)
    chunks, memory = heap(rng)
    library = native.load()
    assert library is not None
    twins = (PythonMarking(chunks), NativeMarking(chunks, SPANS, library))
    roots = bytearray(
        array("Q", [at + 16 for at in rng.sample(list(chunks.addresses), 3)]).tobytes()
    )
    # Where the end of the last block is missing, what it says before counts all the same.
    pages = [page for start, end in SPANS for page in range(start, end, PAGE)]
    present = [page for page in pages if rng.random() < 0.8]
    for twin in twins:
        twin.roots(roots, len(roots))
        for page in present:
            length = min(PAGE, max(end for start, end in SPANS if page >= start) - page)
            twin.scan(memory[page : page + length], page, length)
        twin.spread()
    count = len(chunks.addresses)
    assert twins[0].marks == twins[1].marks
    assert list(twins[0].prints(0, count)) == list(twins[1].prints(0, count))
    assert 3 <= sum(mark == 1 for mark in twins[0].marks) <= count
