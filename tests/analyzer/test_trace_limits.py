"""What tracing cannot show of Python's smallest objects is said where it may be what grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leakcase_analyzer.analysis import analyze
from leakcase_analyzer.report.units import render
from leakcase_bundle.records import TraceWindow
from tests.analyzer.cases import as_file
from tests.analyzer.trace_cases import CHURN, LEAK, Source, Traced, growing


@pytest.mark.parametrize(
    ("sources", "watched", "is_said"),
    [
        ([CHURN], "python-objects", True),
        ([CHURN, replace(LEAK, each_window=2)], "python-objects", True),
        ([CHURN, LEAK], "python-objects", False),
        ([CHURN], "allocator", False),
    ],
    ids=["nobody-named", "little-explained", "explained", "no-python"],
)
def test_strings_that_pile_up_without_a_line_are_told_as_such(
    sources: list[Source], watched: str, is_said: bool, tmp_path: Path
) -> None:
    case = Traced(growing(), sources).add()
    case.extra = [
        replace(one, watched=watched) if isinstance(one, TraceWindow) else one for one in case.extra
    ]
    unseen = [render(one.claim) for one in analyze(as_file(case, tmp_path)).not_seen]
    assert any("strings, bytes and numbers" in text for text in unseen) == is_said
