"""Cases of real programs whose leak is known: the function that leaks is named, and first."""

from __future__ import annotations

from pathlib import Path

import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.export_command import FORMATS, exported
from leakcase_analyzer.report.html import html_text
from leakcase_analyzer.report.units import render

RECORDINGS = Path(__file__).parent / "recordings"


def recorded(name: str) -> Analysis:
    with (RECORDINGS / f"{name}.leakcase").open("rb") as file:
        return analyze(file)


@pytest.mark.parametrize(
    ("name", "first", "least_share"),
    [
        ("python-kept-objects", "Session.__init__", 0.5),
        ("cpp-objects", "(anonymous namespace)::leak_session", 0.99),
        ("mapped-buffers", "map_buffer", 0.99),
        ("growing-vector", "append_record", 0.99),
    ],
)
def test_the_function_that_leaks_is_first(name: str, first: str, least_share: float) -> None:
    found = recorded(name).code
    assert found is not None
    suspect = found.suspects[0]
    assert suspect.frame is not None
    assert suspect.frame.function == first
    assert (suspect.share or 0.0) >= least_share


def test_a_python_services_leak_names_the_line_and_the_class_of_what_it_keeps() -> None:
    analysis = recorded("python-kept-objects")
    assert "Session.__init__ (service.py:3)" in render(analysis.verdict.headline)
    assert analysis.code is not None
    frames = {one.frame.function: one for one in analysis.code.suspects if one.frame is not None}
    kept = frames["remember"]
    assert kept.frame is not None and kept.frame.line == 6
    assert "objects of Session" in "\n".join(render(sentence) for sentence in kept.evidence)
    assert (frames["Session.__init__"].share or 0) + (kept.share or 0) >= 0.95


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDINGS.glob("*.leakcase")))
def test_a_recorded_case_can_be_written_in_every_form(name: str) -> None:
    analysis = recorded(name)
    assert "Who allocates what stays" in html_text(analysis)
    assert all(exported(analysis, to) for to in FORMATS)
