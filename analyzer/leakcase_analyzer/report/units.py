"""Numbers, units, plurals and names as people read them; the only place that rounds.

Sizes are in binary units, rates per hour, both with three significant digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from leakcase_analyzer.sentences import (
    Code,
    Count,
    Name,
    Quantity,
    Sentence,
    Share,
    Size,
    SizeRate,
    Span,
)

SECONDS_PER_HOUR = 3600
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_LONGEST_NAME = 80
#: Nobody plans further ahead, and no window supports it.
_LONGEST_SPAN_SECONDS = 10 * 365.25 * 86_400
UNKNOWN = "not known"


@dataclass(frozen=True)
class Style:
    """How a kind of report writes what is not plain text."""

    name: Callable[[str], str]
    code: Callable[[str], str]


def _as_it_is(text: str) -> str:
    return text


def shortened(text: str) -> str:
    """A name of bearable length, without what could move a cursor."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= _LONGEST_NAME else clean[: _LONGEST_NAME - 1] + "…"


PLAIN = Style(name=shortened, code=_as_it_is)
#: For machines: nothing is cut.
WHOLE = Style(name=_as_it_is, code=_as_it_is)


def render(sentence: Sentence, style: Style = PLAIN) -> str:
    """A sentence as text."""
    return sentence.template.format(
        **{key: quantity(value, style) for key, value in sentence.quantities}
    )


def as_sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    if not text:
        return text
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def quantity(value: Quantity, style: Style = PLAIN) -> str:
    """One quantity as text."""
    if isinstance(value, Name):
        return style.name(value.text)
    if isinstance(value, Code):
        return style.code(value.text)
    if isinstance(value, Size):
        return size(value.size_bytes)
    if isinstance(value, SizeRate):
        return size_rate(value.bytes_per_second)
    if isinstance(value, Span):
        return span(value.seconds)
    if isinstance(value, Share):
        return share(value.share)
    if isinstance(value, Count):
        return count(value.number, value.noun)
    return count_rate(value.per_second, value.noun)


def size(size_bytes: float | None) -> str:
    """1536 is 1.50 KiB."""
    if size_bytes is None or not math.isfinite(size_bytes):
        return UNKNOWN
    value, unit = size_bytes, 0
    while abs(value) >= 999.5 and unit < len(_SIZE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    if unit == 0:
        return f"{value:.0f} B"
    return f"{_three_digits(value)} {_SIZE_UNITS[unit]}"


def size_rate(bytes_per_second: float | None) -> str:
    """Per hour."""
    if bytes_per_second is None or not math.isfinite(bytes_per_second):
        return UNKNOWN
    return size(bytes_per_second * SECONDS_PER_HOUR) + "/h"


def signed_size(size_bytes: float | None) -> str:
    """A difference, with its sign."""
    text = size(size_bytes)
    return text if size_bytes is None or size_bytes < 0 else "+" + text


def count(number: float, noun: str) -> str:
    """1 thread, 2 threads, 1,000 threads; the number alone where the noun is empty."""
    if not math.isfinite(number):
        return UNKNOWN
    text = f"{number:,.0f}" if abs(number) < 1e15 else f"{number:.3g}"
    return text if not noun else f"{text} {noun if text == '1' else plural(noun)}"


def plural(noun: str) -> str:
    """The plural of a regular noun."""
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def count_rate(per_second: float | None, noun: str) -> str:
    """Per hour."""
    if per_second is None or not math.isfinite(per_second):
        return UNKNOWN
    per_hour = per_second * SECONDS_PER_HOUR
    number = f"{per_hour:,.0f}" if abs(per_hour) >= 100 else f"{per_hour:.3g}"
    return f"{number} {plural(noun)}/h"


def share(part: float | None) -> str:
    """0.5 is 50 %."""
    if part is None or not math.isfinite(part):
        return UNKNOWN
    percent = part * 100
    return "< 1 %" if 0 < percent < 1 else f"{percent:.0f} %"


def span(seconds: float | None) -> str:
    """90 s, 5 min, 1.5 h, 12 days."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds > _LONGEST_SPAN_SECONDS:
        return "more than 10 years"
    if 300 <= round(seconds) < 3600:
        return f"{seconds / 60:.0f} min"
    for limit, unit, name in ((100, 1, "s"), (3600, 60, "min"), (172_800, 3600, "h")):
        if round(seconds) < limit:
            return f"{_short(seconds / unit)} {name}"
    return f"{_short(seconds / 86_400)} days"


def confidence(value: float) -> str:
    """0.9 is high (0.90)."""
    if value <= 0:
        return "none"
    word = "high" if value >= 0.8 else "medium" if value >= 0.6 else "low"
    return f"{word} ({value:.2f})"


def size_interval(low_high_per_hour: tuple[float, float] | None) -> str:
    """low to high, per hour."""
    if low_high_per_hour is None:
        return UNKNOWN
    low, high = low_high_per_hour
    return f"{size(low)} to {size(high)}"


def moment(wall_ns: int) -> datetime | None:
    """Nanoseconds since 1970 as UTC; None for what no calendar has."""
    try:
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=wall_ns // 1000)
    except (OverflowError, ValueError):
        return None


def date(wall_ns: int) -> str | None:
    """2026-11-22."""
    found = moment(wall_ns)
    return None if found is None else f"{found:%Y-%m-%d}"


def date_and_time(wall_ns: int) -> str:
    """2026-11-22 10:40:00 UTC."""
    found = moment(wall_ns)
    return UNKNOWN if found is None else f"{found:%Y-%m-%d %H:%M:%S} UTC"


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    return (
        f"{value:.0f}"
        if magnitude >= 99.95
        else f"{value:.1f}"
        if magnitude >= 9.995
        else (f"{value:.2f}")
    )


def _short(value: float) -> str:
    """At most one decimal, and none that is 0 or says nothing."""
    text = f"{value:.1f}" if abs(value) < 9.95 else f"{value:.0f}"
    return text.removesuffix(".0")
