"""Answers beside the truth, counted: precision, recall and what they must reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from leakcase_analyzer.series.growth import Growth


@dataclass
class Floors:
    """Figures against what they must reach."""

    failed: list[str] = field(default_factory=list)

    def least(self, what: str, value: float, floor: float) -> None:
        """Note a figure that should be at least `floor`."""
        if not value >= floor:
            self.failed.append(f"{what} is {value:.3f}, below its floor of {floor:.3f}")

    def most(self, what: str, value: float, ceiling: float) -> None:
        """Note a figure that should be at most `ceiling`."""
        if not value <= ceiling:
            self.failed.append(f"{what} is {value:.3f}, above its ceiling of {ceiling:.3f}")


@dataclass(frozen=True)
class Judged:
    """One answer beside the truth."""

    kind: str
    truth: str
    rate: float | None
    growth: Growth


@dataclass(frozen=True)
class Score:
    """Shares over a set of answers; None where there was nothing to count."""

    precision: float
    recall: float
    missed: float
    false: float
    twins: float
    undecided: float
    covered: float

    @staticmethod
    def of(answers: Iterable[Judged]) -> Score:
        """Count."""
        answers = list(answers)

        def share(truth: str, test: Callable[[Growth], bool]) -> float:
            chosen = [test(one.growth) for one in answers if one.truth == truth]
            return float(np.mean(chosen)) if chosen else float("nan")

        called = Counter(one.truth for one in answers if one.growth.status == "leak")
        covered = [
            one.growth.rate_low <= one.rate <= one.growth.rate_high
            for one in answers
            if one.truth == "leak"
            and one.rate
            and one.growth.status == "leak"
            and one.growth.rate_low is not None
            and one.growth.rate_high is not None
        ]
        return Score(
            called["leak"] / max(1, called["leak"] + called["innocent"]),
            share("leak", is_leak),
            share("leak", lambda g: g.status in ("bounded", "stable", "retention")),
            share("innocent", is_leak),
            share("twin", is_leak),
            float(np.mean([one.growth.status == "undecided" for one in answers])),
            float(np.mean(covered)) if covered else float("nan"),
        )


HEADER = f"{'':34}precision  recall  missed   false   twins  undecided  covered"


def row(name: str, score: Score) -> str:
    """One line of the table under HEADER."""
    return (
        f"{name:34}{score.precision:9.3f}{score.recall:8.3f}{score.missed:8.3f}{score.false:8.3f}"
        f"{score.twins:8.3f}{score.undecided:11.3f}{score.covered:9.3f}"
    )


def is_leak(growth: Growth) -> bool:
    """Whether it was called."""
    return growth.status == "leak"
