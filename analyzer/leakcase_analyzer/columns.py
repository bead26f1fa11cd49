"""The samples of one series as columns of doubles, in bounded memory.

A series of any length fits: beyond MAX_ROWS rows every second one is dropped and from then on
only every second one is kept, as often as needed. Growth is judged on floors of long blocks, so a
week at every 4 s says the same as a week at every second.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

#: Three days at one sample a second.
MAX_ROWS = 1 << 18
#: No size, count or time of a real process reaches this; a hostile case's may.
LARGEST = float(1 << 62)


@dataclass(frozen=True)
class Columns:
    """One series: seconds since the case's origin, and its columns; NaN where not measured."""

    seconds: Floats
    values: Mapping[str, Floats]

    def __len__(self) -> int:
        return int(self.seconds.size)

    def get(self, name: str) -> Floats | None:
        """A column, or None where it was never measured."""
        column = self.values.get(name)
        return None if column is None or bool(np.isnan(column).all()) else column

    def last(self, name: str) -> float | None:
        """The last measured value of a column."""
        return self._at(name, -1)

    def first(self, name: str) -> float | None:
        """The first measured value of a column."""
        return self._at(name, 0)

    def _at(self, name: str, position: int) -> float | None:
        column = self.get(name)
        return None if column is None else float(column[np.isfinite(column)][position])

    def growth(self, name: str) -> float | None:
        """Last less first measured value."""
        first, last = self.first(name), self.last(name)
        return None if first is None or last is None else last - first


class ColumnStore:
    """Collects the named columns of the records of one series."""

    def __init__(self, names: Sequence[str], running_totals: Iterable[str] = ()) -> None:
        """`running_totals`: columns of counts per row, kept as their running total.

        Their sum would not survive the dropping of rows.
        """
        self._names = tuple(names)
        self._times = array("d")
        self._columns = {name: array("d") for name in names}
        self._totals = dict.fromkeys(running_totals, 0.0)
        self._stride = 1
        self._rows = 0

    @property
    def stride(self) -> int:
        """Of how many rows one was kept."""
        return self._stride

    def add(self, record: Any) -> None:
        """Append the rows of one record of the series."""
        times = record.taken_ns
        if not times:
            return
        skip = -self._rows % self._stride
        self._rows += len(times)
        self._times.extend(_doubles(times)[skip :: self._stride])
        for name in self._names:
            values = getattr(record, name)
            doubles = [math.nan] * len(times) if values is None else _doubles(values)
            if name in self._totals and values is not None:
                doubles = self._running(name, doubles)
            self._columns[name].extend(doubles[skip :: self._stride])
        while len(self._times) > MAX_ROWS:
            self._halve()

    def _running(self, name: str, counts: Sequence[float]) -> list[float]:
        known = (0.0 if math.isnan(c) else c for c in counts)
        totals = list(accumulate(known, initial=self._totals[name]))[1:]
        self._totals[name] = totals[-1]
        return totals

    def _halve(self) -> None:
        self._times = self._times[::2]
        self._columns = {name: column[::2] for name, column in self._columns.items()}
        self._stride *= 2

    def first_ns(self, start_ns: float, end_ns: float) -> float | None:
        """The earliest row taken from `start_ns` on and before `end_ns`."""
        times = np.array(self._times, dtype=np.float64)
        kept = times[(times >= start_ns) & (times < end_ns)]
        return float(kept.min()) if kept.size else None

    def columns(self, origin_ns: float, start_ns: float, end_ns: float) -> Columns:
        """The rows taken from `start_ns` on and before `end_ns`, in seconds since `origin_ns`."""
        return sane_columns(self._times, self._columns, origin_ns, start_ns, end_ns)


def sane_columns(
    times_ns: array[float],
    columns: Mapping[str, array[float]],
    origin_ns: float,
    start_ns: float,
    end_ns: float,
) -> Columns:
    """The rows taken from `start_ns` on and before `end_ns`; impossible values become NaN."""
    times = np.array(times_ns, dtype=np.float64)
    kept = (times >= start_ns) & (times < end_ns)
    values = {name: _sane(column)[kept] for name, column in columns.items()}
    return Columns((times[kept] - origin_ns) / 1e9, values)


def _doubles(values: Sequence[int | None]) -> Sequence[float]:
    try:
        return array("d", values)  # type: ignore[arg-type]  # None raises, and is rare
    except TypeError:
        return [math.nan if value is None else float(value) for value in values]


def _sane(column: array[float]) -> Floats:
    values = np.array(column, dtype=np.float64)
    # Nothing that is measured here can be negative: such a value was not measured.
    values[~((values >= 0) & (values < LARGEST))] = np.nan
    return values
