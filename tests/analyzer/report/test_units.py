"""Rounding, units and plurals."""

from __future__ import annotations

import math

import pytest

from leakcase_analyzer.report import units
from leakcase_analyzer.sentences import (
    Code,
    Count,
    CountRate,
    Name,
    Share,
    Size,
    SizeRate,
    Span,
    say,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10_235, "10.0 KiB"),
        (1023 * 1024, "1.00 MiB"),
        (-4096, "-4.00 KiB"),
        (5.5 * (1 << 30), "5.50 GiB"),
        (1 << 63, "8.00 EiB"),
        (1e30, "867361737988 EiB"),
        (None, "not known"),
        (math.inf, "not known"),
        (math.nan, "not known"),
    ],
)
def test_sizes_have_three_digits_and_binary_units(value: float | None, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.2 s"),
        (60, "60 s"),
        (99, "99 s"),
        (120, "2 min"),
        (150, "2.5 min"),
        (3599, "60 min"),
        (3600, "1 h"),
        (5400, "1.5 h"),
        (86_400, "24 h"),
        (172_800, "2 days"),
        (1e12, "more than 10 years"),
        (math.inf, "not known"),
        (None, "not known"),
    ],
)
def test_spans_have_one_unit(seconds: float | None, text: str) -> None:
    assert units.span(seconds) == text


def test_nouns_agree_with_their_number() -> None:
    assert units.count(1, "thread") == "1 thread"
    assert units.count(0, "thread") == "0 threads"
    assert units.count(2, "other process") == "2 other processes"
    assert units.count(12_345, "") == "12,345"
    assert units.count(1e300, "thread") == "1e+300 threads"
    assert units.count(math.inf, "thread") == "not known"


def test_rates_are_per_hour() -> None:
    assert units.size_rate(1024) == "3.52 MiB/h"
    assert units.count_rate(1, "descriptor") == "3,600 descriptors/h"
    assert units.count_rate(0.001, "thread") == "3.6 threads/h"


def test_a_share_that_is_not_nothing_does_not_look_so() -> None:
    assert units.share(0.004) == "< 1 %"
    assert units.share(0) == "0 %"
    assert units.share(0.976) == "98 %"


@pytest.mark.parametrize("wall_ns", [10**30, -(10**30), 2**63])
def test_a_date_that_no_calendar_has_is_not_known(wall_ns: int) -> None:
    assert units.moment(wall_ns) is None or abs(wall_ns) == 2**63
    assert units.date_and_time(10**30) == "not known"
    assert units.date(10**30) is None


def test_a_sentence_renders_every_kind_of_quantity() -> None:
    sentence = say(
        "{a} {b} {c} {d} {e} {f} {g} {h}",
        a=Size(1024), b=SizeRate(1), c=Span(60), d=Count(2, "x"), e=CountRate(1, "y"), f=Share(0.5),
        g=Name("{a}"), h=Code("ls"),
    )  # fmt: skip
    style = units.Style(name=lambda text: f"<{text}>", code=lambda text: f"`{text}`")
    assert units.render(sentence, style) == (
        "1.00 KiB 3.52 KiB/h 60 s 2 xes 3,600 ys/h 50 % <{a}> `ls`"
    )


def test_a_name_is_shortened_and_moves_no_cursor() -> None:
    shown = units.shortened("a\x1b[2J\u202eb\n" + "c" * 200)
    assert len(shown) == 80
    assert shown.isprintable()
