"""Watches one process's allocator from the kernel: counts, live blocks, stacks.

The programs are collector/bpf/; they keep the books, this is the way to them. Nothing is put into
the process before `attach`; leaving the `with` block, an exception, or our being killed takes all
of it out again.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from types import TracebackType
from typing import Optional

from leakcase_collector.errors import CollectorError, NotSupported
from leakcase_collector.system import tracer_layout as layout
from leakcase_collector.system.attachments import Attachments
from leakcase_collector.system.bpf import BpfMap
from leakcase_collector.system.bpf_object import load_object
from leakcase_collector.system.bpf_refusals import with_detail
from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.system.held_apart import HeldApart, Until
from leakcase_collector.system.process_filter import process_filter
from leakcase_collector.system.ring import RingReader, ring_size
from leakcase_collector.system.tracefs import remove_stale_events
from leakcase_collector.system.tracer_layout import (
    LiveBlock,
    SiteCounts,
    StackSample,
    TracerCounters,
    TracerLimits,
)
from leakcase_collector.system.uprobes import (
    METHODS,
    SESSION,
    TRACEFS,
    Programs,
    attach,
    prepare,
)

_FRESH_PROGRESS = layout.PROGRESS.pack(0, 0, 0, 0)


class AllocationTracer:
    """Loads programs and maps for process `pid`; see `attach`, `arm` and what reads.

    `method` forces one of `METHODS`; else they are tried in that order. With `python` the samples
    carry Python's frames too, once `set_python` said where they are. The probes are taken out
    some seconds after we were stopped, and by `until` though nobody asks; `is_watching` tells, and
    `arm` puts them in again. What it cannot do is an exception of the collector's with its
    `gap_detail` set.
    """

    def __init__(
        self,
        pid: int,
        points: Sequence[EntryPoint],
        *,
        method: Optional[str] = None,
        limits: TracerLimits = TracerLimits(),  # noqa: B008  (immutable)
        python: bool = False,
        until: Until = Until(),  # noqa: B008  (immutable)
    ) -> None:
        started_ns = time.monotonic_ns()
        self._maps: dict[str, BpfMap] = {}
        self._programs: Optional[Programs] = None
        self._ring: Optional[RingReader] = None
        self._attached = Attachments()
        self._pid = pid
        self._until = until
        self.limits = limits._replace(ring_bytes=ring_size(limits.ring_bytes))
        unknown = {point.call for point in points} - set(layout.CALLS)
        if unknown or not points:
            raise with_detail(
                NotSupported(
                    f"cannot watch the calls {sorted(unknown)}: no program knows their arguments. "
                    "Leave them out."
                ),
                "no-entry-point",
            )
        self._freeing = [p for p in points if p.call in layout.FREES + layout.MOVES]
        self._allocating = [p for p in points if p.call not in layout.FREES + layout.MOVES]
        self._generation = 0
        self._python_threads: set[int] = set()
        self._sizes = (0, layout.ANY_SIZE)
        self._event_cap = 0
        self._candidates = [method] if method else list(METHODS)
        self.method: Optional[str] = method
        self.attach_ns = 0
        self.detach_ns = 0
        try:
            self._load("_python" if python else "")
        except BaseException:
            self.close()
            raise
        self.load_ns = time.monotonic_ns() - started_ns

    def _load(self, suffix: str) -> None:
        compiled = load_object()
        entries = {
            "live": self.limits.live_blocks,
            "sites": self.limits.sites,
            "samples": self.limits.ring_bytes,
            "threads": self.limits.threads,
        }
        for name, shape in compiled.maps.items():
            flags = shape.flags
            if name == "live" and not self.limits.preallocated:
                flags |= 1
            wanted = shape._replace(max_entries=entries.get(name, shape.max_entries), flags=flags)
            self._maps[name] = BpfMap(name, wanted)
        descriptors = {name: made.fd for name, made in self._maps.items()}
        self._programs = Programs(compiled, descriptors, suffix)
        self._ring = RingReader(self._maps["samples"].fd, self.limits.ring_bytes)
        self._choose()

    def _choose(self, refusal: Optional[CollectorError] = None) -> None:
        """Take the first of the methods left whose programs this kernel loads.

        Where there is none, what was refused first is told: of the way that should have worked.
        """
        assert self._programs is not None
        while self._candidates:
            try:
                prepare(self._candidates[0], self._programs)
            except NotSupported as error:
                refusal = refusal or error
                self._candidates.pop(0)
            else:
                self.method = self._candidates[0]
                return
        assert refusal is not None
        raise refusal

    # Attaching

    def attach(self) -> int:
        """Watch all points; nothing is counted until `arm`. How long it took, ns.

        First what gives back: the other way round, blocks freed in between would seem to stay.
        """
        started_ns = time.monotonic_ns()
        refusal: Optional[CollectorError] = None
        while True:
            try:
                for group, points in (("frees", self._freeing), ("allocations", self._allocating)):
                    if group not in self._attached:
                        self._attached.remove(group)  # It may be half out.
                        self._attached.add(group, self._attach_group(points))
                break
            except NotSupported as error:
                refusal = refusal or error
                self._attached.clear()
                self._candidates.pop(0)
                self._choose(refusal)
            except BaseException:
                self._attached.clear()  # Half of what gives back would be worse than nothing.
                raise
        self.attach_ns = time.monotonic_ns() - started_ns
        return self.attach_ns

    def _attach_group(self, points: Sequence[EntryPoint]) -> HeldApart:
        assert self._programs is not None and self.method is not None
        if self.method == TRACEFS:
            remove_stale_events()
        wanted = [point for point in points if point not in self.left_out]
        return attach(self.method, self._programs, wanted, self._pid, self._until)

    def expect_signs(self, within_seconds: float) -> None:
        """What is put in from now on stays only while `is_watching` is asked so often."""
        self._until = self._until._replace(silent_seconds=within_seconds)

    def is_watching(self) -> bool:
        """Whether all that was put in still is; if not, what is counted may be wrong."""
        return self._attached.are_whole()

    @property
    def left_out(self) -> tuple[EntryPoint, ...]:
        """Points that this method must not watch: C++ functions that may throw.

        An exception cannot pass a watched return; only a session can leave the return of one call
        alone (it does so where 64 MiB or more are asked for, which may fail).
        """
        if self.method == SESSION:
            return ()
        return tuple(point for point in self._allocating if point.may_throw)

    def arm(
        self,
        min_bytes: int = 0,
        max_bytes: Optional[int] = None,
        event_cap: Optional[int] = None,
    ) -> int:
        """Count from now on, attaching where that is not done yet. How long it took, ns.

        Allocations of other sizes are passed over; frees of known blocks never are. After
        `event_cap` allocations the programs stop counting further ones by themselves.
        """
        started_ns = time.monotonic_ns()
        self.attach()
        self._sizes = (min_bytes, layout.ANY_SIZE if max_bytes is None else max_bytes)
        self._event_cap = event_cap or 0
        self._generation += 1
        self._maps["progress"].update(layout.ZERO, _FRESH_PROGRESS)
        self._control(allocations=False, frees=True)
        self._control(allocations=True, frees=True)
        return time.monotonic_ns() - started_ns

    def stop_allocations(self) -> int:
        """Count frees only, and take out what watches nothing else. How long it took, ns."""
        started_ns = time.monotonic_ns()
        self._control(allocations=False, frees=True)
        self._attached.remove("allocations")
        return time.monotonic_ns() - started_ns

    def detach(self) -> int:
        """Take everything out of the process; what was counted can still be read. Returns ns."""
        started_ns = time.monotonic_ns()
        if "control" in self._maps and self._maps["control"].fd >= 0:
            self._control(allocations=False, frees=False)
        self._attached.clear()
        self.detach_ns = time.monotonic_ns() - started_ns
        return self.detach_ns

    def _control(self, *, allocations: bool, frees: bool) -> None:
        device, inode, process = process_filter(self._pid)
        self._maps["control"].update(
            layout.ZERO,
            layout.CONTROL.pack(
                allocations, frees, *self._sizes, self._event_cap, device, inode, process,
                self.limits.stack_bytes, self.limits.key_bytes // 256, self._generation,
            ),
        )  # fmt: skip

    # What user space tells the programs

    def set_code_ranges(self, ranges: Iterable[tuple[int, int]]) -> None:
        """The executable mappings as [start, end): which words of a stack tell it from others."""
        self._maps["code_ranges"].update(layout.ZERO, layout.pack_code_ranges(ranges))

    def set_python(self, python_layout: bytes, threads: Mapping[int, int]) -> None:
        """``struct python_layout``, and the thread state of each thread by its number, as many as
        there is room for."""
        known = self._maps["python_threads"]
        threads = dict(islice(threads.items(), known.shape.max_entries))
        for tid in self._python_threads - set(threads):
            known.delete(struct.pack("<I", tid))
        for tid, address in threads.items():
            known.update(struct.pack("<I", tid), layout.ADDRESS.pack(address))
        self._python_threads = set(threads)
        self._maps["python_layout"].update(layout.ZERO, python_layout)

    # What was counted

    def drain(self, limit: Optional[int] = None) -> list[StackSample]:
        """The samples since the last call, `limit` at most.

        Each key is sampled once, or twice where two threads met it at one moment.
        """
        assert self._ring is not None
        found = []
        for record in self._ring.records():
            found.append(layout.unpack_sample(record))
            if limit is not None and len(found) >= limit:
                break
        return found

    def each_live(self) -> Iterator[LiveBlock]:
        """Blocks handed out while armed and not given back while watched, in no order.

        While the target is watched, one may come twice, or not at all if it is this moment's.
        """
        for keys, values in self._maps["live"].batches():
            yield from layout.unpack_blocks(keys, values)

    def live(self) -> list[LiveBlock]:
        """As `each_live`, each block once."""
        return list({block.address: block for block in self.each_live()}.values())

    def forget(self, addresses: Iterable[int]) -> None:
        """Take blocks out of `live` that are known to be gone."""
        for address in addresses:
            self._maps["live"].delete(layout.ADDRESS.pack(address))

    def sites(self) -> dict[int, SiteCounts]:
        """Sums by key since the tracer was made."""
        found: dict[int, SiteCounts] = {}
        for keys, values in self._maps["sites"].batches():
            found.update(layout.unpack_sites(keys, values))
        return found

    def _progress(self) -> tuple[int, ...]:
        value = self._maps["progress"].look_up(layout.ZERO)
        assert value is not None
        return layout.PROGRESS.unpack(value)

    def counters(self) -> TracerCounters:
        values = self._maps["counters"].look_up(layout.ZERO)
        assert values is not None and self._programs is not None
        return layout.unpack_counters(values, self._progress(), self._programs.missed_runs())

    # The end

    def close(self) -> None:
        """Detach and give everything back; a second call does nothing."""
        with ExitStack() as undo:
            for made in (*self._maps.values(), self._programs, self._ring):
                if made is not None:
                    undo.callback(made.close)
            self.detach()

    def __enter__(self) -> AllocationTracer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(CollectorError, OSError):
            self.close()
