"""How long blocks live, from windows that were followed for different times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakcase_analyzer.series.survival import SAME_AGE, Cohort, curve, wilson_high

COHORTS = st.lists(
    st.builds(
        Cohort,
        st.floats(0, 1e6),
        st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e6)), max_size=6).map(
            lambda looks: tuple(sorted(looks))
        ),
    ),
    max_size=12,
)


def test_windows_that_were_followed_for_less_long_count_as_far_as_they_were() -> None:
    found = curve(
        [Cohort(100, ((10, 80), (30, 40))), Cohort(100, ((10, 80),)), Cohort(100, ((11, 80),))]
    )
    assert found.ages_seconds == (10, 30)
    assert found.alive_shares == pytest.approx((0.8, 0.4))
    assert found.followed == pytest.approx((300, 100))


def test_a_window_that_was_looked_at_later_is_not_taken_for_alive_before() -> None:
    found = curve([Cohort(100, ((10, 0), (60, 0))), Cohort(100, ((14, 0),))])
    assert found.alive_shares == (0, 0, 0)


def test_a_later_step_of_other_windows_does_not_rise() -> None:
    found = curve([Cohort(100, ((10, 50),)), Cohort(100, ((30, 60),))])
    assert found.alive_shares == pytest.approx((0.55, 0.55))


def test_a_look_that_was_missed_is_bridged() -> None:
    found = curve([Cohort(100, ((10, 90), (60, 45))), Cohort(100, ((10, 90), (30, 90), (60, 45)))])
    assert found.alive_shares == pytest.approx((0.9, 0.9, 0.45))


@pytest.mark.parametrize(
    ("looks", "pattern"),
    [
        (((10, 100), (30, 100), (60, 100)), "stays"),
        (((10, 40), (30, 30), (60, 30)), "stays"),
        (((10, 100), (30, 100), (60, 5)), "dies"),
        (((10, 100), (30, 80), (60, 50)), "dies"),
        (((10, 100), (30, 96), (60, 90)), "unclear"),
        (((60, 100),), "stays"),
        (((60, 50),), "unclear"),
        (((60, 0),), "dies"),
        ((), "unclear"),
    ],
)
def test_the_pattern_tells_what_stays_from_what_dies(
    looks: tuple[tuple[float, float], ...], pattern: str
) -> None:
    assert curve([Cohort(100, looks)]).pattern == pattern


def test_few_blocks_that_died_prove_nothing() -> None:
    assert curve([Cohort(3, ((10, 3), (30, 3), (60, 2)))]).pattern == "unclear"
    assert wilson_high(2 / 3, 3) > 0.9 > wilson_high(0.66, 300)


@given(COHORTS)
def test_a_curve_only_falls_and_stays_a_share(cohorts: list[Cohort]) -> None:
    found = curve(cohorts)
    shares = (1.0, *found.alive_shares)
    assert all(0 <= after <= before for before, after in zip(shares, shares[1:], strict=False))
    assert len(found.ages_seconds) == len(found.alive_shares) == len(found.followed)
    ages = found.ages_seconds
    assert all(b > a * SAME_AGE for a, b in zip(ages, ages[1:], strict=False))
    assert found.pattern in ("stays", "dies", "unclear")
    assert found.at(1e9) == found.last_share
