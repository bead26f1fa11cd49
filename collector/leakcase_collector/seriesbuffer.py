"""Rows in, columns out: samples are kept per series until a frame is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Optional

from leakcase_bundle.encoding import MAX_ARRAY_LENGTH


class SeriesBuffer:
    """The samples since the last flush, by record class."""

    def __init__(self) -> None:
        self._rows: dict[type[Any], list[tuple[int, dict[str, Optional[int]]]]] = {}

    def add(self, series: type[Any], taken_ns: int, values: dict[str, Optional[int]]) -> None:
        """One row; a figure that is None or left out is unknown."""
        self._rows.setdefault(series, []).append((taken_ns, values))

    def drain(self) -> Iterator[Any]:
        """The series records of all rows kept, which are then forgotten."""
        rows_by_series, self._rows = self._rows, {}
        for series, rows in rows_by_series.items():
            for start in range(0, len(rows), MAX_ARRAY_LENGTH):
                yield _columns(series, rows[start : start + MAX_ARRAY_LENGTH])


def _columns(series: type[Any], rows: list[tuple[int, dict[str, Optional[int]]]]) -> Any:
    columns: dict[str, Optional[list[Optional[int]]]] = {}
    for field in dataclasses.fields(series):
        column = [values.get(field.name) for _, values in rows]
        columns[field.name] = None if all(value is None for value in column) else column
    columns["taken_ns"] = [taken_ns for taken_ns, _ in rows]
    return series(**columns)
