"""The terminal's answer: the first line is it, it fits a screen, and colours keep to terminals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leakcase_analyzer.analysis import analyze
from leakcase_analyzer.report.chart import sparkline
from leakcase_analyzer.report.facts import report_name
from leakcase_analyzer.report.terminal import MOST_LINES, WIDTH, terminal_text
from tests.analyzer.cases import MIB, Capture, as_file, heap_leak
from tests.analyzer.hostile import HOSTILE_NAMES, with_hostile_names


def text_of(case: Capture, folder: Path, *, colour: bool = False, unicode: bool = True) -> str:
    return terminal_text(analyze(as_file(case, folder)), colour=colour, unicode=unicode)


def hostile() -> Capture:
    return with_hostile_names(HOSTILE_NAMES)


def busy() -> Capture:
    """Everything that can be said at once."""
    case = with_hostile_names(["<name:1>"])
    case.swap_bytes = case.leak(90 * MIB, 30_011)
    case.shared_bytes = case.leak(0, 20_011)
    for probe in ("cgroup", "sockets", "modules", "host", "gpu"):
        case.gap(probe, "not-permitted")
    case.finish = False
    return case


@pytest.mark.parametrize("shape", [heap_leak, Capture, hostile, busy])
def test_it_fits_a_screen(shape: Callable[[], Capture], tmp_path: Path) -> None:
    lines = text_of(shape(), tmp_path).splitlines()
    assert len(lines) <= MOST_LINES
    assert max(len(line) for line in lines) <= WIDTH


def test_the_first_line_is_the_answer(tmp_path: Path) -> None:
    assert text_of(heap_leak(), tmp_path).startswith("Leak: heap memory grows steadily by 13")
    assert text_of(Capture(), tmp_path).startswith("No leak: anonymous memory is steady")


def test_what_is_hidden_for_want_of_room_is_counted(tmp_path: Path) -> None:
    lines = text_of(busy(), tmp_path).splitlines()
    titles = [line for line in lines if "more in leakcase report" in line]
    assert titles and all(line[0].isupper() for line in titles), "the title counts them"
    assert len(lines) >= MOST_LINES - 3, "what is hidden would not have fitted"


def test_the_screen_does_not_say_twice_what_grows(tmp_path: Path) -> None:
    text = text_of(heap_leak(), tmp_path)
    assert "anonymous memory went from" not in text and "trend" in text
    assert "  - anonymous memory: " not in text


def test_colours_are_only_there_when_wanted(tmp_path: Path) -> None:
    assert "\x1b" not in text_of(hostile(), tmp_path)
    painted = text_of(heap_leak(), tmp_path, colour=True)
    assert painted.startswith("\x1b[1;31mLeak")
    assert painted.replace("\x1b[1;31m", "").replace("\x1b[1m", "").replace("\x1b[0m", "") == (
        text_of(heap_leak(), tmp_path)
    )


def test_without_unicode_there_is_no_chart(tmp_path: Path) -> None:
    assert text_of(heap_leak(), tmp_path, unicode=False).isascii()


def test_a_sparkline_rises_with_its_series_and_leaves_gaps_open() -> None:
    assert sparkline(np.arange(8.0) * 100, 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.array([100.0, np.nan, 200.0]), 8) == "▁ █"
    assert sparkline(np.full(4, np.nan), 8) == ""
    assert sparkline(np.empty(0), 8) == ""


def test_noise_on_a_high_level_is_drawn_flat() -> None:
    noise = 1e9 + np.random.default_rng(1).integers(0, 4096, 60).astype(np.float64)
    assert set(sparkline(noise, 40)) == {"▁"}


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "", "..", "<name:1>", "redis-server"])
def test_the_reports_file_name_is_safe(name: str, tmp_path: Path) -> None:
    case = Capture(seconds=30)
    case.rewrite = lambda raw: {**raw, "name": name} if raw["record"] == "target" else raw
    made = report_name(analyze(as_file(case, tmp_path)).evidence, "md")
    assert made.startswith("memleak-report-")
    assert made.endswith("-2026-03-01.md")
    assert "/" not in made and made.isascii() and made.isprintable() and " " not in made
    assert len(made) < 80


def test_the_reports_file_name_says_process_and_date(tmp_path: Path) -> None:
    evidence = analyze(as_file(Capture(seconds=30, name="<name:1>"), tmp_path)).evidence
    assert report_name(evidence, "json") == "memleak-report-name-1-2026-03-01.json"


def test_a_program_run_by_another_name_is_told_with_its_files(tmp_path: Path) -> None:
    def process_of(name: str, executable: str) -> str:
        case = Capture(seconds=30)
        case.rewrite = lambda raw: (
            {**raw, "name": name, "executable": executable} if raw["record"] == "target" else raw
        )
        lines = text_of(case, tmp_path).splitlines()
        return next(line for line in lines if line.startswith("  process"))

    assert "run from redis-check-rdb" in process_of("redis-server", "/usr/bin/redis-check-rdb")
    for same in ("/usr/bin/python3.11", "/opt/<dir:1>/<file:2>"):
        assert "run from" not in process_of("python", same)
