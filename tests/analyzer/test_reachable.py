"""Case in, answer out, where references to the heap's blocks were looked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.report.units import render
from tests.analyzer.cases import MIB, Capture, as_file
from tests.analyzer.heap_cases import Heap, allow, growing, leaked, see

CHUNK = 224
RATE = 400_009
LONG, SHORT = 120, 20
"""Seconds: enough for a series to tell a leak by itself, and too few for that."""


def blocks_in(seconds: int) -> int:
    """What the cases below add."""
    return RATE * seconds // CHUNK


def grown_by_one_size(seconds: int) -> Capture:
    """Grows by blocks of one size."""
    case = growing(RATE, seconds=seconds)
    see(case, 0, Heap(in_use=10 * MIB, blocks={48: 1_000, CHUNK: 1_000}))
    after = {48: 1_000, CHUNK: 1_000 + blocks_in(seconds)}
    see(case, seconds, Heap(in_use=10 * MIB + RATE * seconds, blocks=after))
    return case


def answer(case: Capture, folder: Path) -> Analysis:
    return analyze(as_file(case, folder))


def reasons(analysis: Analysis) -> str:
    return "\n".join(render(reason) for reason in analysis.verdict.reasons)


def not_seen(analysis: Analysis) -> str:
    return "\n".join(render(one.effect) for one in analysis.not_seen)


def test_growth_that_nothing_refers_to_makes_a_leak_nearly_certain(tmp_path: Path) -> None:
    case = grown_by_one_size(LONG)
    before = answer(case, tmp_path).verdict
    leaked(case, chunk_bytes=CHUNK, chunks=blocks_in(LONG))
    analysis = answer(case, tmp_path)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "heap")
    assert analysis.verdict.confidence >= 0.9
    assert analysis.verdict.confidence >= before.confidence
    assert "not a cache, which would refer to it" in reasons(analysis)
    assert "leaked before" not in reasons(analysis)


def test_growth_that_a_series_cannot_judge_is_a_leak_where_nothing_refers_to_it(
    tmp_path: Path,
) -> None:
    case = grown_by_one_size(SHORT)
    assert answer(case, tmp_path).verdict.status == "undecided"
    leaked(case, chunk_bytes=CHUNK, chunks=blocks_in(SHORT))
    verdict = answer(case, tmp_path).verdict
    assert verdict.status == "leak"
    assert 0.7 <= verdict.confidence < 0.95
    assert verdict.watch_longer_seconds is None
    assert render(verdict.headline).startswith("Leak: nothing refers any more to 7.63 MiB")


def test_growth_that_is_still_referred_to_stays_undecided(tmp_path: Path) -> None:
    case = grown_by_one_size(SHORT)
    # What was leaked is of another size than what was added, and older.
    leaked(case, chunk_bytes=48, chunks=900_000)
    analysis = answer(case, tmp_path)
    assert analysis.verdict.status == "undecided"
    assert "still referred to: a cache, or a kept list" in reasons(analysis)
    assert "41.2 MiB of that leaked before the first look" in reasons(analysis)


def test_a_leak_whose_blocks_are_all_referred_to_stays_a_leak(tmp_path: Path) -> None:
    case = grown_by_one_size(LONG)
    before = answer(case, tmp_path).verdict
    leaked(case, chunk_bytes=CHUNK, chunks=0)
    verdict = answer(case, tmp_path).verdict
    assert (verdict.status, verdict.confidence) == (before.status, before.confidence)


@pytest.mark.parametrize(("blocks", "swapped"), [(6, 0), (blocks_in(SHORT), 4096)])
def test_what_registers_or_swap_may_refer_to_is_not_called_leaked(
    blocks: int, swapped: int, tmp_path: Path
) -> None:
    case = grown_by_one_size(SHORT)
    leaked(case, chunk_bytes=CHUNK, chunks=blocks)
    case.extra[-1] = replace(case.extra[-1], swapped_bytes=swapped, complete=not swapped)
    analysis = answer(case, tmp_path)
    assert analysis.verdict.status == "undecided"
    assert "for certain" not in reasons(analysis)
    assert "no reference was found" in reasons(analysis)
    assert ("registers alone" in reasons(analysis)) == (not swapped)
    assert ("only referred to from there" in not_seen(analysis)) == bool(swapped)


def test_what_such_a_search_cannot_see_is_said(tmp_path: Path) -> None:
    case = allow(Capture())
    leaked(case, chunk_bytes=CHUNK, chunks=0)
    assert "only whole blocks of malloc" in not_seen(answer(case, tmp_path))
    leaked(case, chunk_bytes=CHUNK, chunks=10_000)
    assert "only referred to that way looks unreachable" in not_seen(answer(case, tmp_path))
