"""A series in one line of block characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leakcase_analyzer.columns import Floats

_LEVELS = "▁▂▃▄▅▆▇█"
_GAP = " "


def share_line(shares: Sequence[float]) -> str:
    """One character for each share of a whole, full for all of it."""
    top = len(_LEVELS) - 1
    return "".join(_LEVELS[round(min(1.0, max(0.0, one)) * top)] for one in shares)


def bar(share: float, width: int, *, unicode: bool) -> str:
    """A share of a whole as a bar of `width` characters."""
    full = round(min(1.0, max(0.0, share)) * width)
    drawn, rest = ("█", "░") if unicode else ("#", ".")
    return drawn * full + rest * (width - full)


def sparkline(values: Floats, width: int) -> str:
    """At most `width` characters: means of equal stretches, from the least to the largest.

    A level series is drawn low, whatever its noise: rises of less than a hundredth of the level
    are not worth a mountain.
    """
    if not values.size:
        return ""
    stretches = np.array_split(values, min(width, values.size))
    means = [float(np.nanmean(s)) if np.isfinite(s).any() else None for s in stretches]
    known = [mean for mean in means if mean is not None]
    if not known:
        return ""
    low = min(known)
    height = max(max(known) - low, 0.01 * max(known), 1.0)
    top = len(_LEVELS) - 1
    return "".join(
        _GAP if mean is None else _LEVELS[round((mean - low) / height * top)] for mean in means
    )
