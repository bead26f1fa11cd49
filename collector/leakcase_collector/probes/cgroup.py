"""Memory of the target's control group and its limits, versions 1 and 2.

A container is killed for what its group uses, which is more than its processes' resident memory:
page cache, kernel memory and its siblings count as well. See cgroup-v2.rst and cgroup-v1/memory.rst
of the kernel's documentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Optional

from leakcase_bundle.records import CgroupFacts, CgroupSeries
from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.system.door import System
from leakcase_collector.system.files import KeptFile

from .base import Cadence, Context, Prediction, Probe
from .cgroup_location import Location, cgroup_mounts, group_paths, locate
from .figures import keyed, parse_pressure, whole

#: What version 1 prints for "no limit": the largest number of whole pages in 63 bits, which
#: depends on the page size, and in old kernels 2^63 - 1.
_UNLIMITED = 1 << 62

_V2_COLUMNS: tuple[tuple[bytes, str], ...] = (
    (b"anon", "anon_bytes"),
    (b"file", "file_bytes"),
    (b"inactive_file", "inactive_file_bytes"),
    (b"shmem", "shmem_bytes"),
    (b"kernel", "kernel_bytes"),  # Linux 5.18
    (b"slab", "slab_bytes"),
    (b"slab_unreclaimable", "slab_unreclaimable_bytes"),
    (b"sock", "socket_bytes"),
    (b"pagetables", "page_tables_bytes"),  # Linux 5.11
)
#: "total_" counts the groups below as well, as usage_in_bytes does.
_V1_COLUMNS: tuple[tuple[bytes, str], ...] = (
    (b"total_rss", "anon_bytes"),
    (b"total_cache", "file_bytes"),
    (b"total_inactive_file", "inactive_file_bytes"),
    (b"total_shmem", "shmem_bytes"),  # Linux 4.18
    (b"total_swap", "swap_bytes"),  # where swap is accounted for
    (b"hierarchical_memory_limit", "limit_bytes"),
)
_V2_EVENTS: tuple[tuple[bytes, str], ...] = (
    (b"high", "events_high"),
    (b"max", "events_max"),
    (b"oom", "events_oom"),
    (b"oom_kill", "events_oom_kill"),  # Linux 4.13
)

Figures = dict[str, Optional[int]]


def parse_limit(content: Optional[bytes]) -> Optional[int]:
    """A limit file of either version in bytes; None: no limit, or not known."""
    value = None if content is None else whole(content)
    return value if value is not None and value < _UNLIMITED else None


def parse_v2_stat(content: bytes) -> Figures:
    """memory.stat of version 2, by the columns of `CgroupSeries`."""
    known = keyed(content)
    return {column: known[key] for key, column in _V2_COLUMNS if key in known}


def parse_v2_events(content: bytes) -> Figures:
    """memory.events, by the columns of `CgroupSeries`."""
    known = keyed(content)
    return {column: known[key] for key, column in _V2_EVENTS if key in known}


def parse_v1_stat(content: bytes) -> Figures:
    """memory.stat of version 1, by the columns of `CgroupSeries`."""
    known = keyed(content)
    figures: Figures = {column: known[key] for key, column in _V1_COLUMNS if key in known}
    if "limit_bytes" in figures:
        figures["limit_bytes"] = parse_limit(b"%d" % known[b"hierarchical_memory_limit"])
    return figures


class GroupFiles:
    """The small files of one group, kept open; a missing one reads as None, and once only.

    `through_target` is the pid of a process in whose mounts the directory lies: then every read
    goes through that process's root, which the kernel does not let us keep open safely by path.
    """

    def __init__(
        self, system: System, directory: str, through_target: Optional[int] = None
    ) -> None:
        self._system = system
        self._directory = directory
        self._through_target = through_target
        self._kept: dict[str, Optional[KeptFile]] = {}

    def read(self, name: str) -> Optional[bytes]:
        if self._through_target is not None:
            return self._read_through(self._through_target, name)
        if name not in self._kept:
            try:
                self._kept[name] = self._system.open_kept(f"{self._directory}/{name}")
            except (NotSupported, NotPermitted):
                self._kept[name] = None
        file = self._kept[name]
        try:
            return None if file is None else file.read()
        except NotSupported:  # ENODEV: the group was removed
            return None

    def _read_through(self, pid: int, name: str) -> Optional[bytes]:
        try:
            with self._system.open_target_directory(pid, self._directory) as directory:
                return directory.read_bytes(name)
        except (NotSupported, NotPermitted):
            return None

    def number(self, name: str) -> Optional[int]:
        content = self.read(name)
        return None if content is None else whole(content)

    def limit(self, name: str) -> Optional[int]:
        return parse_limit(self.read(name))


class Group:
    """The target's memory control group: `levels` are its files and those of each group above."""

    def __init__(
        self,
        version: int,
        path: str,
        levels: list[GroupFiles],
        processes: Optional[GroupFiles],
    ) -> None:
        self.version = version
        self.path = path
        self._levels = levels
        self._own = levels[0]
        self._processes = processes
        # The limit that will be met first; its file is read at every tick, as limits are resized.
        self._tightest = min(levels, key=_max_bytes) if version == 2 else self._own

    def has_figures(self) -> bool:
        """Whether it is any group but the root, whose figures are the host's."""
        if self.version == 2:
            return self._own.read("memory.current") is not None
        # Only the root of a version 1 hierarchy has a release agent.
        return (
            self._own.read("memory.usage_in_bytes") is not None
            and self._own.read("release_agent") is None
        )

    def figures(self) -> Figures:
        """One row of `CgroupSeries`."""
        figures = self._v2_figures() if self.version == 2 else self._v1_figures()
        if self._processes is not None:
            figures["processes"] = self._processes.number("pids.current")
        return figures

    def _v2_figures(self) -> Figures:
        figures = parse_v2_stat(self._own.read("memory.stat") or b"")
        figures.update(parse_v2_events(self._own.read("memory.events") or b""))
        some, full = parse_pressure(self._own.read("memory.pressure") or b"")
        figures.update(
            current_bytes=self._own.number("memory.current"),
            swap_bytes=self._own.number("memory.swap.current"),
            limit_bytes=self._tightest.limit("memory.max"),
            pressure_some_us=some,
            pressure_full_us=full,
        )
        return figures

    def _v1_figures(self) -> Figures:
        figures = parse_v1_stat(self._own.read("memory.stat") or b"")
        figures.update(
            current_bytes=self._own.number("memory.usage_in_bytes"),
            kernel_bytes=self._own.number("memory.kmem.usage_in_bytes"),
            events_max=self._own.number("memory.failcnt"),
            # Linux 4.13; before, the file tells whether it is short of memory now, not how often.
            events_oom_kill=keyed(self._own.read("memory.oom_control") or b"").get(b"oom_kill"),
        )
        return figures

    def facts(self, context: Context, taken_ns: int) -> CgroupFacts:
        """The `CgroupFacts` record."""
        members = self._own.read("cgroup.procs")
        if self.version == 2:
            limit = self._tightest.limit("memory.max")
            own_limit = self._own.limit("memory.max")
            high = _tightest(level.limit("memory.high") for level in self._levels)
            swap = _tightest(level.limit("memory.swap.max") for level in self._levels)
        else:
            known = keyed(self._own.read("memory.stat") or b"")
            limit = parse_limit(b"%d" % known.get(b"hierarchical_memory_limit", _UNLIMITED))
            own_limit = self._own.limit("memory.limit_in_bytes")
            high = None
            with_swap = parse_limit(b"%d" % known.get(b"hierarchical_memsw_limit", _UNLIMITED))
            # Version 1 limits memory and swap together only.
            swap = None if limit is None or with_swap is None else max(0, with_swap - limit)
        return CgroupFacts(
            taken_ns=taken_ns,
            version=self.version,
            path=context.redactor.path(self.path),
            limit_bytes=limit,
            high_bytes=high,
            swap_limit_bytes=swap,
            limit_is_inherited=None if limit is None else limit != own_limit,
            shared_with_processes=None if members is None else max(0, members.count(b"\n") - 1),
        )


def _max_bytes(level: GroupFiles) -> int:
    limit = level.limit("memory.max")
    return _UNLIMITED if limit is None else limit


def _tightest(limits: Iterable[Optional[int]]) -> Optional[int]:
    return min((limit for limit in limits if limit is not None), default=None)


def find_group(system: System, pid: int, membership: bytes) -> Group:
    """The memory group of `pid`; NotSupported when it cannot be reached or is the root.

    Looked for among our own mounts, then among the target's: a container that shares the host's
    pids may have nothing but its own group mounted, while the target sees its own.
    """
    paths = group_paths(membership)
    path = paths.get("memory", paths.get("", "/"))
    for through_target in (None, pid):
        owner = "self" if through_target is None else pid
        try:
            mounts = cgroup_mounts(system.read_bytes(f"/proc/{owner}/mountinfo"))
        except (NotPermitted, NotSupported):
            continue
        memory, processes = (locate(paths, mounts, name) for name in ("memory", "pids"))
        if memory is None:
            continue
        levels = _open(system, memory, through_target)
        group = Group(
            memory.version,
            path,
            levels,
            _open(system, processes, through_target)[0] if processes else None,
        )
        if group.has_figures():
            return group
    raise NotSupported(
        f"process {pid} has no memory control group of its own that can be read here: it is in "
        "the root group, or its group is not mounted. The process's own figures are not affected."
    )


def _open(system: System, location: Location, through_target: Optional[int]) -> list[GroupFiles]:
    return [GroupFiles(system, directory, through_target) for directory in location.directories]


class CgroupProbe(Probe):
    """`CgroupFacts` at the start and whenever the target moves, a `CgroupSeries` row a tick."""

    name: ClassVar[str] = "cgroup"
    cadence: ClassVar[Cadence] = Cadence.TICK
    reads: ClassVar[str] = "/proc/PID/cgroup, the memory files of its control group"

    def __init__(self) -> None:
        self._membership_file: Optional[KeptFile] = None
        self._membership: Optional[bytes] = None
        self._group: Optional[Group] = None

    def predict(self, context: Context) -> Prediction:
        # Measured once a second: 150 us for version 1, which has six files; version 2 has eight.
        return Prediction(cpu_ns=200_000)

    def sample(self, context: Context, taken_ns: int) -> None:
        if self._membership_file is None:
            self._membership_file = context.system.open_kept(f"/proc/{context.pid}/cgroup")
        membership = self._membership_file.read()
        if membership != self._membership:
            self._membership = membership
            self._enter(context, taken_ns)
        if self._group is not None:
            context.sample(CgroupSeries, taken_ns, **self._group.figures())

    def _enter(self, context: Context, taken_ns: int) -> None:
        try:
            self._group = find_group(context.system, context.pid, self._membership or b"")
        except NotSupported as error:
            self._group = None
            context.gap(error, "cgroup")
            return
        context.emit(self._group.facts(context, taken_ns))
