"""Which regions grew, and by how much of what was judged."""

from __future__ import annotations

import pytest

from leakcase_analyzer.series.attribution import attribute
from tests.analyzer.series.shapes import MB


def test_two_regions_share_what_they_grew() -> None:
    answer = attribute(
        [(0.0, {"heap": 10 * MB, "stacks": 1 * MB, "file": 5 * MB}),
         (60.0, {"heap": 19 * MB, "stacks": 2 * MB, "file": 5 * MB})],
        judged_growth=10 * MB,
    )  # fmt: skip
    assert [(one.region, one.share) for one in answer.regions] == [
        ("heap", pytest.approx(0.9)),
        ("stacks", pytest.approx(0.1)),
    ]
    assert answer.regions[0].growth == pytest.approx(9 * MB)
    assert answer.unexplained_share == pytest.approx(0.0)


def test_growth_that_no_region_shows_stays_unexplained() -> None:
    answer = attribute([(0.0, {"heap": 0.0}), (60.0, {"heap": 4 * MB})], judged_growth=16 * MB)
    assert answer.regions[0].share == pytest.approx(0.25)
    assert answer.unexplained_share == pytest.approx(0.75)


def test_a_region_that_shrank_takes_nothing_from_those_that_grew() -> None:
    answer = attribute(
        [(0.0, {"heap": 0.0, "cache": 8 * MB}), (60.0, {"heap": 6 * MB, "cache": 2 * MB})],
        judged_growth=6 * MB,
    )
    assert [(one.region, one.share) for one in answer.regions] == [("heap", pytest.approx(1.0))]


def test_regions_that_grew_by_more_than_was_judged_give_way_in_proportion() -> None:
    answer = attribute(
        [(0.0, {"heap": 0.0, "buffers": 0.0}), (60.0, {"heap": 6 * MB, "buffers": 6 * MB})],
        judged_growth=6 * MB,
    )
    assert [one.share for one in answer.regions] == pytest.approx([0.5, 0.5])


def test_regions_may_appear_and_vanish() -> None:
    answer = attribute(
        [(0.0, {"heap": 9 * MB, "old arena": 4 * MB}), (60.0, {"heap": 9 * MB, "arena": 4 * MB})],
        judged_growth=4 * MB,
    )
    assert [(one.region, one.share) for one in answer.regions] == [("arena", pytest.approx(1.0))]


def test_one_spike_between_makes_no_growth() -> None:
    level, spike = {"heap": 5 * MB, "burst": 1 * MB}, {"heap": 5 * MB, "burst": 90 * MB}
    snapshots = [(10.0 * k, spike if k == 4 else level) for k in range(5)]
    assert attribute(snapshots, judged_growth=10 * MB).regions == ()


def test_a_cache_that_filled_early_is_all_explained() -> None:
    # A real redis: the median slope over its six snapshots explains 44 % only.
    heap_kib = [16_600, 56_280, 67_424, 68_068, 68_220, 68_260]
    seconds = [0.0, 18.0, 30.0, 70.0, 101.0, 120.3]
    snapshots = [(at, {"heap": kib * 1024.0}) for at, kib in zip(seconds, heap_kib, strict=True)]
    answer = attribute(snapshots, judged_growth=38.4 * MB)
    assert answer.regions[0].growth == pytest.approx((68_220 - 16_600) * 1024)
    assert answer.unexplained_share == 0.0


def test_a_region_that_filled_and_stopped_keeps_all_that_it_grew() -> None:
    levels = [1, 9, 9, 9, 9, 9]
    answer = attribute([(10.0 * k, {"heap": level * MB}) for k, level in enumerate(levels)], 8 * MB)
    assert answer.regions[0].growth == pytest.approx(8 * MB)
    assert answer.unexplained_share == pytest.approx(0.0)


def test_many_snapshots_give_the_growth_of_their_line() -> None:
    snapshots = [(10.0 * k, {"heap": 3 * MB * k}) for k in range(7)]
    answer = attribute(snapshots, judged_growth=20 * MB)
    assert answer.regions[0].growth == pytest.approx(18 * MB)
    assert answer.unexplained_share == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("snapshots", "growth"),
    [
        ([], MB),
        ([(0.0, {"heap": MB})], MB),
        ([(0.0, {"heap": MB}), (60.0, {"heap": 2 * MB})], 0.0),
        ([(0.0, {"heap": MB}), (60.0, {"heap": 2 * MB})], -MB),
        ([(0.0, {"heap": MB}), (0.0, {"heap": 2 * MB}), (0.0, {"heap": 3 * MB})], MB),
    ],
)
def test_nothing_to_share_out_explains_nothing(
    snapshots: list[tuple[float, dict[str, float]]], growth: float
) -> None:
    answer = attribute(snapshots, judged_growth=growth)
    assert answer.regions == ()
    assert answer.unexplained_share == 1.0


def test_equal_growth_is_ordered_by_name() -> None:
    answer = attribute([(0.0, {}), (1.0, {"b": 5.0, "a": 5.0, "c": 5.0})], judged_growth=15.0)
    assert [one.region for one in answer.regions] == ["a", "b", "c"]
