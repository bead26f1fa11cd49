"""The first look's one line, and what a capture may cost."""

from __future__ import annotations

import pytest

from leakcase_collector.decision import Footprint, decide, sentence
from leakcase_collector.pacing import CpuBudget, flush_after_ns, rest_for_learners_ns, rest_ns
from leakcase_collector.progress import duration, size, sparkline

SECOND = 1_000_000_000
MIB = 1 << 20


def _looks(count: int, start: int, per_second: int, swap: int = 0) -> list[Footprint]:
    return [Footprint(i * SECOND, start + i * per_second, swap) for i in range(count)]


@pytest.mark.parametrize(
    ("footprints", "headroom", "word"),
    [
        (_looks(5, 100 * MIB, MIB), None, "too-short"),
        (_looks(60, 100 * MIB, 0), None, "not-growing"),
        (_looks(60, 10 << 30, 100_000), None, "not-growing"),
        (_looks(60, 1 << 30, 60_000), None, "growing-slowly"),
        (_looks(60, 1 << 30, 60_000), 10 * MIB, "growing-fast"),
        (_looks(60, 100 * MIB, MIB), None, "growing-fast"),
        (_looks(60, 100 * MIB, 0, swap=200 * MIB), None, "mostly-in-swap"),
        ([], None, "too-short"),
    ],
)
def test_the_first_look_names_the_decision_point(
    footprints: list[Footprint], headroom: int | None, word: str
) -> None:
    decision = decide(footprints, headroom, 7)
    assert decision.decision == word
    assert len(sentence(decision).splitlines()) == 1


def test_the_first_look_states_the_rate_it_saw() -> None:
    decision = decide(_looks(120, 100 * MIB, 7919), None, 0)
    assert decision.growth_bytes_per_hour == pytest.approx(7919 * 3600, rel=0.01)


def test_growth_that_slowed_down_is_told_as_it_is_now() -> None:
    filled = [Footprint(i * SECOND, 100 * MIB + min(i, 30) * MIB, 0) for i in range(120)]
    decision = decide(filled, None, 0)
    assert decision.decision == "growing-slowly" and decision.growth_bytes_per_hour == 0
    assert "hardly does any more" in sentence(decision)
    assert sentence(decide(_looks(120, 100 * MIB, MIB), None, 0)).startswith(
        "it grows by 3.5 GiB/h"
    )


def test_a_sawtooth_is_judged_by_its_floor() -> None:
    teeth = [Footprint(i * SECOND, 100 * MIB + (i % 5) * 10 * MIB, 0) for i in range(60)]
    assert decide(teeth, None, 0).decision == "not-growing"


@pytest.mark.parametrize(
    ("cpu_ns", "seconds", "expected"),
    [
        (20_000_000, 60, 7.5),
        (20_000_000, 20, 5),
        (20_000_000, 600, 25),  # its own turn comes first
        (100_000_000, 600, 30),
        (100_000_000, 40, 125),  # too dear
        (100_000_000, None, 15),
    ],
)
def test_a_probe_from_which_another_learns_looks_again_soon_unless_that_is_dear(
    cpu_ns: int, seconds: int | None, expected: float
) -> None:
    duration_ns = None if seconds is None else seconds * SECOND
    pause_ns = rest_ns(cpu_ns, 0, 0, 0.01)
    assert rest_for_learners_ns(pause_ns, cpu_ns, duration_ns) == expected * SECOND


def test_a_dear_probe_rests_in_proportion_to_what_it_cost() -> None:
    assert rest_ns(20_000_000, 0, 0, 0.01) == 25 * SECOND
    assert rest_ns(0, 100_000_000, 0, 0.01) == 100 * SECOND
    assert rest_ns(0, 100_000_000, 0, 0.10) == pytest.approx(10 * SECOND)
    assert rest_ns(0, 0, 0, 0.01) == 5 * SECOND
    assert rest_ns(0, 0, 24 * 3600 * SECOND, 0.01) == 4320 * SECOND


def test_frames_are_written_soon_at_first_and_rarely_in_a_long_capture() -> None:
    assert flush_after_ns(0) == 2 * SECOND
    assert flush_after_ns(100 * SECOND) == 10 * SECOND
    assert flush_after_ns(86400 * SECOND) == 120 * SECOND


def test_the_cpu_budget_judges_whole_windows() -> None:
    budget = CpuBudget(0, 0)
    assert not budget.is_exceeded(5 * SECOND, SECOND)
    assert budget.is_exceeded(10 * SECOND, SECOND)
    assert not budget.is_exceeded(20 * SECOND, SECOND + 40_000_000)


def test_a_sparkline_shows_the_shape_and_keeps_a_flat_line_flat() -> None:
    assert sparkline([0, 50, 100]) == "▁▄█"
    assert set(sparkline([1_000_000 + i % 3 for i in range(50)])) == {"▁"}
    assert len(sparkline(list(range(1000)))) == 24
    assert sparkline([]) == ""


def test_figures_for_people() -> None:
    assert [size(v) for v in (7, 2048, 3 << 20, -(5 << 30))] == [
        "7 B", "2.0 KiB", "3.0 MiB", "-5.0 GiB",
    ]  # fmt: skip
    assert [duration(s * SECOND) for s in (7, 67, 3667)] == ["0:07", "1:07", "1:01:07"]
