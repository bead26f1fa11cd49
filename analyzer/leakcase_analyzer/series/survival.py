"""How many blocks are still alive at which age, and whether they will stay.

Windows are followed for different times, so the shares come from what was followed on at each step
(Kaplan and Meier, "Nonparametric Estimation from Incomplete Observations", 1958).
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
#: Of a normal distribution, 95 % from both sides (Wilson, 1927).
Z = 1.96


@dataclass(frozen=True)
class Cohort:
    """Blocks of one window: how many, and how many were alive at each age, rising in age."""

    size: float
    looks: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curve:
    """The share alive at each age; `followed`: of how many, alive at the step before."""

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
        if not self.ages_seconds or not self.followed[0]:
            return "unclear"
        if self.last_share <= HARDLY_ANY:
            return "dies"
        start = self.last_age_seconds * TAIL_SHARE
        first = next((i for i, age in enumerate(self.ages_seconds) if age >= start / SAME_AGE), 0)
        if len(self.ages_seconds) == 1 or first == len(self.ages_seconds) - 1:
            # One look, or none in the tail but the last: what died may have died long before.
            first, kept, of = 0, self.last_share, self.followed[0]
        else:
            before = self.alive_shares[first]
            kept = self.last_share / before if before else 0.0
            of = self.followed[first + 1]
        if kept >= STAYING:
            return "stays"
        single = first == 0 and len(self.ages_seconds) == 1
        return "dies" if not single and wilson_high(kept, of) < DYING else "unclear"


def wilson_high(share: float, of: float) -> float:
    """The upper end of the 95 % interval of a share of `of` things."""
    if of <= 0:
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
    """The curve of all cohorts together."""
    ages = steps([age for cohort in cohorts for age, _ in cohort.looks if age > 0])
    seen: list[dict[int, float]] = [{} for _ in ages]
    last: list[list[int]] = [[] for _ in ages]
    for number, cohort in enumerate(cohorts):
        places = [bisect_right(ages, age) - 1 for age, _ in cohort.looks]
        for place, (_, left) in zip(places, cohort.looks, strict=True):
            if place >= 0:
                seen[place][number] = left
        if places and max(places) >= 0:
            last[max(places)].append(number)
    alive = {n: cohorts[n].size for at in last for n in at}
    total, share = math.fsum(alive.values()), 1.0
    shares, followed = [], []
    for place in range(len(ages)):
        before = total
        for number, left in seen[place].items():
            left = min(left, alive[number])
            total += left - alive[number]
            alive[number] = left
        share *= max(0.0, total) / before if before > 0 else 0.0
        shares.append(share)
        followed.append(max(0.0, before))
        # From here on these are not followed any more, and say nothing of later ages.
        total -= math.fsum(alive[number] for number in last[place])
    return Curve(ages, tuple(shares), tuple(followed))
