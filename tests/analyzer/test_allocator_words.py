"""Case in, answer out, where the allocator was asked in the process, or a core was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.report.heap_tables import told_rows
from leakcase_analyzer.report.units import render
from leakcase_bundle import records as kinds
from leakcase_bundle.strings import PathToken
from tests.analyzer.cases import MIB, Capture, Mapping, as_file, heap_leak
from tests.analyzer.heap_cases import Heap, allow, see, spike_that_is_kept
from tests.analyzer.test_heap import advice, known_parts, not_seen, reasons

Answer = Callable[[Capture], Analysis]


@pytest.fixture
def answer(tmp_path: Path) -> Answer:
    return lambda capture: analyze(as_file(capture, tmp_path))


def tell(case: Capture, seconds: float, allocator: str, **figures: Any) -> None:
    """An answer of the allocator at a time; figures in bytes."""
    look = sum(isinstance(record, kinds.AllocatorWords) for record in case.extra)
    whole = {name: v if isinstance(v, bool) else int(v) for name, v in figures.items()}
    case.extra.append(
        kinds.AllocatorWords(
            look, case.at(seconds), allocator, stopped_ns=3_000_000, attempts=1, **whole
        )
    )


def jemalloc_spike() -> Capture:
    """80 MiB that were needed once; jemalloc says that 4 MiB of them are in use."""
    case = Capture(seconds=120, allocator="jemalloc")
    rise = (case.t / 8).clip(0, 1)
    case.anonymous_bytes = case.stable(10 * MIB) + rise * (80 * MIB)
    case.mappings = [Mapping("anonymous", 10 * MIB, 88 * MIB)]
    tell(case, 0, "jemalloc", in_use_bytes=2 * MIB, metadata_bytes=MIB, resident_bytes=8 * MIB)
    tell(
        case, 120, "jemalloc", in_use_bytes=6 * MIB, active_bytes=9 * MIB, metadata_bytes=2 * MIB,
        resident_bytes=88 * MIB, retained_bytes=30 * MIB, profiler_built=True, profiler_on=False,
    )  # fmt: skip
    return case


def test_what_jemalloc_keeps_is_retention_by_its_own_words(answer: Answer) -> None:
    analysis = answer(jemalloc_spike())
    assert analysis.verdict.status == "retention"
    assert analysis.memory.live_heap_bytes == 6 * MIB
    assert analysis.memory.kept_free_bytes == 80 * MIB
    assert known_parts(analysis) == analysis.memory.resident_bytes
    said = reasons(analysis)
    assert "by the allocator's own words 6.00 MiB are in use, and 80.0 MiB were freed" in said
    assert "3.00 MiB of its pages in use are the rest of pages that blocks share" in said
    assert "30.0 MiB it gave back to the kernel" in said
    assert "dirty_decay_ms" in advice(analysis)
    assert "malloc_trim" not in advice(analysis)


def test_no_setting_helps_where_blocks_in_use_lie_on_every_page(answer: Answer) -> None:
    case = jemalloc_spike()
    last = case.extra[-1]
    case.extra[-1] = replace(last, active_bytes=85 * MIB)
    analysis = answer(case)
    assert analysis.verdict.status == "retention"
    assert "79.0 MiB of its pages in use are the rest of pages" in reasons(analysis)
    assert "dirty_decay_ms" not in advice(analysis)


def test_a_leak_under_another_allocator_is_told_by_what_it_has_in_use(answer: Answer) -> None:
    case = heap_leak(allocator="tcmalloc")
    assert case.anonymous_bytes is not None
    first, last = float(case.anonymous_bytes[0]), float(case.anonymous_bytes[-1])
    tell(case, 0, "tcmalloc", in_use_bytes=first - MIB, free_bytes=MIB, system_bytes=first)
    tell(case, case.seconds, "tcmalloc", in_use_bytes=last - MIB, free_bytes=MIB,
         system_bytes=last, cached_bytes=MIB)  # fmt: skip
    analysis = answer(case)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "heap")
    assert "what it has in use grew by" in reasons(analysis)
    assert "freed memory that the allocator keeps" in "\n".join(
        render(one.claim) for one in analysis.ruled_out
    )
    assert "HEAPPROFILE" in advice(analysis)


@pytest.mark.parametrize(
    ("built", "on", "words"),
    [
        (True, False, "this one was built with it"),
        (True, True, "is on already"),
        (False, False, "was built without it"),
        (None, None, "if built with prof"),
    ],
)
def test_the_profiler_is_named_as_it_is_there(
    answer: Answer, built: bool | None, on: bool | None, words: str
) -> None:
    case = heap_leak(allocator="jemalloc")
    if built is not None:
        tell(case, 1, "jemalloc", in_use_bytes=MIB, resident_bytes=2 * MIB,
             profiler_built=built, profiler_on=on)  # fmt: skip
    assert words in advice(answer(case))


def test_mimalloc_tells_what_it_has_and_no_more(answer: Answer) -> None:
    case = heap_leak(allocator="mimalloc")
    tell(case, case.seconds, "mimalloc", system_bytes=64 * MIB, peak_bytes=64 * MIB)
    analysis = answer(case)
    assert "by mimalloc's own words it has 64.0 MiB from the kernel" in reasons(analysis)
    assert analysis.memory.kept_free_bytes is None
    assert "MIMALLOC_SHOW_STATS=1" in advice(analysis)


def told(case: Capture, off_bytes: int = 0) -> Capture:
    """glibc's words beside the census at the end of a spike that is kept."""
    see_again = [one for one in case.extra if isinstance(one, kinds.HeapCensus)][-1]
    system = see_again.system_bytes + see_again.mapped_bytes
    free = see_again.free_bytes + see_again.top_bytes + off_bytes
    tell(case, case.seconds, "glibc", system_bytes=system, free_bytes=free,
         in_use_bytes=system - free)  # fmt: skip
    return case


def test_words_and_books_that_agree_are_said_to(answer: Answer) -> None:
    analysis = answer(told(spike_that_is_kept()))
    assert "its own figures and its books, read from outside, agree" in reasons(analysis)
    # What is free is told of memory by the census, not of address space by the words.
    assert analysis.memory.kept_free_bytes == 76 * MIB


def test_words_and_books_that_differ_lower_the_confidence(answer: Answer) -> None:
    agreeing, differing = answer(told(spike_that_is_kept())), answer(
        told(spike_that_is_kept(), off_bytes=-20 * MIB)
    )  # fmt: skip
    assert "own words and its books differ by" in not_seen(differing)
    assert differing.verdict.confidence < agreeing.verdict.confidence


def test_glibc_s_words_alone_say_nothing_of_what_is_resident(answer: Answer) -> None:
    case = Capture(seconds=120)
    case.anonymous_bytes = case.stable(90 * MIB)
    tell(case, 120, "glibc", system_bytes=90 * MIB, free_bytes=60 * MIB, in_use_bytes=30 * MIB)
    analysis = answer(case)
    assert analysis.memory.live_heap_bytes == 30 * MIB
    assert analysis.memory.kept_free_bytes is None


def test_words_that_do_not_fit_into_what_the_process_holds_are_not_its_memory(
    answer: Answer,
) -> None:
    case = Capture(seconds=120)
    case.anonymous_bytes = case.stable(20 * MIB)
    tell(case, 120, "jemalloc", in_use_bytes=200 * MIB, resident_bytes=280 * MIB)
    assert answer(case).memory.live_heap_bytes is None


def test_impossible_words_are_passed_over(answer: Answer) -> None:
    case = jemalloc_spike()
    tell(case, 60, "jemalloc", in_use_bytes=-5, resident_bytes=1 << 62)
    analysis = answer(case)
    assert len(analysis.evidence.words) == 2
    assert analysis.memory.live_heap_bytes == 6 * MIB


def test_a_refusal_is_named_with_its_reason(answer: Answer) -> None:
    case = heap_leak(allocator="jemalloc")
    for detail in ("no-safe-point", "not-askable"):
        case.extra.append(kinds.Gap(case.at(1), "allocator-statistics", "failed", detail))
    said = not_seen(answer(case))
    assert "at no moment was every thread proven to be outside the allocator" in said
    assert "no function that could be called safely" in said


def test_where_the_allocator_told_it_is_no_gap_that_its_books_are_not_read(answer: Answer) -> None:
    case = allow(jemalloc_spike())
    gap = kinds.Gap(case.at(1), "heap-census", "not-supported", "heap-not-found")
    case.extra.append(gap)
    assert "its allocator is jemalloc" not in not_seen(answer(case))


def test_a_core_is_named_as_something_to_look_into(answer: Answer) -> None:
    case = heap_leak()
    path = PathToken("/var/<name:9>")
    case.extra.append(kinds.CoreDump(case.at(60), path, 100 * MIB, 90 * MIB, 200_000_000))
    analysis = answer(case)
    assert len(analysis.evidence.cores) == 1
    assert "leakcase-collect capture --core FILE" in advice(analysis)


def test_the_table_shows_the_first_and_the_last_answer(answer: Answer) -> None:
    rows = told_rows(answer(jemalloc_spike()).evidence)
    assert ("in use", "2.00 MiB", "6.00 MiB") in rows
    assert ("given back, address space kept", "not known", "30.0 MiB") in rows
    case = Capture(seconds=30)
    see(allow(case), 0, Heap(in_use=MIB))
    assert told_rows(answer(case).evidence) == []
