"""What is noted of blocks while they are walked: the twins note the same, and samples are fair."""

from __future__ import annotations

import random
from array import array

import pytest

from leakcase_collector.heap.pick import MOST_WORDS, Pick, PythonPick
from leakcase_collector.heap.pick_native import NativePick
from leakcase_collector.system import native

RANGES = [(0x1000, 0x3000), (0x5000, 0x5008), (0x7F0000000000, 0x7F0000100000)]
BASE = 0x10000
WINDOW_BYTES = 1 << 16


def twins(samples: int) -> tuple[Pick, Pick]:
    library = native.load()
    if library is None:
        pytest.skip("the native part is not built")
    return PythonPick(RANGES, samples), NativePick(library, RANGES, samples)


def outcome(pick: Pick) -> tuple[object, ...]:
    classes = [one._replace(sampled=list(one.sampled)) for one in pick.classes()]
    return sorted(pick.words()), classes, list(pick.outside), pick.dropped


def test_the_twins_note_the_same_of_any_blocks_and_words() -> None:
    source = random.Random(7)
    words = [bound + step for bounds in RANGES for bound in bounds for step in (-8, -1, 0, 8)]
    python, in_c = twins(samples=10)
    for _ in range(20):
        content = bytearray(
            b"".join(source.choice(words).to_bytes(8, "little") for _ in range(WINDOW_BYTES // 8))
        )
        listed = array("Q")
        for _ in range(300):
            listed.append(source.randrange(BASE - 64, BASE + WINDOW_BYTES + 64) & ~15)
            listed.append(int(2 ** source.uniform(5, 40)) & ~15)
        for pick in (python, in_c):
            pick.visit(listed, content, BASE, WINDOW_BYTES)
            pick.scan(content, WINDOW_BYTES)
    assert outcome(python) == outcome(in_c)


def test_beyond_what_is_counted_words_are_dropped_and_that_is_told() -> None:
    words = range(8, 8 * (MOST_WORDS + 101), 8)
    ranges = [(words.start, words.stop)]
    content = bytearray(b"".join(word.to_bytes(8, "little") for word in words))
    library = native.load()
    picks: list[Pick] = [PythonPick(ranges)]
    picks += [NativePick(library, ranges)] if library is not None else []
    for pick in picks:
        pick.scan(content, len(content))
        assert (len(list(pick.words())), pick.dropped) == (MOST_WORDS, 100)


@pytest.mark.parametrize("count", (1, 9, 10, 11, 1000, 12345))
def test_a_sample_is_every_nth_block_and_as_large_as_may_be(count: int) -> None:
    for pick in twins(samples=10):
        listed = array("Q", [word for n in range(count) for word in (16 * n, 48)])
        pick.visit(listed, bytearray(8), 0, 0)
        (found,) = pick.classes()
        addresses = list(found.sampled)
        steps = {after - before for before, after in zip(addresses, addresses[1:])}
        assert (found.chunks, found.size_bytes, addresses[0]) == (count, 48 * count, 0)
        assert len(steps) <= 1
        assert min(count, 5) <= len(addresses) <= 10
