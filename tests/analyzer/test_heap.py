"""Case in, answer out, where the heap was looked into: in use, kept free, by size and by type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.findings.base import HeapChange
from leakcase_analyzer.findings.retention import growth_in_words
from leakcase_analyzer.findings.size_classes import requested
from leakcase_analyzer.report.heap_tables import heap_line
from leakcase_analyzer.report.units import render
from leakcase_bundle import records as kinds
from tests.analyzer.cases import MIB, Capture, Mapping, as_file, heap_leak
from tests.analyzer.heap_cases import (
    Heap,
    Objects,
    allow,
    count,
    growing,
    leaked,
    python_leak,
    see,
    spike_that_is_kept,
    spike_that_is_not_freed,
)

Answer = Callable[[Capture], Analysis]


@pytest.fixture
def answer(tmp_path: Path) -> Answer:
    return lambda capture: analyze(as_file(capture, tmp_path))


def reasons(analysis: Analysis) -> str:
    return "\n".join(render(reason) for reason in analysis.verdict.reasons)


def not_seen(analysis: Analysis) -> str:
    return "\n".join(
        f"{render(one.claim)}: {render(one.because)}; {render(one.effect)}"
        for one in analysis.not_seen
    )


def advice(analysis: Analysis) -> str:
    return "\n".join(f"{render(one.what)} {render(one.why)}" for one in analysis.actions)


def known_parts(analysis: Analysis) -> float:
    memory = analysis.memory
    parts = (
        memory.live_heap_bytes, memory.kept_free_bytes, memory.mapped_file_bytes,
        memory.stack_bytes, memory.shared_bytes, memory.runtime_bytes, memory.allocator_bytes,
        memory.unexplained_bytes,
    )  # fmt: skip
    return sum(part for part in parts if part is not None)


# --- leak or retention ----------------------------------------------------------------------------


def test_a_spike_that_the_allocator_keeps_is_retention_with_the_kept_figure(answer: Answer) -> None:
    analysis = answer(spike_that_is_kept(kept=76 * MIB))
    assert (analysis.verdict.status, analysis.verdict.kind) == ("retention", "heap")
    assert analysis.memory.kept_free_bytes == 76 * MIB
    assert "76.0 MiB" in render(analysis.verdict.headline)
    assert "no leak" in render(analysis.verdict.headline)
    assert "freed memory by 76.0 MiB" in reasons(analysis)


def test_freed_memory_that_became_less_is_said_to_fall() -> None:
    said = render(growth_in_words(HeapChange(45, 19 * MIB, -2 * MIB, 17 * MIB)))
    assert said.endswith("blocks in use by 19.0 MiB; freed memory fell by 2.00 MiB")


def test_the_same_memory_in_use_is_no_retention(answer: Answer) -> None:
    analysis = answer(spike_that_is_not_freed())
    assert analysis.verdict.status == "bounded"
    assert analysis.memory.kept_free_bytes == 0
    assert "blocks in use by 79.0 MiB" in reasons(analysis)


def test_one_look_at_the_end_tells_retention_where_hardly_anything_is_in_use(
    answer: Answer,
) -> None:
    kept, used = spike_that_is_kept(), spike_that_is_not_freed()
    for case in (kept, used):
        # A program that has not called malloc yet has no heap at the first look.
        case.extra = case.extra[2:]
    analysis = answer(kept)
    assert analysis.verdict.status == "retention"
    assert analysis.verdict.confidence >= 0.6
    assert "no more than 5.00 MiB, all that is, can be in use" in reasons(analysis)
    assert answer(used).verdict.status == "bounded"


def test_growth_of_freed_memory_is_retention_and_of_blocks_in_use_a_leak(answer: Answer) -> None:
    grown = 400_009 * 120
    kept, used = growing(), growing()
    for case in (kept, used):
        see(case, 0, Heap(in_use=10 * MIB))
    see(kept, 120, Heap(in_use=11 * MIB, scattered=grown - MIB))
    see(used, 120, Heap(in_use=10 * MIB + grown))
    assert answer(kept).verdict.status == "retention"
    assert (answer(used).verdict.status, answer(used).verdict.kind) == ("leak", "heap")


@pytest.mark.parametrize(("seconds", "least"), [(120, 0.9), (600, 0.96)])
def test_books_that_agree_make_a_leak_surer(seconds: int, least: float, answer: Answer) -> None:
    without = answer(allow(heap_leak(400_009, seconds=seconds)))
    case = growing(seconds=seconds)
    see(case, 0, Heap(in_use=10 * MIB))
    see(case, seconds, Heap(in_use=10 * MIB + 400_009 * seconds))
    with_books = answer(case)
    assert with_books.verdict.confidence >= least > without.verdict.confidence
    assert "freed memory that the allocator keeps" in [
        render(one.claim) for one in with_books.ruled_out
    ]


@pytest.mark.parametrize("at", [0, 60, 120])
def test_one_look_into_a_steady_process_says_how_much_of_it_is_kept(
    at: int, answer: Answer
) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(90 * MIB)
    see(case, at, Heap(in_use=20 * MIB, whole_pages=60 * MIB))
    analysis = answer(case)
    assert analysis.verdict.status == "retention"
    assert analysis.memory.kept_free_bytes == 60 * MIB
    assert "one look" in not_seen(analysis)


def test_a_steady_process_that_uses_what_it_holds_is_stable(answer: Answer) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(90 * MIB)
    see(case, 0, Heap(in_use=70 * MIB, whole_pages=10 * MIB))
    see(case, 120, Heap(in_use=70 * MIB, whole_pages=10 * MIB))
    assert answer(case).verdict.status == "stable"


def test_use_that_grows_within_memory_that_was_kept_is_not_called_retention(
    answer: Answer,
) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(110 * MIB)
    see(case, 0, Heap(in_use=10 * MIB, whole_pages=90 * MIB))
    see(case, 60, Heap(in_use=20 * MIB, whole_pages=80 * MIB))
    see(case, 120, Heap(in_use=30 * MIB, whole_pages=70 * MIB))
    analysis = answer(case)
    assert analysis.verdict.status == "undecided"
    assert (analysis.verdict.watch_longer_seconds or 0) > 0
    assert "blocks in use grew by 20.0 MiB" in reasons(analysis)


def test_use_that_comes_and_goes_within_kept_memory_is_retention(answer: Answer) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(110 * MIB)
    for seconds, used in ((0, 10), (60, 40), (120, 30)):
        see(case, seconds, Heap(in_use=used * MIB, whole_pages=(100 - used) * MIB))
    assert answer(case).verdict.status == "retention"


def test_memory_that_is_used_at_one_look_and_free_at_the_next_is_not_kept_for_nothing(
    answer: Answer,
) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(110 * MIB)
    for seconds, used in ((0, 95), (60, 10), (120, 5)):
        see(case, seconds, Heap(in_use=used * MIB, whole_pages=(100 - used) * MIB))
    analysis = answer(case)
    assert analysis.verdict.status == "stable"
    assert "at another look only 5.00 MiB were free" in reasons(analysis)


def test_memory_that_malloc_does_not_know_leaves_the_verdict_to_the_series(
    answer: Answer,
) -> None:
    case = growing()
    case.mappings = [Mapping("anonymous", MIB, MIB + 400_009 * 120)]
    see(case, 0, Heap(in_use=5 * MIB))
    see(case, 120, Heap(in_use=5 * MIB))
    analysis = answer(case)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "mmap")
    assert "mapped directly" in reasons(analysis)
    assert "in the books of the allocator that could be read" in not_seen(analysis)
    assert analysis.verdict.confidence <= 0.85


def test_large_blocks_with_mappings_of_their_own_are_the_heaps(answer: Answer) -> None:
    case = growing()
    case.mappings = [Mapping("anonymous", MIB, MIB + 400_009 * 120)]
    see(case, 0, Heap(in_use=5 * MIB, mapped=2 * MIB))
    see(case, 120, Heap(in_use=5 * MIB, mapped=2 * MIB + 400_009 * 120))
    analysis = answer(case)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "heap")
    assert "malloc or the program itself" not in not_seen(analysis)


def test_thread_stacks_that_grow_stay_threads_whatever_the_heap_says(answer: Answer) -> None:
    case = growing(9_001)
    case.threads = case.steps(4, 1.0)
    case.mappings = [Mapping("thread-stack", MIB, MIB + 9_001 * 120)]
    see(case, 0, Heap(in_use=5 * MIB))
    see(case, 120, Heap(in_use=5 * MIB))
    assert answer(case).verdict.kind == "threads"


# --- what is kept, and how ------------------------------------------------------------------------


def test_free_room_beside_blocks_in_use_is_kept_but_cannot_be_given_back(answer: Answer) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(90 * MIB)
    see(case, 0, Heap(in_use=30 * MIB, scattered=50 * MIB))
    analysis = answer(case)
    assert analysis.verdict.status == "retention"
    assert analysis.memory.kept_free_bytes == pytest.approx(50 * MIB, abs=4096)
    assert analysis.heap is not None and analysis.heap.returnable_bytes == 0
    assert "50.0 MiB of that lie between blocks in use" in reasons(analysis)
    assert "jemalloc" in advice(analysis) and "malloc_trim" not in advice(analysis)


def test_whole_free_pages_are_what_trimming_would_give_back(answer: Answer) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(90 * MIB)
    see(case, 0, Heap(in_use=20 * MIB, whole_pages=50 * MIB, top=10 * MIB))
    analysis = answer(case)
    assert analysis.heap is not None and analysis.heap.returnable_bytes == 60 * MIB
    assert "malloc_trim(0)" in advice(analysis) and "60.0 MiB" in advice(analysis)


def test_arenas_of_threads_that_keep_memory_are_to_be_limited_unless_they_are(
    answer: Answer,
) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(90 * MIB)
    see(case, 0, Heap(in_use=10 * MIB, whole_pages=70 * MIB, thread_arenas=6))
    assert "MALLOC_ARENA_MAX" in advice(answer(case))
    assert "6 arenas of threads" in reasons(answer(case))
    case.setting("MALLOC_ARENA_MAX", 2)
    assert "MALLOC_ARENA_MAX" not in advice(answer(case))


def test_a_pool_allocator_that_keeps_memory_makes_retention_of_its_own(answer: Answer) -> None:
    case = allow(Capture(runtime="cpython"))
    case.anonymous_bytes = case.stable(90 * MIB)
    see(case, 0, Heap(in_use=10 * MIB, whole_pages=MIB))
    count(case, 0.5, Objects(pools=60 * MIB, blocks=8 * MIB, empty_pools=4 * MIB))
    analysis = answer(case)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("retention", "managed-heap")
    assert analysis.memory.kept_free_bytes == pytest.approx(57 * MIB, abs=4096)
    assert analysis.memory.runtime_bytes == 8 * MIB
    assert "pymalloc keeps 56.0 MiB" in reasons(analysis)
    assert "child process" in advice(analysis)


def test_unknown_residency_leaves_what_is_kept_unknown(answer: Answer) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(90 * MIB)
    see(case, 0, Heap(in_use=10 * MIB, whole_pages=70 * MIB, resident=False))
    analysis = answer(case)
    assert analysis.verdict.status == "stable"
    assert analysis.memory.kept_free_bytes is None
    assert "which pages of the heap are in RAM" in not_seen(analysis)


# --- the split ------------------------------------------------------------------------------------


def python_service() -> Capture:
    case = allow(Capture(runtime="cpython"))
    case.anonymous_bytes = case.stable(90 * MIB)
    case.mappings = [Mapping("thread-stack", MIB, MIB), Mapping("main-heap", 50 * MIB, 50 * MIB)]
    see(case, 0, Heap(in_use=10 * MIB, whole_pages=5 * MIB))
    see(case, 120, Heap(in_use=12 * MIB, whole_pages=3 * MIB, mapped=20 * MIB))
    count(case, 120, Objects(pools=30 * MIB, blocks=25 * MIB))
    return case


@pytest.mark.parametrize(
    "build",
    [spike_that_is_kept, spike_that_is_not_freed, growing, heap_leak, Capture, python_service],
)
def test_the_parts_of_memory_add_up_to_what_is_resident(
    build: Callable[[], Capture], answer: Answer
) -> None:
    analysis = answer(build())
    assert known_parts(analysis) == analysis.memory.resident_bytes


def test_pymallocs_pools_are_not_counted_as_mallocs_blocks(answer: Answer) -> None:
    memory = answer(python_service()).memory
    assert memory.live_heap_bytes == pytest.approx(32 * MIB, abs=4096)
    assert memory.runtime_bytes == 25 * MIB
    assert memory.kept_free_bytes == pytest.approx(8 * MIB, abs=4096)


def test_a_busy_host_s_counts_far_apart_are_put_together_where_memory_did_not_change(
    answer: Answer,
) -> None:
    case = allow(Capture(runtime="cpython"))
    case.anonymous_bytes = case.stable(70 * MIB)
    see(case, 119, Heap(in_use=32 * MIB))
    count(case, 90, Objects(pools=26 * MIB, blocks=25 * MIB))
    analysis = answer(case)
    assert analysis.memory.runtime_bytes == 25 * MIB
    assert "Python's objects" not in not_seen(analysis)


def test_a_count_of_objects_that_is_no_longer_true_is_not_used_and_that_is_said(
    answer: Answer,
) -> None:
    case = allow(Capture(runtime="cpython"))
    case.anonymous_bytes = case.stable(70 * MIB) + np.where(case.t >= 100, 20 * MIB, 0)
    see(case, 119, Heap(in_use=32 * MIB))
    count(case, 90, Objects(pools=26 * MIB, blocks=25 * MIB))
    analysis = answer(case)
    assert analysis.memory.runtime_bytes is None
    assert "which part of its memory at the end is Python's objects" in not_seen(analysis)


def test_books_that_exceed_what_is_resident_at_the_end_are_cut_to_it(answer: Answer) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(60 * MIB) + np.where(case.t >= 119, -5 * MIB, 0)
    see(case, 118, Heap(in_use=58 * MIB))
    analysis = answer(case)
    assert known_parts(analysis) == analysis.memory.resident_bytes
    assert analysis.memory.unexplained_bytes == 0


def test_what_a_program_wrote_to_its_own_files_pages_is_the_files_part(answer: Answer) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(60 * MIB)
    case.mappings = [
        Mapping("library-data", 3 * MIB, 3 * MIB, path="/usr/lib/libc.so.6"),
        Mapping("main-heap", 56 * MIB, 56 * MIB),
    ]
    without = answer(case).memory
    see(case, 120, Heap(in_use=59 * MIB))
    memory = answer(case).memory
    assert without.mapped_file_bytes == 11 * MIB
    # What the allocator knows to be its own is not a file's, wherever it is mapped.
    assert memory.live_heap_bytes == pytest.approx(59 * MIB, abs=4096)
    assert (memory.mapped_file_bytes or 0) < 10 * MIB and memory.unexplained_bytes == 0


def test_a_look_that_is_no_longer_true_does_not_split_the_memory_at_the_end(
    answer: Answer,
) -> None:
    case = growing()
    see(case, 0, Heap(in_use=15 * MIB))
    assert answer(case).memory.live_heap_bytes is None


# --- sizes ----------------------------------------------------------------------------------------


def leak_of_one_size(per_second: int = 1_999) -> Capture:
    case = growing(per_second * 224)
    leaked = per_second * case.seconds
    see(case, 0, Heap(in_use=10 * MIB, blocks={32: 50_000, 224: 1_000, 1040: 500}))
    see(
        case, 120,
        Heap(in_use=10 * MIB + 224 * leaked, blocks={32: 51_000, 224: 1_000 + leaked, 1040: 400}),
    )  # fmt: skip
    return case


def test_a_leak_names_the_size_of_block_that_grows(answer: Answer) -> None:
    analysis = answer(leak_of_one_size())
    assert analysis.sizes is not None
    part = analysis.sizes.parts[0]
    assert part.least_bytes <= 211 <= part.most_bytes < 224
    assert part.count == 1_999 * 120
    named = next(one for one in analysis.growing if one.what.startswith("blocks of"))
    assert named.what == "blocks of 201 to 216 bytes"
    assert named.unit == "bytes" and named.part_of == "the main heap"
    assert named.rate_per_hour == pytest.approx(1_999 * 224 * 3600, rel=0.01)
    assert named.share == pytest.approx(1.0, abs=0.05)
    assert "100 % of the growth in use are blocks of 201 to 216 bytes" in reasons(analysis)
    assert "blocks of 201 to 216 bytes" in advice(analysis)


def test_sizes_that_grow_beside_a_mapping_that_grows_far_more_are_not_named(
    answer: Answer,
) -> None:
    case = growing(4_000_037)
    see(case, 0, Heap(in_use=10 * MIB, blocks={224: 1_000}))
    see(case, 120, Heap(in_use=11 * MIB, blocks={224: 5_000}))
    assert not [one for one in answer(case).growing if one.what.startswith("blocks of")]


@pytest.mark.parametrize(
    ("asked", "chunk"),
    [(1, 32), (24, 32), (25, 48), (40, 48), (41, 64), (211, 224), (4_088, 4_096)],
)
def test_a_chunk_is_called_by_what_was_asked_for(asked: int, chunk: int) -> None:
    # chunk = (asked + 8) rounded up to 16, at least 32: glibc's request2size.
    least, most = requested(chunk)
    assert least <= asked <= most


@pytest.mark.parametrize("asked", [5_003, 100_003, 200_003, 9_000_011])
def test_a_class_of_several_sizes_holds_what_was_asked_for(asked: int) -> None:
    page = 4096
    chunk = (asked + 8 + 15) & ~15 if asked < 128 << 10 else -(-(asked + 16) // page) * page
    step = 1 << (chunk.bit_length() - 1 - 4)
    least, most = requested(chunk // step * step)
    assert least <= asked <= most


# --- types ----------------------------------------------------------------------------------------


def test_a_leak_of_python_objects_is_managed_and_names_the_type(answer: Answer) -> None:
    before = {"dict": (2_000, 400_000), "Session": (100, 4_800), "bytes": (900, 50_000)}
    after = {
        "dict": (2_010, 401_000),
        "Session": (60_000, 2_880_000),
        "bytes": (60_800, 26_000_000),
    }
    analysis = answer(python_leak(before, after))
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "managed-heap")
    assert [one.name for one in analysis.types] == ["bytes", "Session", "dict"]
    assert analysis.types[1].count == 59_900
    assert "Session grew by 2.74 MiB: 59,900 more objects" in reasons(analysis)
    assert "objects of Session" in advice(analysis)
    assert analysis.verdict.confidence >= 0.9


def test_native_memory_that_grows_in_a_python_service_is_heap(answer: Answer) -> None:
    case = growing(320_720, runtime="cpython")
    leaked = 211 * 120
    see(case, 0, Heap(in_use=5 * MIB, blocks={1520: 10}))
    see(case, 120, Heap(in_use=5 * MIB + 1520 * leaked, blocks={1520: 10 + leaked}))
    for seconds in (0, 120):
        count(case, seconds, Objects(types={"dict": (2_000, 400_000)}, pools=8 * MIB, blocks=7e6))
    analysis = answer(case)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "heap")
    assert analysis.types == ()
    assert "Python's objects did not grow" in reasons(analysis)
    assert "heaptrack" in advice(analysis) and "tracemalloc" not in advice(analysis)
    assert "large strings" not in not_seen(analysis)


def test_large_bytes_that_are_kept_in_a_list_are_not_called_native_for_sure(
    answer: Answer,
) -> None:
    case = growing(320_720, runtime="cpython")
    kept = 211 * 120
    see(case, 0, Heap(in_use=5 * MIB, blocks={1520: 10}))
    see(case, 120, Heap(in_use=5 * MIB + 1520 * kept, blocks={1520: 10 + kept}))
    count(case, 0, Objects(types={"list": (10, 1_000)}, pools=8 * MIB, blocks=7 * MIB))
    count(case, 120, Objects(types={"list": (10, 1_000 + 9 * kept)}, pools=8 * MIB, blocks=7 * MIB))
    analysis = answer(case)
    assert analysis.verdict.kind == "heap"
    assert "large strings, bytes and tables" in not_seen(analysis)


def test_a_type_that_was_not_listed_at_first_counts_only_where_it_had_hardly_any(
    answer: Answer,
) -> None:
    case = python_leak({}, {})
    case.extra = [
        r for r in case.extra if not isinstance(r, (kinds.PythonCensus, kinds.PythonTypes))
    ]
    grown = 255_000 * 120
    first = Objects(types={"dict": (2_000, 100_000)}, folded=(50, 900, 60_000))
    last = Objects(
        types={
            "dict": (2_000, 100_000),
            "Session": (60_000, 20_000_000),
            "Small": (2_000, 120_000),
        },
        blocks=19 * MIB + grown,
        pools=20 * MIB + grown,
    )
    count(case, 0, first)
    count(case, 120, last)
    assert [one.name for one in answer(case).types] == ["Session"]


def test_looks_that_walked_all_objects_are_compared_rather_than_those_that_did_not(
    answer: Answer,
) -> None:
    grown = 255_000 * 120
    before = Objects(types={"list": (100, 9_000)}, pools=8 * MIB, blocks=7 * MIB)
    walked = Objects({"list": (200, 9_000 + grown)}, 8 * MIB + grown, 7 * MIB + grown)
    not_walked = Objects({"list": (200, 11_200)}, walked.pools, walked.blocks, walked=False)

    def seen(*looks: Objects) -> Analysis:
        case = growing(255_000, runtime="cpython")
        for seconds, look in zip((0, 110, 120), looks, strict=False):
            count(case, seconds, look)
        return answer(case)

    assert seen(before, walked, not_walked).types[0].growth_bytes == grown
    two = seen(before, not_walked)
    assert two.types[0].count == 100
    assert "objects of more than 512 bytes" in not_seen(two)


# --- what nothing refers to -----------------------------------------------------------------------


def test_blocks_that_nothing_refers_to_are_leaked_for_certain(answer: Answer) -> None:
    case = leak_of_one_size()
    assert "--reachability" in not_seen(answer(case))
    leaked(case, chunk_bytes=224, chunks=100_000)
    analysis = answer(case)
    assert analysis.memory.unreachable_bytes == 22_400_000
    assert known_parts(analysis) == analysis.memory.resident_bytes
    assert "21.4 MiB in 100,000 blocks are leaked for certain" in reasons(analysis)
    assert "100 % of that are blocks of 201 to 216 bytes" in reasons(analysis)
    assert "still refers" not in not_seen(analysis)


def test_what_leaked_before_the_capture_is_told_of_a_steady_process(answer: Answer) -> None:
    case = allow(Capture())
    see(case, 120, Heap(in_use=40 * MIB))
    leaked(case, chunk_bytes=1040, chunks=10_000, complete=False)
    analysis = answer(case)
    assert analysis.verdict.status == "stable"
    assert "9.92 MiB in 10,000 blocks are leaked for certain" in reasons(analysis)
    assert "only referred to from there" in not_seen(analysis)


def test_a_leak_of_what_is_still_referred_to_says_so(answer: Answer) -> None:
    case = leak_of_one_size()
    leaked(case, chunk_bytes=224, chunks=0)
    assert "it is still kept" in reasons(answer(case))


def test_a_search_that_did_not_come_about_says_why(answer: Answer) -> None:
    case = leak_of_one_size()
    case.extra.append(kinds.Gap(case.at(120), "reachability", "over-budget"))
    lines = [line for line in not_seen(answer(case)).splitlines() if "still refers" in line]
    assert len(lines) == 1 and "more than was allowed" in lines[0]


# --- looks that are partial, missing or wrong -----------------------------------------------------


def test_a_look_that_lacks_much_of_the_heap_is_not_relied_on(answer: Answer) -> None:
    case = spike_that_is_kept()
    case.extra = []
    see(case, 0, Heap(in_use=2 * MIB))
    see(case, 120, Heap(in_use=5 * MIB, whole_pages=40 * MIB, skipped=36 * MIB))
    analysis = answer(case)
    assert analysis.verdict.status != "retention"
    assert "could not be accounted for" in not_seen(analysis)


def test_a_look_that_lacks_a_little_is_used_and_said(answer: Answer) -> None:
    case = spike_that_is_kept()
    case.extra = []
    see(case, 0, Heap(in_use=2 * MIB))
    see(case, 120, Heap(in_use=5 * MIB, whole_pages=73 * MIB, skipped=3 * MIB))
    analysis = answer(case)
    assert analysis.verdict.status == "retention"
    assert "up to 4 % of the heap" in not_seen(analysis)
    assert analysis.verdict.confidence < answer(spike_that_is_kept()).verdict.confidence


def test_books_that_do_not_fit_into_the_process_are_left_out_and_said(answer: Answer) -> None:
    case = allow(Capture())
    case.anonymous_bytes = case.stable(40 * MIB)
    see(case, 60, Heap(in_use=20 * MIB, whole_pages=300 * MIB))
    analysis = answer(case)
    assert analysis.verdict.status == "stable"
    assert analysis.heap is None
    assert "320 MiB in RAM where the process held 40.0 MiB" in not_seen(analysis)


@pytest.mark.parametrize(
    ("reason", "detail", "said"),
    [
        ("not-supported", "heap-not-glibc", "not glibc's malloc"),
        ("not-supported", "heap-layout", "does not know"),
        ("failed", "heap-inconsistent", "did not fit together"),
        ("not-permitted", "mem", "not permitted to read its memory"),
        ("over-budget", None, "more than was allowed"),
    ],
)
def test_a_census_that_was_not_to_be_had_says_why(
    reason: str, detail: str | None, said: str, answer: Answer
) -> None:
    case = allow(heap_leak())
    case.extra.append(kinds.Gap(case.at(1), "heap-census", reason, detail))
    analysis = answer(case)
    assert said in not_seen(analysis)
    assert analysis.heap is None and analysis.verdict.status == "leak"


def test_another_allocator_is_named_as_the_reason(answer: Answer) -> None:
    case = allow(heap_leak(allocator="jemalloc"))
    case.extra.append(kinds.Gap(case.at(1), "heap-census", "not-supported", "heap-not-found"))
    assert "its allocator is jemalloc" in not_seen(answer(case))


def test_memory_that_nobody_allowed_to_read_is_one_blind_spot_and_not_three(
    answer: Answer,
) -> None:
    case = heap_leak()
    for probe in ("heap-census", "python-types"):
        case.extra.append(kinds.Gap(case.at(1), probe, "not-consented"))
    lines = [line for line in not_seen(answer(case)).splitlines() if "memory" in line]
    assert len(lines) == 1 and "--allow read-memory" in lines[0]


def test_without_a_look_nothing_is_said_about_the_heap(answer: Answer) -> None:
    analysis = answer(heap_leak())
    assert analysis.heap is None and analysis.sizes is None and analysis.types == ()
    assert analysis.memory.live_heap_bytes is None


def test_figures_that_no_process_has_are_no_look(answer: Answer) -> None:
    case = spike_that_is_kept()
    case.rewrite = lambda raw: (
        {**raw, "free_resident_bytes": 1 << 62} if raw["record"] == "heap.census" else raw
    )
    analysis = answer(case)
    assert analysis.heap is None
    assert analysis.evidence.reading.left_out_records > 0


def test_a_thousand_looks_are_thinned_and_the_ends_stay(answer: Answer) -> None:
    case = growing()
    for number in range(1000):
        seconds = 120 * number / 999
        see(case, seconds, Heap(in_use=10 * MIB + 400_009 * seconds))
    analysis = answer(case)
    looks = analysis.evidence.heap
    assert len(looks) <= 64
    assert looks[0].seconds == 0 and looks[-1].seconds == pytest.approx(120)
    assert analysis.verdict.status == "leak"


# --- heaps that were estimated --------------------------------------------------------------------


def estimated(case: Capture, permille: int) -> Capture:
    case.extra[:] = [
        replace(one, complete=False, sampled_permille=125, error_permille=permille)
        if isinstance(one, kinds.HeapCensus)
        else one
        for one in case.extra
    ]
    return case


def test_an_estimated_heap_is_told_with_its_error_and_costs_confidence(answer: Answer) -> None:
    case = growing()
    see(case, 0, Heap(in_use=18 * MIB))
    see(case, 120, Heap(in_use=60 * MIB))
    counted, part = answer(case), answer(estimated(case, 90))
    assert (part.verdict.status, part.verdict.kind) == ("leak", counted.verdict.kind)
    assert part.verdict.confidence < counted.verdict.confidence
    assert part.heap is not None and part.heap.error_bytes > 0
    assert "\u2248" in (heap_line(part) or "") and "\u2248" not in (heap_line(counted) or "")
    assert "too large to be walked" in not_seen(part)


def test_an_estimate_that_may_be_wrong_by_much_decides_nothing(answer: Answer) -> None:
    assert answer(spike_that_is_kept()).verdict.status == "retention"
    case = spike_that_is_kept()
    for one in case.extra:
        if isinstance(one, kinds.HeapCensus):
            permille = 200 * one.system_bytes // one.in_use_bytes
    part = answer(estimated(case, permille))
    assert part.verdict.status != "retention" and part.heap is None
    assert "may be wrong by" in not_seen(part)
