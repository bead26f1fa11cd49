"""A series in one line of block characters."""

from __future__ import annotations

import numpy as np

from leakcase_analyzer.columns import Floats

_LEVELS = "▁▂▃▄▅▆▇█"
_GAP = " "


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
