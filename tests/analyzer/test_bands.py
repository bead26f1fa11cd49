"""Windows that watch some sizes only: each stack is weighed by those that watched all it makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.export.weighted import weighted_stacks
from leakcase_analyzer.findings.fates import coverages
from leakcase_analyzer.report.units import render
from leakcase_bundle.records import TraceSites
from tests.analyzer.cases import Capture, as_file
from tests.analyzer.trace_cases import CHURN, FOREVER, IN_MAIN, Source, Traced, growing

BAND = (150, 250)
WITHIN = Source(("leak_within", *IN_MAIN), each_window=60, size=200)
BEYOND = Source(("leak_beyond", *IN_MAIN), each_window=60, size=50)
BOTH = Source(("leak_both", *IN_MAIN), each_window=60, size=200, other_size=50)
SOURCES = (WITHIN, BEYOND, BOTH, replace(CHURN, each_window=600))
SHARES = {"leak_within": 200 / 375, "leak_beyond": 50 / 375, "leak_both": 125 / 375}


def three_of_four(number: int) -> tuple[int, int] | None:
    return None if number % 4 == 3 else BAND


def traced(*sources: Source) -> Traced:
    starts = [5 + 2.5 * number for number in range(24)]
    return Traced(growing(), sources or SOURCES, window_starts=starts, band_of=three_of_four)


def judged(case: Capture, folder: Path) -> Analysis:
    return analyze(as_file(case, folder))


def shares(analysis: Analysis) -> dict[str | None, float | None]:
    assert analysis.code is not None
    return {
        one.frame.function: one.share for one in analysis.code.suspects if one.frame is not None
    }


def test_shares_are_right_within_the_band_beyond_it_and_on_both_sides(tmp_path: Path) -> None:
    assert shares(judged(traced().add(), tmp_path)) == pytest.approx(SHARES, abs=0.002)


def test_a_band_that_misses_the_leak_hides_nothing(tmp_path: Path) -> None:
    assert shares(judged(traced(BEYOND, SOURCES[3]).add(), tmp_path)) == {"leak_beyond": 1.0}


def test_a_rare_leak_that_the_narrow_windows_alone_met_is_weighed_by_all(tmp_path: Path) -> None:
    case = traced().add()
    starts = {window.started_ns: window for window in case.extra if hasattr(window, "started_ns")}
    whole = {one.window for one in starts.values() if one.smallest_bytes is None}
    case.extra = [_without(one, 0) if getattr(one, "window", None) in whole else one
                  for one in case.extra]  # fmt: skip
    found = shares(judged(case, tmp_path))
    # A quarter of the time without a block of it: by chance, and it counts.
    assert found["leak_within"] == pytest.approx(150 / (150 + 50 + 125), abs=0.002)


def _without(record: object, stack: int) -> object:
    """Of the lists that go together, all but one stack's."""
    stacks = getattr(record, "stacks", None)
    if stacks is None:
        return record
    at = stacks.index(stack)
    lists = {name: value for name, value in vars(record).items() if isinstance(value, list)}
    cut = {name: [*value[:at], *value[at + 1 :]] for name, value in lists.items()}
    return replace(record, **cut)  # type: ignore[type-var]


def test_sizes_that_are_not_told_are_taken_from_the_means(tmp_path: Path) -> None:
    case = traced(WITHIN, BEYOND, SOURCES[3]).add()
    case.extra = [
        replace(one, kept_smallest_bytes=None, kept_largest_bytes=None)
        if isinstance(one, TraceSites) else one
        for one in case.extra
    ]  # fmt: skip
    found = shares(judged(case, tmp_path))
    assert found == pytest.approx({"leak_within": 0.8, "leak_beyond": 0.2}, abs=0.002)


def test_where_no_window_watched_all_that_a_stack_makes_all_windows_count(tmp_path: Path) -> None:
    case = Traced(growing(), [BOTH], band_of=lambda number: BAND if number % 2 else (40, 60)).add()
    tracing = judged(case, tmp_path).evidence.tracing
    (found,) = coverages(tracing.windows).values()
    assert found.seconds == pytest.approx(0.3 * len(tracing.windows), abs=0.001)


def test_the_report_says_which_sizes_were_watched_in_how_many_windows(tmp_path: Path) -> None:
    unseen = judged(traced().add(), tmp_path).not_seen
    (said,) = (one for one in unseen if render(one.claim) == "blocks of other sizes as often")
    assert render(said.because) == (
        "in 18 of 24 windows only sizes from 150 B to 250 B were watched, by which the heap grew"
    )
    assert "by the other 6 windows alone" in render(said.effect)


def test_exported_weights_are_as_if_all_windows_had_watched_all_sizes(tmp_path: Path) -> None:
    found = {
        one.frames[0].function: one for one in weighted_stacks(judged(traced().add(), tmp_path))
    }
    for name, size in (("leak_within", 200), ("leak_beyond", 50), ("leak_both", 125)):
        one = found[name]
        assert (one.made_blocks, one.stayed_blocks) == (60 * 24, 60 * 24)
        assert one.made_bytes == one.stayed_bytes == 60 * 24 * size


@pytest.mark.parametrize("is_active_only", [True, False])
def test_a_leak_while_it_works_is_told_from_a_constant_one(
    is_active_only: bool, tmp_path: Path
) -> None:
    leak = replace(BOTH, active_only=is_active_only, life=FOREVER)
    case = replace(traced(leak), is_active=lambda start: start < 35).add()
    found = judged(case, tmp_path).code
    assert found is not None
    assert found.suspects[0].trigger == ("active" if is_active_only else "constant")
