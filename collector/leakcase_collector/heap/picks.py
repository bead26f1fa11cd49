"""Which of the two twins notes: the one in C where it was built."""

from __future__ import annotations

from collections.abc import Sequence

from leakcase_collector.system import native

from .pick import Pick, PythonPick
from .pick_native import NativePick


def best_pick(ranges: Sequence[tuple[int, int]]) -> Pick:
    """A new one, for words within `ranges` (ascending)."""
    library = native.load()
    return PythonPick(ranges) if library is None else NativePick(library, ranges)
