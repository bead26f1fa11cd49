"""Programs that allocate while they are read: little is missed, and nothing happens to them."""

from __future__ import annotations

import contextlib

import pytest

from leakcase_collector.heap.census import HeapInconsistent
from leakcase_collector.heap.step import step as python_step
from tests.collector.heap.subjects import VERSIONS, program, subject

CENSUSES = 1000


@pytest.mark.parametrize("version", VERSIONS)
def test_sixteen_churning_threads_are_counted_within_two_percent(version: str) -> None:
    if program(version) is None:
        pytest.skip(f"glibc {version} could not be fetched")
    with subject("churn", 16, 2000, version=version) as running:
        for _ in range(3):
            before = running.figures("live")["bytes"]
            census = running.census()
            after = running.figures("live")["bytes"]
            in_use = sum(arena.in_use_bytes for arena in census.arenas)
            in_use += sum(chunk.end - chunk.start for chunk in census.mapped)
            assert 0.98 * min(before, after) < in_use < 1.02 * max(before, after)
            assert len(census.arenas) > 8
        said = running.figures("stop")
    assert said["errors"] == 0


def test_a_thousand_censuses_leave_a_busy_program_unharmed() -> None:
    """One arena for all threads, the case in which calling into the program deadlocks it."""
    with subject("churn", 4, 100, MALLOC_ARENA_MAX="1") as running:
        rows = []
        for _ in range(CENSUSES):
            with contextlib.suppress(HeapInconsistent):  # it changed too fast each time: no answer
                (arena,) = running.census().arenas
                rows.append(arena.in_use_bytes)
        live = running.figures("live")["bytes"]
        said = running.figures("stop")
    assert said["errors"] == 0
    assert said["operations"] > 100 * CENSUSES
    assert len(rows) > 0.9 * CENSUSES
    assert 0.9 * live < sorted(rows)[len(rows) // 2] < 1.1 * live


def test_the_slower_twin_reads_a_busy_heap_as_well() -> None:
    with subject("churn", 4, 500) as running:
        before = running.figures("live")["bytes"]
        in_use = sum(arena.in_use_bytes for arena in running.census(python_step).arenas)
        after = running.figures("live")["bytes"]
        assert 0.95 * min(before, after) < in_use < 1.05 * max(before, after)
        assert running.figures("stop")["errors"] == 0
