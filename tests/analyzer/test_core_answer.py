"""Case in, answer out, where the case is of a core file: one look, and no series at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.report.json_report import as_document
from leakcase_analyzer.report.terminal import terminal_text
from leakcase_analyzer.report.units import render
from leakcase_bundle.records import CaseEnd
from tests.analyzer.cases import MIB, Capture, as_file
from tests.analyzer.heap_cases import Heap, Objects, count, leaked, see


class CoreCase(Capture):
    """What the collector writes of a core file; the looks into it are `extra`."""

    def records(self) -> list[Any]:
        header = replace(self.header(), core=True, interval_ns=0, levels=["read-memory"])
        target = replace(self.target(), start_ticks=None, age_ns=None, state="other")
        return [header, target, *self.extra, CaseEnd(self.at(self.seconds), "duration")]


def core_case() -> CoreCase:
    case = CoreCase(seconds=1)
    see(case, 0, Heap(in_use=20 * MIB, whole_pages=4 * MIB, blocks={224: 80_000, 48: 1_000}))
    count(case, 0, Objects(types={"Session": (5_000, 280_000), "dict": (100, 20_000)}))
    return case


def answer(case: CoreCase, folder: Path) -> Analysis:
    return analyze(as_file(case, folder))


def reasons(analysis: Analysis) -> str:
    return "\n".join(render(reason) for reason in analysis.verdict.reasons)


def test_much_that_nothing_referred_to_is_a_leak_though_there_is_no_series(tmp_path: Path) -> None:
    case = core_case()
    leaked(case, chunk_bytes=224, chunks=60_000)
    verdict = answer(case, tmp_path).verdict
    assert (verdict.status, verdict.kind) == ("leak", "heap")
    assert 0.7 < verdict.confidence < 0.9
    assert "60,000 blocks of 12.8 MiB when the core file was written" in render(verdict.headline)
    assert verdict.watch_longer_seconds is None and verdict.rate_bytes_per_hour is None


def test_without_lost_blocks_it_is_undecided_and_tells_what_the_heap_held(tmp_path: Path) -> None:
    case = core_case()
    leaked(case, chunk_bytes=224, chunks=0)
    found = answer(case, tmp_path)
    assert (found.verdict.status, found.verdict.confidence) == ("undecided", 0.0)
    assert "a core file is one look, which shows no growth" in render(found.verdict.headline)
    said = reasons(found)
    assert "something still refers to each of 100,000 blocks in use" in said
    assert "% of what malloc had handed out were blocks of 201 to 216 bytes (80,000 blocks)" in said
    assert "of Python's objects Session took 273 KiB: 5,000 objects" in said
    assert "were freed but are kept" in said


@pytest.mark.parametrize("chunks", [3_000, 20_000])
def test_little_that_was_lost_is_told_and_decides_nothing(chunks: int, tmp_path: Path) -> None:
    case = core_case()
    leaked(case, chunk_bytes=224, chunks=chunks)
    found = answer(case, tmp_path)
    assert found.verdict.status == "undecided"
    assert f"in {chunks:,} blocks are leaked for certain" in reasons(found)


def test_a_core_without_all_of_its_memory_does_not_prove_a_leak(tmp_path: Path) -> None:
    case = core_case()
    leaked(case, chunk_bytes=224, chunks=60_000, complete=False)
    case.extra[-1] = replace(case.extra[-1], swapped_bytes=MIB)
    assert answer(case, tmp_path).verdict.status == "undecided"


def test_a_core_that_told_nothing_says_so(tmp_path: Path) -> None:
    found = answer(CoreCase(seconds=1), tmp_path)
    assert found.verdict.status == "undecided"
    assert "told nothing of the heap" in render(found.verdict.headline)


def test_reports_say_that_it_is_a_core_file_and_claim_no_age(tmp_path: Path) -> None:
    found = answer(core_case(), tmp_path)
    text = terminal_text(found, unicode=False, colour=False)
    assert "a core file" in text and "age" not in text.split("Why")[0]
    assert "0 % of what it holds" not in text
    assert as_document(found)["target"]["age_seconds"] is None
