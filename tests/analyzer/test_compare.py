"""Two cases in, one outcome out: what became of a leak."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

import leakcase_analyzer.report
from leakcase_analyzer.analysis import analyze
from leakcase_analyzer.cli import main
from leakcase_analyzer.compare import Comparison, compare
from leakcase_analyzer.report.comparison import comparison_json, comparison_text
from leakcase_analyzer.report.units import render
from tests.analyzer.cases import MIB, Capture, as_file
from tests.analyzer.hostile import HOSTILE_NAMES, with_hostile_names
from tests.analyzer.trace_cases import CHURN, LEAK, Source, Traced, growing

SCHEMA = json.loads(
    Path(leakcase_analyzer.report.__path__[0]).joinpath("comparison.schema.json").read_text("utf-8")
)


def leak(per_second: float, **options: int) -> Capture:
    case = Capture(**options)  # type: ignore[arg-type]
    case.anonymous_bytes = case.leak(20 * MIB, per_second)
    return case


def both(before: Capture, after: Capture, folder: Path) -> Comparison:
    for name in ("before", "after"):
        (folder / name).mkdir(exist_ok=True)
    found = compare(
        analyze(as_file(before, folder / "before")), analyze(as_file(after, folder / "after"))
    )
    document = json.loads(comparison_json(found))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["outcome"] == found.outcome
    return found


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        (60_000, 0, "fixed"),
        (60_000, 20_000, "improved"),
        (60_000, 60_500, "same"),
        (20_000, 60_000, "worse"),
        (0, 60_000, "new-leak"),
        (0, 0, "same"),
    ],
)
def test_the_outcome_follows_the_rates(
    before: float, after: float, outcome: str, tmp_path: Path
) -> None:
    cases = [leak(rate) if rate else Capture() for rate in (before, after)]
    assert both(*cases, tmp_path).outcome == outcome


def test_a_leak_of_another_kind_is_a_new_one(tmp_path: Path) -> None:
    after = Capture()
    after.descriptors = {"total": after.steps(14, 5), "files": after.steps(14, 5)}
    found = both(leak(60_000), after, tmp_path)
    assert found.outcome == "new-leak"
    assert "of kind fds now, where it was of kind heap" in render(found.headline)


def test_a_short_watch_decides_nothing(tmp_path: Path) -> None:
    found = both(leak(60_000), leak(60_000, seconds=20), tmp_path)
    assert found.outcome == "undecided"
    assert "the case of after is not sure" in render(found.headline)


def test_a_watch_that_would_not_have_shown_the_leak_does_not_prove_it_fixed(tmp_path: Path) -> None:
    after = Capture()
    after.anonymous_bytes = after.stable(400 * MIB, noise_pages=3000)
    found = both(leak(3_000, seconds=600), after, tmp_path)
    assert found.outcome == "undecided"
    assert "that watch would have shown growth above" in render(found.headline)


def test_a_program_that_rests_is_not_one_that_is_mended(tmp_path: Path) -> None:
    after = Capture()
    after.cpu_seconds = after.t * 0.001
    found = both(leak(60_000), after, tmp_path)
    assert found.outcome == "undecided"
    assert "used 2 % of the CPU that it used before" in render(found.headline)


def test_each_place_in_the_code_is_followed(tmp_path: Path) -> None:
    other = Source(("leak_other", "main"), each_window=90)
    before = Traced(growing(90_000), [LEAK, other, CHURN]).add()
    after = Traced(growing(30_000), [other, CHURN]).add()
    found = both(before, after, tmp_path)
    assert found.outcome == "improved"
    changes = {one.place: (one.before, one.after) for one in found.places}
    assert changes["leak_session (worker)"] == (pytest.approx(60_000, rel=0.05), None)
    assert changes["leak_other (worker)"] == (
        pytest.approx(30_000, rel=0.05), pytest.approx(30_000, rel=0.05),
    )  # fmt: skip


def test_the_text_has_the_outcome_first_and_both_answers(tmp_path: Path) -> None:
    text = comparison_text(both(leak(60_000), Capture(), tmp_path))
    assert text.startswith("Fixed: it leaked 206 MiB/h before, and does not now.\n")
    assert "  before  Leak: heap memory grows" in text
    assert "  after   No leak: anonymous memory is steady" in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("name", HOSTILE_NAMES[::7])
def test_hostile_names_reach_no_terminal_as_they_are(name: str, tmp_path: Path) -> None:
    found = both(with_hostile_names([name]), with_hostile_names(["a", name]), tmp_path)
    assert all(line.isprintable() for line in comparison_text(found).splitlines())


def test_the_command_prints_either_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = str(leak(60_000).write(tmp_path / "before.leakcase"))
    after = str(Capture().write(tmp_path / "after.leakcase"))
    assert main(["compare", before, after]) == 0
    assert capsys.readouterr().out.startswith("Fixed: ")
    assert main(["compare", before, after, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "fixed"
    assert main(["compare", before, str(tmp_path / "none")]) == 2


def python_source(function: str, line: int) -> Source:
    return Source((function, "main"), python_file="app.py", line=line, size=100)


def test_a_leak_in_other_code_than_before_is_a_new_one(tmp_path: Path) -> None:
    def of(source: Source) -> Capture:
        return Traced(growing(), [source]).add()

    moved = both(of(python_source("keep", 5)), of(python_source("keep", 9)), tmp_path)
    assert moved.outcome == "same", "that its line moved makes it no other place"
    (place,) = moved.places
    assert place.place == "keep (app.py:9)" and place.before and place.after
    other = both(of(python_source("keep", 5)), of(python_source("remember", 7)), tmp_path)
    assert other.outcome == "new-leak"
    assert "allocated in remember (app.py:7)" in render(other.headline)
    assert len(other.places) == 2
