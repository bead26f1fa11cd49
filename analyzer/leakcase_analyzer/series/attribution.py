"""Which regions grew, and how much of the judged growth each of them explains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RegionShare:
    """One region that grew. `share` is of the judged growth, 0 to 1."""

    region: str
    growth: float
    share: float


@dataclass(frozen=True)
class Attribution:
    """Regions by growth, the largest first; `unexplained_share` is what none of them explains."""

    regions: tuple[RegionShare, ...]
    unexplained_share: float


def attribute(
    snapshots: Sequence[tuple[float, Mapping[str, float]]], judged_growth: float
) -> Attribution:
    """Share out a judged growth among regions.

    `snapshots` are (seconds, amount by region) in order of time; a region missing from one had
    nothing then (unmapped, or not yet mapped). With three or more snapshots a region's growth is
    the median slope between all pairs of them (Theil and Sen) over the time they span, or what its
    floor rose by from the first two to the last two where that is more, as in a cache that filled
    and stopped; so one spike tells nothing. With two it is their difference. Regions that shrank
    explain nothing and take nothing from those that grew. The shares add up to at most 1: when
    the regions grew by more than was judged (their snapshots saw garbage as well), each gives way
    in proportion.
    """
    grown = {
        region: growth
        for region in sorted({name for _, amounts in snapshots for name in amounts})
        if (growth := _growth(region, snapshots)) > 0
    }
    total = math.fsum(grown.values())
    whole = max(judged_growth, total)
    if judged_growth <= 0 or total <= 0:
        return Attribution((), 1.0)
    shares = [RegionShare(name, growth, growth / whole) for name, growth in grown.items()]
    shares.sort(key=lambda one: (-one.growth, one.region))
    return Attribution(tuple(shares), max(0.0, 1.0 - total / whole))


def _growth(region: str, snapshots: Sequence[tuple[float, Mapping[str, float]]]) -> float:
    if len(snapshots) < 2:
        return 0.0
    t = np.array([at for at, _ in snapshots], dtype=np.float64)
    y = np.array([amounts.get(region, 0.0) for _, amounts in snapshots], dtype=np.float64)
    if t.size == 2:
        return float(y[1] - y[0])
    early, late = np.triu_indices(t.size, 1)
    apart = t[late] - t[early]
    slopes = (y[late] - y[early])[apart > 0] / apart[apart > 0]
    if not slopes.size:
        return 0.0
    floor_rise = float(y[-2:].min() - y[:2].min())
    return max(float(np.median(slopes) * (t[-1] - t[0])), floor_rise)
