"""How often an answer of the rule was right, on programs whose truth was known.

Measured on series of real and synthetic programs, leaks and innocents in about equal number, so
these are shares of right answers and no more than that: where leaks are rare, less of what is
called a leak is one.

A leak at 120 s: 0.85 of those called were leaks, 0.905 where the allocator's books agreed. Caches
still in their linear fill make most of the rest, and a longer window does not part them: without
them precision is 0.935 at 120 s and 1.0 at 600 s, so 0.91 with them, and 0.97 with the books. At
60 s it is up to two points lower than at 120 s (`bench/accuracy.py`). Retention: 0.74 at 120 s,
and more time tells little. Not growing: of leaks from 4 KB/s up one in twenty was called bounded
or stable at 60 s, one in eighty at 120 s, none at 600 s; slower ones are, rightly, below the
least detectable rate that stands beside the answer.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from leakcase_analyzer.series.persistence import Status

# Right answers by length of the window; between these, linear in the logarithm of time.
Curve: TypeAlias = tuple[tuple[float, float], ...]

LEAK: Curve = ((30.0, 0.80), (60.0, 0.83), (120.0, 0.85), (600.0, 0.91))
LEAK_WITH_BOOKS: Curve = ((30.0, 0.85), (60.0, 0.885), (120.0, 0.905), (600.0, 0.97))
RETENTION: Curve = ((60.0, 0.70), (120.0, 0.74))
NOT_GROWING: Curve = ((30.0, 0.90), (60.0, 0.95), (120.0, 0.98), (600.0, 0.99))


def confidence(status: Status, window_seconds: float, books_agree: bool) -> float:
    """Share of right answers among such answers, 0 to 1; 0 for "undecided", which claims nothing.

    `books_agree`: the allocator's bytes in use and free account for the growth.
    """
    if status == "undecided":
        return 0.0
    if status == "leak":
        return _at(LEAK_WITH_BOOKS if books_agree else LEAK, window_seconds)
    return _at(RETENTION if status == "retention" else NOT_GROWING, window_seconds)


def _at(curve: Curve, seconds: float) -> float:
    """The curve's value at a time; beyond its ends, that of the end."""
    for (start, low), (end, high) in zip(curve, curve[1:], strict=False):
        if seconds < end:
            part = math.log(max(seconds, start) / start) / math.log(end / start)
            return low + part * (high - low)
    return curve[-1][1]
