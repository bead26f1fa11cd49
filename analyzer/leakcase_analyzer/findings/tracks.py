"""The quantities that are judged, and their judgement, computed once per case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leakcase_analyzer.columns import Floats
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Subject, Track, Unit
from leakcase_analyzer.findings.books import Books, beside, read_books
from leakcase_analyzer.findings.native_growth import native_blocks_explain
from leakcase_analyzer.series.growth import Growth, judge

#: Runtimes whose collector moves or sweeps in cycles: their floor shows only after collections.
#: CPython frees at once what is no longer referred to, and its memory is malloc's to the kernel.
COLLECTED_RUNTIMES = frozenset({"jvm", "node", "go", "dotnet"})

#: So many collections show what they leave.
LEAST_COLLECTIONS = 5


@dataclass(frozen=True)
class Quantity:
    """One thing to judge: what it is called, what it belongs to, and where its track is."""

    what: str
    subject: Subject
    unit: Unit
    find: Callable[[Evidence], Track | None]


def growth_of(evidence: Evidence, quantity: Quantity) -> tuple[Track, Growth] | None:
    """A quantity's track and its judgement; None where it was not measured at all."""
    if quantity.what not in evidence.judged:
        evidence.judged[quantity.what] = _judge(evidence, quantity)
    found: tuple[Track, Growth] | None = evidence.judged[quantity.what]
    return found


def _judge(evidence: Evidence, quantity: Quantity) -> tuple[Track, Growth] | None:
    track = quantity.find(evidence)
    if track is None:
        return None
    runtime = evidence.runtime
    collected = runtime is not None and runtime.kind in COLLECTED_RUNTIMES
    heap = beside(books_of(evidence), track) if quantity is ANONYMOUS else None
    growth = judge(
        track.seconds,
        track.values,
        cpu_seconds=track.cpu_seconds,
        in_use_bytes=None if heap is None else heap[0],
        free_bytes=None if heap is None else heap[1],
        unit="bytes" if quantity.unit == "bytes" else "count",
        managed_runtime=collected
        and quantity.subject == "anonymous"
        and not _is_left_by_collections(evidence, track)
        and not native_blocks_explain(evidence, anonymous_and_swap(evidence)),
    )
    return track, growth


def _is_left_by_collections(evidence: Evidence, track: Track) -> bool:
    """Whether collections were seen to leave at least half of what memory grew by: then the floor
    of a collected heap is known, and rises, however short the window is."""
    looks = [look for look in evidence.managed if look[1].kept_bytes is not None]
    if len(looks) < 2 or not track.seconds.size:
        return False
    (begun, first), (ended, last) = looks[0], looks[-1]
    span = (begun <= track.seconds) & (track.seconds <= ended) & np.isfinite(track.values)
    inside = track.values[span]
    if inside.size < 2 or (last.collections or 0) - (first.collections or 0) < LEAST_COLLECTIONS:
        return False
    grown = float(inside[-1] - inside[0])
    return 0 < 0.5 * grown <= (last.kept_bytes or 0) - (first.kept_bytes or 0)


def books_of(evidence: Evidence) -> Books:
    """What the process's allocators have in use and keep free, where memory was read."""
    if "books" not in evidence.judged:
        evidence.judged["books"] = read_books(evidence, anonymous_and_swap(evidence))
    found: Books = evidence.judged["books"]
    return found


def column(series: str, name: str) -> Callable[[Evidence], Track | None]:
    """The track of one column."""

    def find(evidence: Evidence) -> Track | None:
        columns = evidence.columns(series)
        values = None if columns is None else columns.get(name)
        if columns is None or values is None:
            return None
        return Track(columns.seconds, values, cpu_seconds(evidence, columns.seconds))

    return find


def anonymous_and_swap(evidence: Evidence) -> Track | None:
    """RssAnon + VmSwap: what the process holds for itself, wherever the kernel keeps it.

    Before Linux 4.5 there is no RssAnon; all that is resident stands in for it then.
    """
    status = evidence.columns("status")
    if status is None:
        return None
    resident = status.get("rss_anon_bytes")
    if resident is None:
        resident = status.get("rss_bytes")
    if resident is None:
        return None
    swap = status.get("swap_bytes")
    values = resident if swap is None else resident + swap
    return Track(status.seconds, values, cpu_seconds(evidence, status.seconds))


def page_cache(evidence: Evidence) -> Track | None:
    """The control group's page cache without shared memory, which the kernel counts as cache."""
    group = evidence.columns("cgroup")
    cached = None if group is None else group.get("file_bytes")
    if group is None or cached is None:
        return None
    shared = group.get("shmem_bytes")
    return Track(group.seconds, cached if shared is None else cached - shared)


def cpu_seconds(evidence: Evidence, at_seconds: Floats) -> Floats | None:
    """The target's CPU time so far, at given times; None where it is not known.

    schedstat is finer than the clock ticks, but forgets the time of threads that have ended.
    """
    stat = evidence.columns("stat")
    if stat is None:
        return None
    fine = stat.get("run_ns")
    if fine is not None and not _rises(fine):
        fine = None
    user, system = stat.get("user_cpu_ns"), stat.get("system_cpu_ns")
    if fine is None and user is not None and system is not None:
        fine = user + system
    if fine is None or not _rises(stat.seconds):
        return None
    known = np.isfinite(fine)
    if np.count_nonzero(known) < 2:
        return None
    return np.interp(at_seconds, stat.seconds[known], fine[known] / 1e9)


def _rises(values: Floats) -> bool:
    known = values[np.isfinite(values)]
    return bool(np.all(np.diff(known) >= 0))


ANONYMOUS = Quantity("anonymous memory", "anonymous", "bytes", anonymous_and_swap)
FILE = Quantity("file mappings", "file", "bytes", column("status", "rss_file_bytes"))
SHARED = Quantity("shared memory", "shared", "bytes", column("status", "rss_shmem_bytes"))
ADDRESS_SPACE = Quantity("address space", "anonymous", "bytes", column("status", "virtual_bytes"))
THREADS = Quantity("threads", "threads", "threads", column("status", "threads"))
DESCRIPTORS = Quantity("descriptors", "descriptors", "fds", column("descriptors", "total"))
PAGE_CACHE = Quantity("page cache", "cgroup", "bytes", page_cache)
GROUP_SHARED = Quantity(
    "shared memory of the control group", "shared", "bytes", column("cgroup", "shmem_bytes")
)
KERNEL_SOCKETS = Quantity(
    "socket buffers in the kernel", "kernel", "bytes", column("cgroup", "socket_bytes")
)
KERNEL_SLAB = Quantity(
    "kernel memory (slab)", "kernel", "bytes", column("cgroup", "slab_unreclaimable_bytes")
)
