"""Collects the looks into the target's memory, in bounded memory.

A real capture looks a few times. Of more than is kept every second look goes, but the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from leakcase_analyzer.columns import LARGEST
from leakcase_analyzer.gather_groups import Window
from leakcase_analyzer.heap_looks import NOTHING, Amount, HeapLook, PythonLook
from leakcase_bundle.records import (
    HeapArena,
    HeapCensus,
    HeapSizes,
    PythonCensus,
    PythonTypes,
)

MOST_LOOKS = 64
MOST_ARENAS = 1024
#: Lists of the format are longer than any real one: 256 exact classes and 16 for each doubling.
MOST_ENTRIES = 2048

T = TypeVar("T", HeapCensus, PythonCensus)


@dataclass
class _Draft(Generic[T]):
    """One census and what belongs to it, as it comes."""

    total: T
    arenas: list[HeapArena] = field(default_factory=list)
    sizes: HeapSizes | None = None
    types: PythonTypes | None = None


class _Drafts(Generic[T]):
    """Censuses by number, in file order; a number that comes again begins anew."""

    def __init__(self) -> None:
        self._by_number: dict[int, _Draft[T]] = {}
        self.left_out = 0

    def begin(self, census: T) -> None:
        """A census's own record; what belongs to it follows."""
        if not is_sane(census):
            self.left_out += 1
            return
        self._by_number.pop(census.census, None)
        if len(self._by_number) >= MOST_LOOKS:
            for number in list(self._by_number)[1::2]:
                del self._by_number[number]
        self._by_number[census.census] = _Draft(census)

    def of(self, record: Any) -> _Draft[T] | None:
        """The census that a record belongs to; None, and counted, where there is none."""
        found = self._by_number.get(record.census) if is_sane(record) else None
        self.left_out += found is None
        return found

    def within(self, window: Window) -> Iterator[tuple[float, _Draft[T]]]:
        """Those of the window in order of time, with their second."""
        kept = [d for d in self._by_number.values() if window.holds(d.total.taken_ns)]
        for draft in sorted(kept, key=lambda d: d.total.taken_ns):
            yield window.seconds(draft.total.taken_ns), draft


class HeapStore:
    """Censuses of malloc's heaps."""

    def __init__(self) -> None:
        self._drafts: _Drafts[HeapCensus] = _Drafts()
        self.begin = self._drafts.begin

    @property
    def left_out(self) -> int:
        """Records that belong to no census, or say what cannot be."""
        return self._drafts.left_out

    def add_arena(self, arena: HeapArena) -> None:
        """One arena of a census that has begun."""
        draft = self._drafts.of(arena)
        if draft is not None and len(draft.arenas) < MOST_ARENAS:
            draft.arenas.append(arena)

    def add_sizes(self, sizes: HeapSizes) -> None:
        """The classes of size of a census that has begun."""
        draft = self._drafts.of(sizes)
        if draft is not None:
            draft.sizes = sizes

    def looks(self, window: Window) -> tuple[HeapLook, ...]:
        """The looks of the window, in order of time."""
        return tuple(
            HeapLook(seconds, draft.total, tuple(draft.arenas), _sizes(draft.sizes))
            for seconds, draft in self._drafts.within(window)
        )


class PythonStore:
    """Counts of CPython's objects."""

    def __init__(self) -> None:
        self._drafts: _Drafts[PythonCensus] = _Drafts()
        self.begin = self._drafts.begin

    @property
    def left_out(self) -> int:
        """Records that belong to no census, or say what cannot be."""
        return self._drafts.left_out

    def add_types(self, types: PythonTypes) -> None:
        """The types of a census that has begun."""
        draft = self._drafts.of(types)
        if draft is not None:
            draft.types = types

    def looks(self, window: Window) -> tuple[PythonLook, ...]:
        """The looks of the window, in order of time."""
        return tuple(
            _python_look(seconds, draft.total, draft.types)
            for seconds, draft in self._drafts.within(window)
        )


def _python_look(seconds: float, total: PythonCensus, types: PythonTypes | None) -> PythonLook:
    if types is None:
        return PythonLook(seconds, total, {}, NOTHING, 0)
    listed: dict[str, Amount] = {}
    rows = list(zip(types.names, types.counts, types.sizes_bytes, strict=False))[:MOST_ENTRIES]
    for name, count, size in rows:
        before = listed.get(str(name), NOTHING)
        listed[str(name)] = Amount(before.count + count, before.size_bytes + size)
    # Of a type with two entries the smaller may be among the folded ones: bounded as they are.
    least = min((size for _, _, size in rows), default=0) if types.folded_types else 0
    return PythonLook(seconds, total, listed, Amount(types.folded_count, types.folded_bytes), least)


def _sizes(sizes: HeapSizes | None) -> dict[int, Amount]:
    if sizes is None:
        return {}
    rows = zip(sizes.chunk_bytes, sizes.in_use_chunks, sizes.in_use_bytes, strict=False)
    return {chunk: Amount(count, size) for chunk, count, size in list(rows)[:MOST_ENTRIES]}


def is_sane(record: Any) -> bool:
    """Whether a process can have such figures: a hostile case's may be negative, or too large."""
    for one in fields(record):
        value = getattr(record, one.name)
        numbers = value if isinstance(value, list) else (value,)
        if any(type(n) is int and not 0 <= n < LARGEST for n in numbers):
            return False
    return True
