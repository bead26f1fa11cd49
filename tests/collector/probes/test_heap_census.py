"""The census as records: sums that hold, classes of size, and a gap for every reason."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakcase_bundle.records import HeapArena, HeapCensus, HeapSizes
from leakcase_collector.errors import TargetGone
from leakcase_collector.heap.sizes import by_class, size_class
from leakcase_collector.probes.heap_census import HeapCensusProbe
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from tests.collector.heap.subjects import subject
from tests.collector.probes.context import RecordingContext, run
from tests.collector.system.started import NOBODY, as_nobody, needs_root, started, started_python


@contextlib.contextmanager
def context_of(pid: int) -> Iterator[RecordingContext]:
    with ProcessIdentity(System(), pid) as identity:
        yield RecordingContext(pid, identity=identity)


def gaps_of(pid: int) -> list[tuple[str, str]]:
    with context_of(pid) as context:
        run(HeapCensusProbe(), context)
        assert context.records == []
        return context.gaps


def test_what_arenas_hold_adds_up_to_what_they_have() -> None:
    with subject("idle", 3) as running, context_of(running.pid) as context:
        run(HeapCensusProbe(), context)
        held = running.figures("idle")
    assert context.gaps == []
    censuses = context.emitted(HeapCensus)
    assert [census.census for census in censuses] == [0, 1, 2]
    for census in [*censuses, *context.emitted(HeapArena)]:
        assert census.complete
        parts = ("in_use", "cached", "fast", "free", "top", "overhead", "skipped")
        assert sum(getattr(census, f"{p}_bytes") for p in parts) == census.system_bytes
    arenas = [arena for arena in context.emitted(HeapArena) if arena.census == 0]
    assert [arena.arena for arena in arenas] == [0, 1, 2, 3]
    for name in ("in_use_bytes", "free_chunks", "cached_chunks", "resident_bytes", "system_bytes"):
        assert sum(getattr(arena, name) for arena in arenas) == getattr(censuses[0], name)
    for sizes in context.emitted(HeapSizes):
        counts = dict(zip(sizes.chunk_bytes, sizes.in_use_chunks))
        assert counts[208] == held["208"]
        assert counts[size_class(100016)] == held["100016"]
        assert sum(sizes.in_use_bytes) == censuses[0].in_use_bytes + censuses[0].mapped_bytes


def test_arenas_are_told_at_the_ends_only() -> None:
    with subject("idle", 1) as running, context_of(running.pid) as context:
        run(HeapCensusProbe(), context, samples=3)
    assert sorted({arena.census for arena in context.emitted(HeapArena)}) == [0, 4]
    assert len(context.emitted(HeapSizes)) == 5


def test_growth_is_told_by_size() -> None:
    code = "import sys\nkept = []\nfor line in sys.stdin:\n"
    code += "    kept += [bytes(1000) for _ in range(5003)]\n    print('done', flush=True)\n"
    with started(["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with context_of(process.pid) as context:
            probe = HeapCensusProbe()
            for step in (probe.begin, probe.finish):
                process.stdin.write(b"go\n")
                process.stdin.flush()
                process.stdout.readline()
                step(context, 1)
    before, after = (
        dict(zip(sizes.chunk_bytes, sizes.in_use_chunks)) for sizes in context.emitted(HeapSizes)
    )
    # sys.getsizeof(bytes(1000)) is 1033, and 8 more for malloc: a chunk of 1056.
    # Python itself has a few of that size now and then.
    assert abs(after[1056] - before.get(1056, 0) - 5003) < 20


def test_without_permission_a_gap_says_so() -> None:
    with started(["sleep", "60"]) as process:
        pid = process.pid
        assert as_nobody(lambda: gaps_of(pid)) == [("not-permitted", "mem")]


@needs_root
def test_an_undumpable_program_of_the_same_user_leaves_a_gap() -> None:
    code = f"import ctypes, os, time; os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    code += "ctypes.CDLL(None).prctl(4, 0); print(); time.sleep(60)"
    with started_python(code) as process:
        pid = process.pid
        assert as_nobody(lambda: gaps_of(pid)) == [("not-permitted", "mem")]


def test_a_damaged_heap_leaves_a_gap_and_no_numbers() -> None:
    with subject("damaged") as running:
        assert gaps_of(running.pid) == [("failed", "heap-inconsistent")]


def test_a_program_without_glibc_leaves_a_gap_and_no_numbers(tmp_path: Path) -> None:
    source, bare = tmp_path / "bare.c", tmp_path / "bare"
    source.write_text('int word = 1; void _start(void) { for (;;) __asm__ volatile("pause"); }')
    flags = ["-nostdlib", "-static", "-fno-stack-protector"]
    subprocess.run(["gcc", *flags, "-o", str(bare), str(source)], check=True, timeout=60)
    with started([str(bare)]) as process:
        assert gaps_of(process.pid) == [("not-supported", "heap-not-glibc")]


def test_a_program_that_ended_is_gone() -> None:
    with subject("spike") as running, context_of(running.pid) as context:
        probe = HeapCensusProbe()
        probe.begin(context, 1)
        told = len(context.records)
        running.kill()
        with pytest.raises(TargetGone):
            probe.finish(context, 2)
        assert len(context.records) == told


def test_the_slower_twin_is_named_where_the_other_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subject("spike") as running, context_of(running.pid) as context:
        HeapCensusProbe().begin(context, 1)
        monkeypatch.setenv("LEAKCASE_NATIVE", "0")
        HeapCensusProbe().begin(context, 1)
        first, second = context.emitted(HeapCensus)
    assert (first.method, second.method) == ("native", "python")
    assert first.in_use_bytes == second.in_use_bytes


@pytest.mark.parametrize("size", [32, 4096, 4112, 8192, 100016, 1 << 33])
def test_a_class_begins_at_most_a_sixteenth_below_its_sizes(size: int) -> None:
    smallest = size_class(size)
    assert smallest <= size < smallest * 17 // 16 + 1
    assert size_class(smallest) == smallest
    assert smallest == size or size > 4096


def test_classes_add_up() -> None:
    sizes = {32: 5, 4096: 1, 5008: 3, 5024: 2, 1 << 20: 1, 64: 0}
    assert by_class(sizes) == [
        (32, 5, 160),
        (4096, 1, 4096),
        (4864, 5, 3 * 5008 + 2 * 5024),
        (1 << 20, 1, 1 << 20),
    ]
