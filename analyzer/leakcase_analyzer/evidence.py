"""What a case says, ordered for those who judge it; nothing here judges.

Times are seconds since the case's first sample or snapshot of the image that is judged, so that
0 is the start of the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from leakcase_analyzer.block_looks import BlockLook
from leakcase_analyzer.columns import Columns
from leakcase_analyzer.heap_looks import HeapLook, PythonLook
from leakcase_analyzer.told_looks import ToldLook
from leakcase_analyzer.trace_looks import Tracing
from leakcase_bundle.records import (
    Allocator,
    CaseEnd,
    CaseHeader,
    CgroupFacts,
    CoreDump,
    Cost,
    Event,
    Gap,
    HeapUnreachable,
    Limits,
    Loss,
    ManagedClasses,
    ManagedHeap,
    ManagedNative,
    Mark,
    Module,
    OomKill,
    Runtime,
    Setting,
    Target,
)

#: What tells a region from another: kind, path, name, start address (None: a whole group).
RegionKey: TypeAlias = tuple[str, str | None, str | None, int | None]


@dataclass(frozen=True, slots=True)
class RegionSize:
    """One group of mappings at one snapshot; sizes are bytes, None where not known."""

    count: int
    size_bytes: int
    rss_bytes: int | None
    swap_bytes: int | None
    anonymous_bytes: int | None

    def plus(self, other: RegionSize) -> RegionSize:
        """Both together; a figure that one of them lacks is the other's."""
        return RegionSize(
            self.count + other.count,
            self.size_bytes + other.size_bytes,
            _sum(self.rss_bytes, other.rss_bytes),
            _sum(self.swap_bytes, other.swap_bytes),
            _sum(self.anonymous_bytes, other.anonymous_bytes),
        )

    @property
    def held_bytes(self) -> int | None:
        """Resident or in swap: what the process keeps there."""
        return None if self.rss_bytes is None else self.rss_bytes + (self.swap_bytes or 0)


def _sum(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


@dataclass(frozen=True)
class Snapshot:
    """The target's mappings at one instant."""

    seconds: float
    has_resident_sizes: bool
    complete: bool
    mappings: int
    regions: Mapping[RegionKey, RegionSize]

    def groups(self) -> dict[RegionKey, RegionSize]:
        """The groups of mappings, which add up to all; single large mappings are left out."""
        return {key: size for key, size in self.regions.items() if key[3] is None}


@dataclass(frozen=True)
class FirstAndLast:
    """The groups of one kind of record at the first and at the last instant they were taken."""

    first: tuple[Any, ...] = ()
    first_seconds: float | None = None
    last: tuple[Any, ...] = ()
    last_seconds: float | None = None


@dataclass(frozen=True)
class Reading:
    """How the case itself was to read."""

    complete: bool
    truncated: bool
    records: int
    problems: tuple[str, ...]
    problem_count: int
    unknown_records: int
    left_out_records: int
    thinned: bool
    """Samples were dropped evenly, because there are more than the analyzer keeps."""
    format_minor: int


@dataclass(frozen=True)
class Evidence:
    """All that a case holds about its target's last image."""

    reading: Reading
    header: CaseHeader | None = None
    target: Target | None = None
    exec_seconds: float | None = None
    """How far into the capture the target replaced its program; None: it did not."""
    limits: Limits | None = None
    cgroup_facts: CgroupFacts | None = None
    settings: tuple[Setting, ...] = ()
    modules: tuple[Module, ...] = ()
    allocators: tuple[Allocator, ...] = ()
    runtimes: tuple[Runtime, ...] = ()
    series: Mapping[str, Columns] = field(default_factory=dict)
    snapshots: tuple[Snapshot, ...] = ()
    gpu: Mapping[str, Columns] = field(default_factory=dict)
    """GPU memory by source; the column is `held_bytes`."""
    thread_groups: FirstAndLast = FirstAndLast()
    descriptor_groups: FirstAndLast = FirstAndLast()
    socket_groups: FirstAndLast = FirstAndLast()
    heap: tuple[HeapLook, ...] = ()
    python: tuple[PythonLook, ...] = ()
    blocks: tuple[BlockLook, ...] = ()
    words: tuple[ToldLook, ...] = ()
    """What the allocator said of itself when it was asked in the process."""
    cores: tuple[CoreDump, ...] = ()
    unreachable: HeapUnreachable | None = None
    managed: tuple[tuple[float, ManagedHeap], ...] = ()
    """What a runtime with a collector said of its heap, each with its second."""
    managed_classes: tuple[tuple[float, ManagedClasses], ...] = ()
    managed_native: tuple[tuple[float, ManagedNative], ...] = ()
    tracing: Tracing = Tracing()
    oom_kills: tuple[OomKill, ...] = ()
    gaps: tuple[Gap, ...] = ()
    losses: tuple[Loss, ...] = ()
    costs: tuple[Cost, ...] = ()
    marks: tuple[tuple[float, Mark], ...] = ()
    events: tuple[tuple[float, Event], ...] = ()
    end: CaseEnd | None = None
    origin_ns: float = 0.0
    """Second 0 on the case's monotonic clock."""
    judged: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was computed from this evidence already, by name."""

    def columns(self, series: str) -> Columns | None:
        """A series with at least one row, or None."""
        found = self.series.get(series)
        return found if found is not None and len(found) else None

    @property
    def window_seconds(self) -> float:
        """From the first sample of the judged image to the last."""
        ends = [float(c.seconds[-1]) for c in self.series.values() if len(c)]
        starts = [float(c.seconds[0]) for c in self.series.values() if len(c)]
        return max(0.0, max(ends) - min(starts)) if ends else 0.0

    @property
    def program(self) -> Module | None:
        """The target's main program."""
        return next((m for m in self.modules if m.is_program), None)

    @property
    def allocator(self) -> Allocator | None:
        """The allocator that the target's malloc reaches, where exactly one is known to."""
        found = [a for a in self.allocators if a.effective]
        return found[0] if len({a.kind for a in found}) == 1 else None

    @property
    def runtime(self) -> Runtime | None:
        """The target's language runtime, the first that was found."""
        return next((r for r in self.runtimes if r.kind != "none"), None)
