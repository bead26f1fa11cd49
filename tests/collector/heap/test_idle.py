"""An idle program: its own count, its allocator's, and the census are the same to the byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from leakcase_collector.heap.census import Budget
from leakcase_collector.heap.chunks import in_use_chunks
from leakcase_collector.heap.counts import Census
from leakcase_collector.heap.step import step as python_step
from leakcase_collector.heap.steps import best_step
from tests.collector.heap.subjects import VERSIONS, Info, Subject, parse_info, program, subject

THREADS = 3


@pytest.fixture(scope="module", params=VERSIONS)
def idle(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if program(request.param) is None:
        pytest.skip(f"glibc {request.param} could not be fetched")
    with subject("idle", THREADS, version=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def census(idle: Subject) -> Census:
    return idle.census()


@pytest.fixture(scope="module")
def info(idle: Subject) -> Info:
    return parse_info(idle.ask("info"))


def test_blocks_in_use_are_as_many_as_the_program_holds(idle: Subject, census: Census) -> None:
    sizes = census.in_use_sizes()
    held = {int(size): count for size, count in idle.figures("idle").items()}
    assert {size: sizes[size] for size in held} == held


def test_arenas_have_what_malloc_info_says(census: Census, info: Info) -> None:
    assert len(census.arenas) == len(info.arenas) == 1 + THREADS
    assert [a.system_bytes for a in census.arenas] == [a.system_bytes for a in info.arenas]
    assert max(arena.heaps for arena in census.arenas) > 1, "some arena has several heaps"


def test_free_blocks_are_those_that_malloc_info_counts(census: Census, info: Info) -> None:
    for mine, theirs in zip(census.arenas, info.arenas):
        assert (mine.fast_chunks, mine.fast_bytes) == theirs.fast
        # It counts the top as one of them, and adds up sizes with PREV_INUSE, 1 for each block.
        count, size = theirs.rest
        assert mine.free_chunks == count - 1
        assert mine.free_bytes + mine.free_chunks + mine.top_bytes == size


def test_every_byte_is_accounted_for(census: Census) -> None:
    assert census.is_complete
    assert census.attempts == 1
    assert census.skipped_bytes == 0
    for arena in census.arenas:
        assert arena.resyncs == 0
        assert arena.accounted_bytes == arena.system_bytes


def test_mapped_blocks_are_those_that_the_program_holds(
    idle: Subject, census: Census, info: Info
) -> None:
    assert len(census.mapped) == info.mapped[0] == idle.figures("kept")["chunks"]
    assert census.mapped_bytes == info.mapped[1]
    assert 0 < census.mapped_resident_bytes < census.mapped_bytes


def test_what_threads_keep_for_themselves_is_not_in_use(census: Census) -> None:
    """Every thread freed hundreds of blocks of two small sizes: its cache is full of them."""
    for arena in census.arenas[1:]:
        assert arena.cached_chunks >= 2 * 7
        assert arena.free_chunks > 100


def test_both_twins_say_the_same(idle: Subject, census: Census) -> None:
    assert best_step()[0] == "native", "build it: make native"
    python = idle.census(python_step)
    assert python == census


def test_chunks_one_by_one_are_those_that_are_counted(idle: Subject, census: Census) -> None:
    with idle.memory() as memory:
        chunks = in_use_chunks(memory, Budget(1 << 40, 1 << 40), best_step()[1])
    assert list(chunks.addresses) == sorted(set(chunks.addresses))
    counted = sum(arena.in_use_chunks for arena in census.arenas) + len(census.mapped)
    assert len(chunks.addresses) == len(chunks.sizes) == counted
    in_arenas = sum(arena.in_use_bytes for arena in census.arenas)
    assert sum(chunks.sizes) == in_arenas + sum(chunk.size_bytes for chunk in census.mapped)


def test_at_least_three_versions_of_glibc_are_tested() -> None:
    here = [version for version in VERSIONS if program(version) is not None]
    if len(here) < 3:
        pytest.skip(f"only {here} could be had")
