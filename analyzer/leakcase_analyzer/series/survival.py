"""How many blocks are still alive at which age, and whether they will stay.

Windows are followed for different times, for as long as the capture lasts. What was not followed to
an age says nothing of it, so each share is of those windows alone that were looked at then.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

#: stays: those that were alive at a third of the last age nearly all were at the last. dies: they
#: go on dying, or nearly none is left. unclear: too few or too seldom looked at.
Pattern: TypeAlias = Literal["stays", "dies", "unclear"]

#: Looks at ages within this factor are one step of the curve.
SAME_AGE = 1.3
TAIL_SHARE = 1 / 3
STAYING, HARDLY_ANY = 0.95, 0.1
#: The most that a population which goes on dying keeps from the tail's start to its end.
DYING = 0.9
#: That hardly any is left is sure where it is not more than this by chance.
SURELY_FEW = 0.6
#: Of a normal distribution, 95 % from both sides (Wilson, 1927).
Z = 1.96


@dataclass(frozen=True)
class Cohort:
    """Blocks of one window: how many, and how many were alive at each age, rising in age."""

    size: float
    looks: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curve:
    """The share alive at each age, and of how many blocks that were looked at then."""

    ages_seconds: tuple[float, ...]
    alive_shares: tuple[float, ...]
    followed: tuple[float, ...]

    def at(self, seconds: float) -> float:
        """The share alive at an age: that of the last step not beyond it."""
        share = 1.0
        for age, alive in zip(self.ages_seconds, self.alive_shares, strict=True):
            if age > seconds * SAME_AGE:
                break
            share = alive
        return share

    @property
    def last_age_seconds(self) -> float:
        return self.ages_seconds[-1] if self.ages_seconds else 0.0

    @property
    def last_share(self) -> float:
        return self.alive_shares[-1] if self.alive_shares else 1.0

    @property
    def pattern(self) -> Pattern:
        """Whether what is left stays."""
        if not self.ages_seconds or not self.followed[-1]:
            return "unclear"
        share, of = self.last_share, self.followed[-1]
        if share <= HARDLY_ANY:
            return "dies" if wilson_high(share, of) < SURELY_FEW else "unclear"
        start = self.last_age_seconds * TAIL_SHARE
        first = next(i for i, age in enumerate(self.ages_seconds) if age >= start / SAME_AGE)
        # With one look, or none in the tail but the last, what died may have died long before.
        single = first == len(self.ages_seconds) - 1
        before = 1.0 if single else self.alive_shares[first]
        kept = share / before if before else 0.0
        if kept >= STAYING:
            return "stays"
        return "dies" if not single and wilson_high(kept, of * before) < DYING else "unclear"


def wilson_high(share: float, of: float) -> float:
    """The upper end of the 95 % interval of a share of `of` things."""
    if of < 1:
        return 1.0
    middle = share + Z * Z / (2 * of)
    spread = Z * math.sqrt(share * (1 - share) / of + Z * Z / (4 * of * of))
    return min(1.0, (middle + spread) / (1 + Z * Z / of))


def steps(ages: Sequence[float]) -> tuple[float, ...]:
    """The ages at which a curve has its steps: each stands for those up to SAME_AGE times it."""
    found: list[float] = []
    for age in sorted(ages):
        if not found or age > found[-1] * SAME_AGE:
            found.append(age)
    return tuple(found)


def curve(cohorts: Sequence[Cohort]) -> Curve:
    """The curve of all cohorts together: at each age, of those that were looked at then."""
    ages = steps([age for cohort in cohorts for age, _ in cohort.looks if age > 0])
    alive, followed = [0.0] * len(ages), [0.0] * len(ages)
    for cohort in cohorts:
        last_of = {bisect_right(ages, age) - 1: left for age, left in cohort.looks}
        for place, left in last_of.items():
            if place >= 0:
                alive[place] += min(left, cohort.size)
                followed[place] += cohort.size
    shares = [left / of if of > 0 else 0.0 for left, of in zip(alive, followed, strict=True)]
    return Curve(ages, _falling(shares, followed), tuple(followed))


def _falling(shares: Sequence[float], weights: Sequence[float]) -> tuple[float, ...]:
    """The nearest series that never rises (pool adjacent violators; Ayer and others, 1955).

    Steps are of different windows, so that a later one may by chance have more alive.
    """
    blocks: list[tuple[float, float, int]] = []
    for share, weight in zip(shares, weights, strict=True):
        one = (share, weight, 1)
        while blocks and blocks[-1][0] < one[0]:
            before = blocks.pop()
            total = before[1] + one[1]
            mean = (before[0] * before[1] + one[0] * one[1]) / total if total > 0 else one[0]
            one = (mean, total, before[2] + one[2])
        blocks.append(one)
    return tuple(min(1.0, max(0.0, share)) for share, _, count in blocks for _ in range(count))
