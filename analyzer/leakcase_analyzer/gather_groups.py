"""Collects what a case tells group by group: mappings, descriptors, threads, sockets, GPU memory.

Each store is bounded. What a real capture makes fits many times over; of what does not, the first
and the last instant are kept, because growth lies between them.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

from leakcase_analyzer.columns import LARGEST, Columns, sane_columns
from leakcase_analyzer.evidence import FirstAndLast, RegionKey, RegionSize, Snapshot
from leakcase_bundle.records import GpuMemory, Region, RegionSnapshot

MOST_SNAPSHOTS = 64
MOST_REGIONS = 2048
MOST_GROUPS = 2048
MOST_GPU_ROWS = 1 << 17
MOST_GPU_SOURCES = 4


@dataclass(frozen=True)
class Window:
    """What part of a capture is judged, on the case's clock."""

    origin_ns: float
    """The first sample: second 0."""
    start_ns: float
    end_ns: float

    def seconds(self, taken_ns: float) -> float:
        """A time of the case as seconds since the first sample."""
        return (taken_ns - self.origin_ns) / 1e9

    def holds(self, taken_ns: float) -> bool:
        """Whether an instant lies in the window."""
        return self.start_ns <= taken_ns < self.end_ns


def _sane(size: int | None) -> int | None:
    """None for what no mapping can have: a hostile case's figure was not measured."""
    return size if size is not None and 0 <= size < LARGEST else None


class SnapshotStore:
    """Snapshots of the target's mappings; beyond MOST_SNAPSHOTS every second one goes."""

    def __init__(self) -> None:
        self._snapshots: dict[int, tuple[RegionSnapshot, dict[RegionKey, RegionSize]]] = {}
        self.left_out = 0

    def begin(self, snapshot: RegionSnapshot) -> None:
        """A snapshot's own record; its regions follow."""
        if len(self._snapshots) >= MOST_SNAPSHOTS:
            for number in list(self._snapshots)[1::2]:
                del self._snapshots[number]
        self._snapshots[snapshot.snapshot] = (snapshot, {})

    def add(self, region: Region) -> None:
        """One group of mappings of a snapshot that has begun."""
        found = self._snapshots.get(region.snapshot)
        if found is None or len(found[1]) >= MOST_REGIONS:
            self.left_out += 1
            return
        key = (region.kind, region.path, region.name, region.start_address)
        size = RegionSize(
            _sane(region.count) or 0,
            _sane(region.size_bytes) or 0,
            _sane(region.rss_bytes),
            _sane(region.swap_bytes),
            _sane(region.anonymous_bytes),
        )
        before = found[1].get(key)
        # The same file mapped with several protections makes several groups: one for us.
        found[1][key] = size if before is None else before.plus(size)

    def snapshots(self, window: Window) -> tuple[Snapshot, ...]:
        """The snapshots of the window, in order of time."""
        kept = [pair for pair in self._snapshots.values() if window.holds(pair[0].taken_ns)]
        kept.sort(key=lambda pair: pair[0].taken_ns)
        return tuple(
            Snapshot(
                seconds=window.seconds(taken.taken_ns),
                has_resident_sizes=taken.source == "smaps",
                complete=taken.complete,
                mappings=taken.mappings,
                regions=regions,
            )
            for taken, regions in kept
        )


class FirstAndLastStore:
    """Groups of one kind at the first and the last instant; one store serves one kind."""

    def __init__(self) -> None:
        # Instants in file order; an exec may make the first of them obsolete, so keep a middle.
        self._instants: dict[int, list[Any]] = {}

    def add(self, group: Any) -> None:
        """One group; groups of one instant carry the same time."""
        found = self._instants.get(group.taken_ns)
        if found is None:
            if len(self._instants) >= MOST_SNAPSHOTS:
                for taken_ns in list(self._instants)[1::2]:
                    del self._instants[taken_ns]
            found = self._instants[group.taken_ns] = []
        if len(found) < MOST_GROUPS:
            found.append(group)

    def first_and_last(self, window: Window) -> FirstAndLast:
        """The groups at the window's first and last instant (equal where there is one only)."""
        times = sorted(taken_ns for taken_ns in self._instants if window.holds(taken_ns))
        if not times:
            return FirstAndLast()
        first, last = times[0], times[-1]
        return FirstAndLast(
            tuple(self._instants[first]),
            window.seconds(first),
            tuple(self._instants[last]),
            window.seconds(last),
        )


class GpuStore:
    """GPU memory summed over regions, by source of the figure."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[array[float], array[float]]] = {}

    def add(self, memory: GpuMemory) -> None:
        """One region's figure; resident where known, else the total that was allocated."""
        size = memory.total_bytes if memory.resident_bytes is None else memory.resident_bytes
        if size is None:
            return
        if memory.source not in self._rows and len(self._rows) >= MOST_GPU_SOURCES:
            return
        times, sizes = self._rows.setdefault(memory.source, (array("d"), array("d")))
        if times and times[-1] == memory.taken_ns:
            sizes[-1] += size
        elif len(times) < MOST_GPU_ROWS:
            times.append(memory.taken_ns)
            sizes.append(size)

    def columns(self, window: Window) -> dict[str, Columns]:
        """By source, one column `held_bytes`."""
        return {
            source: sane_columns(
                times, {"held_bytes": sizes}, window.origin_ns, window.start_ns, window.end_ns
            )
            for source, (times, sizes) in self._rows.items()
        }
