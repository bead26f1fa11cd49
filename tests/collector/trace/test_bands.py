"""Which sizes to watch: those that grow, where most allocations are of others."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leakcase_bundle.records import HeapCensus, HeapSizes
from leakcase_collector.heap.sizes import size_class
from leakcase_collector.trace.bands import (
    Band,
    SizeGrowth,
    greatest_request,
    growth,
    least_request,
)


def look(**chunks: int) -> dict[int, tuple[int, int]]:
    """`c64=7`: seven chunks of 64 bytes."""
    return {int(name[1:]): (count, int(name[1:]) * count) for name, count in chunks.items()}


def learned(looks: list[dict[int, tuple[int, int]]], made: dict[int, int]) -> SizeGrowth:
    sizes = SizeGrowth()
    for one in looks:
        sizes.take_look(one)
    sizes.take_made(made)
    return sizes


CHURN = {56: 20_000}


def test_the_sizes_that_grow_are_watched_where_most_allocations_are_of_others() -> None:
    sizes = learned([look(c64=20_000, c240=10), look(c64=20_090, c240=90)], {**CHURN, 224: 5})
    band = sizes.band()
    assert band == Band(201, 232)
    assert sizes.share_of(band) == pytest.approx(5 / 20_005)


@pytest.mark.parametrize(
    "looks",
    [
        [],
        [look(c240=10)],
        [look(c64=20_000), look(c64=20_000)],
        [look(c240=90), look(c240=10)],
        [look(c240=10_000), look(c240=10_250)],  # as by chance
    ],
    ids=["none", "one", "nothing-grows", "less", "noise"],
)
def test_nothing_that_surely_grows_is_no_band(looks: list[dict[int, tuple[int, int]]]) -> None:
    assert learned(looks, CHURN).band() is None


def test_no_sizes_are_left_out_that_most_allocations_are_of() -> None:
    grown = [look(c64=20_000), look(c64=30_000)]
    assert learned(grown, CHURN).band() is None
    assert learned(grown, {}).band() is None, "how many there are is not known yet"


def test_growth_that_ended_with_the_start_of_the_work_is_none() -> None:
    start = [look(c64=100), look(c64=20_000, c240=10), look(c64=20_050, c240=100)]
    assert set(growth(start)) == {240}
    assert set(growth([*start, look(c64=20_010, c240=190)])) == {240}


def test_two_sizes_far_apart_are_one_band_where_little_lies_in_between() -> None:
    even = [look(c48=0, c1040=0), look(c48=20_000, c1040=1000)]
    assert learned(even, {2000: 900, 40: 50, 1030: 50}).band() == Band(0, 1032)
    assert learned(even, {500: 900, 40: 50, 1030: 50}).band() is None
    most = [look(c48=0, c1040=0), look(c48=1000, c1040=1000)]
    assert learned(most, {500: 900, 40: 50, 1030: 50}).band() == Band(1001, 1032), "95 % of it"


def test_a_band_of_which_more_is_allocated_than_it_seemed_is_given_up() -> None:
    sizes = learned([look(c240=10), look(c240=900)], {**CHURN, 224: 5})
    band = sizes.band()
    assert band is not None
    sizes.take_seen(band, 900, 100)
    assert sizes.band() is None


@given(size=st.integers(0, 2_000_000), spare=st.sampled_from([0, 16]))
def test_a_band_holds_each_size_that_a_chunk_of_its_class_is_handed_out_for(
    size: int, spare: int
) -> None:
    chunk = max((size + 8 + 15) // 16 * 16, 32) + spare
    key = size_class(chunk)
    assert least_request(key) <= size <= greatest_request(key)


@given(size=st.integers(1 << 20, 1 << 30))
@example(size=(2 << 20) - 4119)
def test_of_mapped_blocks_too(size: int) -> None:
    chunk = ((size + 8 + 15) // 16 * 16 + 8 + 4095) // 4096 * 4096
    assert least_request(size_class(chunk)) <= size <= greatest_request(size_class(chunk))


def census(
    number: int, *, sampled_permille: Optional[int] = None, skipped_bytes: int = 0
) -> HeapCensus:
    figures = dict.fromkeys(HeapCensus.__dataclass_fields__, 0)
    told = {"census": number, "method": "native", "complete": True, "system_bytes": 1 << 20}
    return HeapCensus(
        **{**figures, **told, "sampled_permille": sampled_permille, "skipped_bytes": skipped_bytes}  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("taken", "is_known"),
    [
        ({}, True),
        ({"sampled_permille": 125}, False),
        ({"skipped_bytes": 50_000}, False),
    ],
    ids=["whole", "sampled", "much-skipped"],
)
def test_sizes_are_learned_from_whole_censuses(taken: dict[str, int], is_known: bool) -> None:
    sizes = SizeGrowth()
    for number, count in enumerate((10, 900)):
        sizes.learn(census(number, **taken))
        sizes.learn(HeapSizes(number, [240], [count], [240 * count]))
    sizes.take_made(CHURN)
    assert (sizes.band() is not None) == is_known
