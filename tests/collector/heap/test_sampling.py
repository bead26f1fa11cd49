"""A sampled walk against a whole one, on heaps that are laid out in the ways that real ones are."""

from __future__ import annotations

import random
import struct
from typing import Any, Callable

import pytest

from leakcase_collector.errors import OverBudget
from leakcase_collector.heap import sampling
from leakcase_collector.heap.census import Budget, take_census
from leakcase_collector.heap.layout import NON_MAIN_ARENA
from leakcase_collector.heap.sampling import WINDOW_BYTES, SamplingWalker, error_bytes, stride_for
from leakcase_collector.heap.step import step as python_step
from leakcase_collector.heap.steps import best_step
from leakcase_collector.heap.walk import Stretch, Walked, Walker
from leakcase_collector.heap.walk_state import native_step
from leakcase_collector.system import native
from tests.collector.heap.subjects import subject
from tests.collector.heap.test_twins import BASE, Bytes, Unbounded

KB, MB = 1 << 10, 1 << 20
HEAP_BYTES = 32 * MB
SEEDS = range(5)
STRIDES = (256 * KB, 288 * KB, 352 * KB, 416 * KB, 512 * KB)


@pytest.fixture(scope="module")
def c_step() -> Any:
    library = native.load()
    assert library is not None, "build it: make native"
    return native_step(library)


# --- heaps ----------------------------------------------------------------------------------------


def _run(choose: random.Random, pattern: list[tuple[int, bool]], wanted_bytes: int) -> bytes:
    """Chunks of a pattern of (size, is in use), over and over; it begins and ends in use."""
    out = bytearray()
    before: tuple[int, bool] = (0, True)
    for size, in_use in [*pattern, pattern[0]]:
        out += struct.pack("=QQ", 0 if before[1] else before[0], size | before[1])
        fill = choose.choice((bytes(size), choose.randbytes(min(size, 4096)) * (size // 4096 + 1)))
        out += fill[: size - 16]
        before = (size, in_use)
    return bytes(out) * max(1, wanted_bytes // len(out))


def _small(choose: random.Random) -> list[tuple[int, bool]]:
    used = [(16 * choose.randint(2, 60), True) for _ in range(choose.randint(1, 5))]
    return used + choose.choice(([], [(16 * choose.randint(2, 60), False)]))


def clustered(choose: random.Random) -> bytes:
    """Regions of one size each, of 10 KB to 4 MB, some of them nearly all free."""
    pattern = _small(choose)
    if choose.random() < 0.3:
        pattern = [(48, True), (16 * choose.randint(200, 4000), False)]
    return _run(choose, pattern, int(10 * KB * 400 ** choose.random()))


def fragmented(choose: random.Random) -> bytes:
    """A block in use, a free one, of every size, in turn."""
    return _run(
        choose, [(16 * choose.randint(2, 40), True), (16 * choose.randint(2, 300), False)], 2 * KB
    )


def mixed(choose: random.Random) -> bytes:
    """Small blocks between large ones, in use and free, of up to 1 MB."""
    if choose.random() < 0.2:
        size = int(64 * KB * 16 ** choose.random()) // 16 * 16
        return _run(choose, [(64, True), (size, choose.random() < 0.6)], 1)
    return _run(choose, _small(choose), 30 * KB)


def growing(choose: random.Random, done: list[int] = [0]) -> bytes:  # noqa: B006
    """From all in use to all free, slowly: neighbours are alike, both ends are not."""
    done[0] = (done[0] + 1) % 2000
    return _run(
        choose, [(16 * (2 + done[0] // 20), True), (16 * (102 - done[0] // 20), False)], 24 * KB
    )


SHAPES: tuple[Callable[[random.Random], bytes], ...] = (clustered, fragmented, mixed, growing)


def heap(shape: Callable[[random.Random], bytes], seed: int) -> bytes:
    """A sound heap, which ends with a top."""
    choose = random.Random(seed)
    out = bytearray()
    while len(out) < HEAP_BYTES:
        out += shape(choose)
    size = 64 * KB + -len(out) % 4096
    return bytes(out + struct.pack("=QQ", 0, size | 1) + bytes(size - 16))


def stretch_of(content: bytes) -> Stretch:
    top = len(content)
    for at in range(64 * KB, 64 * KB + 4096, 16):
        if struct.unpack_from("=Q", content, top - at + 8)[0] == at | 1:
            return Stretch(BASE, BASE + top, BASE + top, NON_MAIN_ARENA, BASE + top - at)
    raise AssertionError("no top")


class OneRun(Bytes):
    """All of it is in RAM. `large_free`: as in an arena's bins."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.large_free = []
        at, before = 0, 0
        while at < len(content):
            size = struct.unpack_from("=Q", content, at + 8)[0]
            if not size & 1 and before >= WINDOW_BYTES:
                self.large_free.append((BASE + at - before, BASE + at))
            before = size & ~7
            at += before

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        return [(start, end)]


def sampled(memory: OneRun, step: Any, stride: int) -> SamplingWalker:
    """A walker that is told of large free chunks, as an arena's bins tell it."""
    walker = SamplingWalker(memory, Unbounded(), step, stride)
    walker.large_free = memory.large_free
    return walker


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: shape.__name__)
def heaps(request: pytest.FixtureRequest, c_step: Any) -> list[tuple[OneRun, Stretch, Walked]]:
    """Heaps of one shape, and what a whole walk finds."""
    found = []
    for seed in SEEDS:
        content = heap(request.param, seed)
        memory, stretch = OneRun(content), stretch_of(content)
        found.append((memory, stretch, Walker(memory, Unbounded(), c_step).walk(stretch)))
    return found


def test_estimates_are_within_their_bound_in_19_of_20_cases(
    heaps: list[tuple[OneRun, Stretch, Walked]], c_step: Any
) -> None:
    outside, errors, bounds = 0, [], []
    for memory, stretch, exact in heaps:
        for stride in STRIDES:
            walked = sampled(memory, c_step, stride).walk(stretch)
            assert walked.estimate is not None
            bound = error_bytes(walked.in_use_bytes, walked.estimate.variance)
            error = abs(walked.in_use_bytes - exact.in_use_bytes)
            outside += error > bound
            errors.append(error / exact.in_use_bytes)
            bounds.append(bound / exact.in_use_bytes)
            assert walked.top_bytes == exact.top_bytes
            assert walked.accounted_bytes == exact.accounted_bytes
    cases = len(errors)
    print(
        f"{outside} of {cases} outside; error {sum(errors) / cases:.2%}, at most "
        f"{max(errors):.2%}; bound {sum(bounds) / cases:.2%}, at most {max(bounds):.2%}"
    )
    assert outside <= cases * 0.05


def test_both_twins_give_the_same_estimate(
    heaps: list[tuple[OneRun, Stretch, Walked]], c_step: Any
) -> None:
    for memory, stretch, _ in heaps[:1]:
        walks = [sampled(memory, step, 1 * MB).walk(stretch) for step in (python_step, c_step)]
        assert walks[0] == walks[1]
        assert walks[0].estimate is not None and walks[0].estimate.looked_at_bytes < 4 * MB


# --- in running programs --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["idle", "spike"])
def test_a_sampled_census_of_a_program_is_near_its_own_count(mode: str) -> None:
    with subject(mode, 4) as program, program.memory() as memory:
        exact = take_census(memory, Budget(1 << 40, 1 << 40), best_step()[1])
        part = take_census(memory, Budget(1 << 40, 1 << 40), best_step()[1], whole_bytes=0)
    assert exact.sampled_share is None and exact.error_bytes is None and exact.is_complete
    assert part.sampled_share is not None and part.sampled_share < 0.3
    assert part.error_bytes is not None and not part.is_complete
    used = [sum(arena.in_use_bytes for arena in census.arenas) for census in (exact, part)]
    assert abs(used[1] - used[0]) <= part.error_bytes
    assert part.error_bytes < 0.06 * exact.system_bytes
    assert part.system_bytes == exact.system_bytes
    for arena in part.arenas:
        assert arena.accounted_bytes == arena.system_bytes


def test_a_census_that_would_cost_too_much_is_sampled_instead() -> None:
    with subject("spike") as program, program.memory() as memory:
        budget = Budget(12 * MB, 1 << 40)
        with pytest.raises(OverBudget):
            take_census(memory, budget, best_step()[1])
        census = take_census(memory, budget.anew(), best_step()[1], whole_bytes=1 << 40)
    assert census.sampled_share is not None


def test_a_larger_heap_has_no_more_windows() -> None:
    assert stride_for(1 << 30) == 256 * KB
    assert (100 << 30) / stride_for(100 << 30) <= sampling.MOST_WINDOWS
