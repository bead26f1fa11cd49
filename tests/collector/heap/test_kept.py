"""What is free and in RAM, what is not in RAM, and heaps that are not as they should be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from leakcase_collector.errors import OverBudget, TargetGone
from leakcase_collector.heap.arenas import HeapNotFound
from leakcase_collector.heap.census import Budget, HeapInconsistent, take_census
from leakcase_collector.heap.steps import best_step
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import MemoryMapping, ProcessMemory
from tests.collector.heap.subjects import VERSIONS, program, subject
from tests.collector.system.started import started

EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)


def require(version: str) -> None:
    if program(version) is None:
        pytest.skip(f"glibc {version} could not be fetched")


@EVERY_VERSION
def test_what_is_free_in_ram_is_what_malloc_trim_gives_back(version: str) -> None:
    require(version)
    with subject("spike", version=version) as running:
        census = running.census()
        told = sum(a.free_resident_bytes for a in census.arenas)
        told += census.arenas[0].top_resident_bytes
        given_back = running.figures("trim")["given_back"]
        after = running.census()
    assert given_back > 10 << 20
    assert abs(told - given_back) < 0.05 * given_back
    assert after.arenas[0].free_resident_bytes < 0.05 * told
    assert after.arenas[0].in_use_chunks == census.arenas[0].in_use_chunks


class Watched:
    """A process's memory that fails the test where a page is read that is not in RAM.

    Pages of `hidden` are said to be swapped out.
    """

    pointer_bytes = 8

    def __init__(self, memory: ProcessMemory, hidden: tuple[int, int] = (0, 0)) -> None:
        self._memory = memory
        self._hidden = hidden
        self.read_bytes = 0

    def mappings(self) -> list[MemoryMapping]:
        return self._memory.mappings()

    def read(self, address: int, size: int) -> bytes:
        self._watch(address, size)
        return self._memory.read(address, size)

    def read_into(self, address: int, view: memoryview) -> int:
        self._watch(address, len(view))
        return self._memory.read_into(address, view)

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        low, high = self._hidden
        runs = []
        for first, last in self._memory.resident_runs(start, end):
            runs += [(first, min(last, low)), (max(first, high), last)]
        return sorted({run for run in runs if run[0] < run[1]})

    def _watch(self, address: int, size: int) -> None:
        runs = self.resident_runs(address & ~4095, -(-(address + size) // 4096) * 4096)
        assert sum(end - start for start, end in runs) >= size, hex(address)
        self.read_bytes += size


def figures(pid: int) -> tuple[list[str], list[str]]:
    """Faults, and page tables and resident sizes: what a page that is brought in would change."""
    with open(f"/proc/{pid}/stat") as file:
        faults = file.read().rpartition(")")[2].split()[7:11]
    with open(f"/proc/{pid}/status") as file:
        sizes = [line for line in file if line.startswith(("VmRSS", "VmPTE", "VmSwap"))]
    return faults, sizes


@EVERY_VERSION
def test_untouched_pages_stay_untouched_and_the_census_is_whole(version: str) -> None:
    require(version)
    with subject("untouched", version=version) as running, running.memory() as memory:
        before = figures(running.pid)
        watched = Watched(memory)
        census = take_census(watched, Budget(1 << 40, 1 << 40), best_step()[1])
        assert figures(running.pid) == before
    assert census.is_complete
    assert census.system_bytes > 24 * 1000003
    assert watched.read_bytes < 4 << 20
    assert census.arenas[0].in_use[1000016] == 25


def test_pages_that_are_swapped_out_are_skipped_and_counted() -> None:
    with subject("spike") as running, running.memory() as memory:
        heap = next(m for m in memory.mappings() if m.path == b"[heap]")
        middle = (heap.start + heap.end) // 2 & ~4095
        watched = Watched(memory, (middle, middle + (256 << 10)))
        whole = running.census()
        census = take_census(watched, Budget(1 << 40, 1 << 40), best_step()[1])
    assert not census.is_complete
    # Free chunks of 39 KB each lie there: up to two of them are seen in part.
    assert (256 << 10) - 8192 < census.skipped_bytes < (256 << 10) + (96 << 10)
    assert whole.arenas[0].in_use_bytes - census.arenas[0].in_use_bytes < 256 << 10


@EVERY_VERSION
def test_a_heap_that_goes_on_elsewhere_is_walked_on_both_sides(version: str) -> None:
    require(version)
    with subject("blocked", version=version) as running:
        kept = running.figures("kept")["chunks"]
        census = running.census()
    assert census.is_complete
    assert census.arenas[0].heaps == 2
    assert census.arenas[0].in_use[1008] == kept


def test_a_damaged_heap_is_refused() -> None:
    with subject("damaged") as running, pytest.raises(HeapInconsistent, match="do not fit"):
        running.census()


def test_a_program_that_ends_meanwhile_is_gone() -> None:
    with subject("spike") as running, running.memory() as memory:
        running.kill()
        with pytest.raises(TargetGone):
            take_census(memory, Budget(1 << 40, 1 << 40))


def test_a_census_that_would_cost_too_much_is_given_up() -> None:
    with subject("spike") as running, running.memory() as memory:
        with pytest.raises(OverBudget, match="more than it may"):
            take_census(memory, Budget(1 << 20, 1 << 40))
        with pytest.raises(OverBudget):
            take_census(memory, Budget(1 << 40, 0))


def test_a_program_that_has_no_glibc_is_told_from_one_with_another_allocator(
    tmp_path: Path,
) -> None:
    source, bare = tmp_path / "bare.c", tmp_path / "bare"
    source.write_text('int word = 1; void _start(void) { for (;;) __asm__ volatile("pause"); }')
    flags = ["-nostdlib", "-static", "-fno-stack-protector"]
    subprocess.run(["gcc", *flags, "-o", str(bare), str(source)], check=True, timeout=60)
    with started([str(bare)]) as process:
        assert refusal_of(process.pid).gap_detail == "heap-not-glibc"
    jemalloc = Path("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")
    if not jemalloc.exists():
        pytest.skip("libjemalloc2 is not installed")
    with subject("untouched", LD_PRELOAD=str(jemalloc)) as running:
        assert refusal_of(running.pid).gap_detail == "heap-not-found"


def refusal_of(pid: int) -> HeapNotFound:
    system = System()
    with (
        ProcessIdentity(system, pid) as identity,
        ProcessMemory(system, identity) as memory,
        pytest.raises(HeapNotFound) as caught,
    ):
        take_census(memory, Budget(1 << 40, 1 << 40))
    return caught.value
