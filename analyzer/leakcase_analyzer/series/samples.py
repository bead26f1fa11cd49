"""The samples of one series as a judge can use them: finite, in order, at most one per instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]

# Two readings closer than the grain of a 1 MHz clock are one reading.
LEAST_SPACING_SECONDS = 1e-6
# No address space, count or clock reaches this; beyond it squares lose meaning in a double.
LARGEST = float(1 << 62)


class SeriesError(ValueError):
    """The arrays of a series do not fit together: a mistake of the caller, not of the data."""


@dataclass(frozen=True)
class Samples:
    """One series, cleaned. `t` rises strictly; companions have its length, NaN where not measured.

    `in_order` is False when the clock ran backwards: `t` and `y` are then empty.
    """

    t: Floats
    y: Floats
    cpu: Floats | None
    in_use: Floats | None
    free: Floats | None
    in_order: bool

    @property
    def window_seconds(self) -> float:
        """From the first usable sample to the last."""
        return float(self.t[-1] - self.t[0]) if self.t.size else 0.0


def clean(
    t_seconds: ArrayLike,
    y: ArrayLike,
    *,
    cpu_seconds: ArrayLike | None = None,
    in_use: ArrayLike | None = None,
    free: ArrayLike | None = None,
) -> Samples:
    """Drop what was not measured (NaN, infinite) and second readings of one instant.

    Raises SeriesError when an array is not one-dimensional numbers or its length differs.
    """
    t, values = one_dimensional("t_seconds", t_seconds), one_dimensional("the series", y)
    companions = {
        name: None if given is None else one_dimensional(name, given)
        for name, given in (("cpu_seconds", cpu_seconds), ("in_use", in_use), ("free", free))
    }
    for name, array in (("the series", values), *companions.items()):
        if array is not None and array.size != t.size:
            raise SeriesError(
                f"{name} has {array.size} samples but t_seconds has {t.size}; "
                "give one value per time, NaN where nothing was measured"
            )
    kept = np.isfinite(t) & np.isfinite(values)
    steps = np.diff(t[kept])
    if np.any(steps < 0):
        nothing = np.empty(0)
        return Samples(nothing, nothing, None, None, None, in_order=False)
    kept[np.flatnonzero(kept)[1:][steps < LEAST_SPACING_SECONDS]] = False
    cpu, used, spare = (None if a is None else a[kept] for a in companions.values())
    return Samples(t[kept], values[kept], _rising(t[kept], cpu), used, spare, in_order=True)


def tail_of(samples: Samples, start: int) -> Samples:
    """The samples from index `start` on."""

    def cut(array: Floats | None) -> Floats | None:
        return None if array is None else array[start:]

    return Samples(
        samples.t[start:],
        samples.y[start:],
        cut(samples.cpu),
        cut(samples.in_use),
        cut(samples.free),
        samples.in_order,
    )


def one_dimensional(name: str, given: ArrayLike) -> Floats:
    """As doubles; what cannot be a measurement becomes NaN. Raises SeriesError."""
    try:
        array = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SeriesError(f"{name} is not a sequence of numbers ({error})") from error
    if array.ndim != 1:
        raise SeriesError(f"{name} has {array.ndim} dimensions; give one value per time")
    array[~(np.abs(array) < LARGEST)] = np.nan
    return array


def _rising(t: Floats, total: Floats | None) -> Floats | None:
    """A running total with its holes filled; None when it is no running total."""
    if total is None:
        return None
    known = np.isfinite(total)
    if np.count_nonzero(known) < 2 or np.any(np.diff(total[known]) < 0):
        return None
    return np.interp(t, t[known], total[known])
