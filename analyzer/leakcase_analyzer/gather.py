"""Reads a case into `Evidence`: one pass, bounded memory, whatever the case holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from leakcase_analyzer.columns import ColumnStore
from leakcase_analyzer.evidence import Evidence, Reading
from leakcase_analyzer.gather_blocks import BlockStore
from leakcase_analyzer.gather_groups import FirstAndLastStore, GpuStore, SnapshotStore, Window
from leakcase_analyzer.gather_heap import HeapStore, PythonStore, is_sane
from leakcase_analyzer.gather_trace import TraceStore
from leakcase_analyzer.told_looks import MOST_LOOKS, ToldLook
from leakcase_bundle import Reader
from leakcase_bundle import records as kinds

#: The columns that somebody judges; the others are not kept.
SERIES: dict[type[Any], tuple[str, tuple[str, ...]]] = {
    kinds.StatusSeries: (
        "status",
        (
            "rss_bytes", "peak_rss_bytes", "rss_anon_bytes", "rss_file_bytes", "rss_shmem_bytes",
            "swap_bytes", "virtual_bytes", "threads",
        ),
    ),
    kinds.StatSeries: ("stat", ("user_cpu_ns", "system_cpu_ns", "run_ns", "major_faults")),
    kinds.DescriptorSeries: (
        "descriptors",
        (
            "total", "files", "deleted_files", "directories", "sockets", "pipes", "devices",
            "epolls", "eventfds", "timerfds", "inotifies", "memfds", "others",
        ),
    ),
    kinds.ThreadSeries: ("threads", ("alive", "created")),
    kinds.SocketSeries: (
        "sockets",
        (
            "total", "tcp_established", "tcp_close_wait", "udp", "unix",
            "receive_queue_bytes", "send_queue_bytes",
        ),
    ),
    kinds.CgroupSeries: (
        "cgroup",
        (
            "current_bytes", "anon_bytes", "file_bytes", "inactive_file_bytes", "shmem_bytes",
            "slab_unreclaimable_bytes", "socket_bytes", "swap_bytes", "processes",
        ),
    ),
    kinds.HostSeries: ("host", ("available_bytes", "swap_free_bytes")),
    kinds.CollectorSeries: ("collector", ("missed_ticks", "interval_ns")),
}  # fmt: skip

#: Counts "since the sample before".
RUNNING_TOTALS = {"threads": ("created",)}

#: Facts about the program; an exec makes those of the program before it obsolete.
OF_ONE_IMAGE = (
    kinds.Target,
    kinds.Limits,
    kinds.CgroupFacts,
    kinds.Setting,
    kinds.Module,
    kinds.Allocator,
    kinds.Runtime,
)

#: What is judged beside series and groups; records of other kinds are passed over.
OF_THE_CAPTURE = (
    kinds.CaseHeader,
    kinds.CaseEnd,
    kinds.Gap,
    kinds.Loss,
    kinds.Cost,
    kinds.Event,
    kinds.Mark,
    kinds.OomKill,
    kinds.HeapUnreachable,
    kinds.AllocatorWords,
    kinds.AllocatorArena,
    kinds.CoreDump,
    kinds.ManagedHeap,
    kinds.ManagedClasses,
    kinds.ManagedNative,
)

#: How many records of one kind are kept; a real case holds far fewer.
MOST_RECORDS = 4096

T = TypeVar("T")
Lists = dict[type[Any], list[Any]]


def read_evidence(file: BinaryIO) -> Evidence:
    """The evidence of an open case. Raises NotACase, NewerFormat or CodecMissing."""
    return _Gathering(Reader(file)).evidence()


class _Gathering:
    """One pass over a case."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lists: Lists = {}
        # The last two images of the target: where each starts, and its facts.
        self._images: list[tuple[float, Lists]] = [(-math.inf, {})]
        self._left_out = 0
        self._series = {
            cls: ColumnStore(columns, RUNNING_TOTALS.get(name, ()))
            for cls, (name, columns) in SERIES.items()
        }
        self._snapshots = SnapshotStore()
        self._gpu = GpuStore()
        self._heap = HeapStore()
        self._python = PythonStore()
        self._blocks = BlockStore()
        self._trace = TraceStore()
        self._groups = {
            cls: FirstAndLastStore()
            for cls in (kinds.ThreadGroup, kinds.DescriptorGroup, kinds.SocketGroup)
        }
        takers: dict[type[Any], Callable[[Any], None]] = {
            **{cls: store.add for cls, store in self._series.items()},
            **{cls: store.add for cls, store in self._groups.items()},
            kinds.RegionSnapshot: self._snapshots.begin,
            kinds.Region: self._snapshots.add,
            **dict.fromkeys((*OF_ONE_IMAGE, *OF_THE_CAPTURE), self._keep),
            kinds.GpuMemory: self._gpu.add,
            kinds.HeapCensus: self._heap.begin,
            kinds.HeapArena: self._heap.add_arena,
            kinds.HeapSizes: self._heap.add_sizes,
            kinds.PythonCensus: self._python.begin,
            kinds.PythonTypes: self._python.add_types,
            kinds.HeapLabels: self._blocks.add_labels,
            kinds.HeapClasses: self._blocks.add_classes,
            **self._trace.takers,
        }
        for record in reader:
            take = takers.get(type(record))
            if take is not None:
                take(record)

    def _keep(self, record: Any) -> None:
        cls = type(record)
        if cls is kinds.Event and record.what == "exec":
            self._images = [self._images[-1], (float(record.taken_ns), {})]
        lists = self._images[-1][1] if cls in OF_ONE_IMAGE else self._lists
        kept = lists.setdefault(cls, [])
        if len(kept) < MOST_RECORDS:
            kept.append(record)
        else:
            self._left_out += 1

    def _window(self) -> tuple[Window, Lists]:
        """The last image that has samples, and its facts."""
        end = math.inf
        for start, facts in reversed(self._images):
            store = self._series[kinds.StatusSeries]
            origin = store.first_ns(start, end)
            if origin is not None:
                return Window(origin, start, end), facts
            end = start
        start, facts = self._images[-1]
        return Window(max(start, 0.0), start, math.inf), facts

    def evidence(self) -> Evidence:
        window, facts = self._window()
        headers = self._all(kinds.CaseHeader)
        target = _last(facts, kinds.Target) or _last(self._images[0][1], kinds.Target)
        marks, events = self._all(kinds.Mark), self._all(kinds.Event)
        groups = {cls: store.first_and_last(window) for cls, store in self._groups.items()}
        return Evidence(
            reading=self._reading(),
            header=headers[0] if headers else None,
            target=target,
            exec_seconds=self._exec_seconds(window),
            limits=_last(facts, kinds.Limits),
            cgroup_facts=_last(facts, kinds.CgroupFacts),
            settings=tuple(facts.get(kinds.Setting, ())),
            modules=tuple(facts.get(kinds.Module, ())),
            allocators=tuple(facts.get(kinds.Allocator, ())),
            runtimes=tuple(facts.get(kinds.Runtime, ())),
            series={
                name: self._series[cls].columns(window.origin_ns, window.start_ns, window.end_ns)
                for cls, (name, _) in SERIES.items()
            },
            snapshots=self._snapshots.snapshots(window),
            gpu=self._gpu.columns(window),
            heap=self._heap.looks(window),
            python=self._python.looks(window),
            blocks=self._blocks.looks(window),
            words=self._words(window),
            cores=tuple(one for _, one in self._timed(kinds.CoreDump, window)),
            unreachable=self._unreachable(window),
            managed=self._timed(kinds.ManagedHeap, window),
            managed_classes=self._timed(kinds.ManagedClasses, window),
            managed_native=self._timed(kinds.ManagedNative, window),
            tracing=self._trace.tracing(
                window,
                [str(one.path) for one in facts.get(kinds.Module, ()) if one.is_program],
            ),
            thread_groups=groups[kinds.ThreadGroup],
            descriptor_groups=groups[kinds.DescriptorGroup],
            socket_groups=groups[kinds.SocketGroup],
            oom_kills=self._all(kinds.OomKill),
            gaps=self._all(kinds.Gap),
            losses=self._all(kinds.Loss),
            costs=self._all(kinds.Cost),
            marks=tuple((window.seconds(m.taken_ns), m) for m in marks),
            events=tuple((window.seconds(e.taken_ns), e) for e in events),
            end=_last(self._lists, kinds.CaseEnd),
            origin_ns=window.origin_ns,
        )

    def _exec_seconds(self, window: Window) -> float | None:
        """How far into the capture the judged image began; None where it was the first."""
        if window.start_ns == -math.inf:
            return None
        before = self._series[kinds.StatusSeries].first_ns(-math.inf, window.start_ns)
        return 0.0 if before is None else (window.start_ns - before) / 1e9

    def _unreachable(self, window: Window) -> kinds.HeapUnreachable | None:
        found = [one for one in self._all(kinds.HeapUnreachable) if window.holds(one.taken_ns)]
        return found[-1] if found and is_sane(found[-1]) else None

    def _timed(self, cls: type[T], window: Window) -> tuple[tuple[float, T], ...]:
        """Records with a time of their own that lie in the window, and what they say can be."""
        held: list[Any] = [one for one in self._all(cls) if window.holds(one.taken_ns)]  # type: ignore[attr-defined]
        sane = sorted(filter(is_sane, held), key=lambda one: one.taken_ns)
        return tuple((window.seconds(one.taken_ns), one) for one in sane)

    def _words(self, window: Window) -> tuple[ToldLook, ...]:
        arenas = [one for one in self._all(kinds.AllocatorArena) if is_sane(one)]
        return tuple(
            ToldLook(seconds, total, tuple(one for one in arenas if one.look == total.look))
            for seconds, total in self._timed(kinds.AllocatorWords, window)[:MOST_LOOKS]
        )

    def _all(self, cls: type[T]) -> tuple[T, ...]:
        return tuple(self._lists.get(cls, ()))

    def _reading(self) -> Reading:
        reader = self._reader
        stores = self._series.values()
        others = (self._snapshots, self._heap, self._python, self._blocks)
        return Reading(
            complete=reader.complete,
            truncated=reader.truncated,
            records=reader.records,
            problems=tuple(dict.fromkeys(problem.message for problem in reader.problems)),
            problem_count=reader.problem_count,
            unknown_records=reader.unknown_records,
            left_out_records=self._left_out + sum(store.left_out for store in others),
            thinned=any(store.stride > 1 for store in stores),
            format_minor=reader.minor,
        )


def _last(lists: Lists, cls: type[T]) -> T | None:
    found = lists.get(cls)
    return found[-1] if found else None
