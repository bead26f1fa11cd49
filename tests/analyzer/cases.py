"""Cases built in code: what a capture of a process of known behaviour would have written.

    case = Capture(seconds=120)
    case.anonymous_bytes = case.leak(start=50 << 20, bytes_per_second=40_000)
    case.write(path)

Everything goes through the format's own writer, so what it refuses cannot be tested with.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leakcase_bundle import Writer
from leakcase_bundle import records as kinds
from leakcase_bundle.encoding import encode_map
from leakcase_bundle.schema import to_map
from leakcase_bundle.strings import (
    ArgumentToken,
    EnvironmentToken,
    LabelToken,
    NameToken,
    PathToken,
    VersionToken,
)

Values = NDArray[np.float64]

PAGE = 4096
MIB = 1 << 20
SECOND_NS = 1_000_000_000
START_NS = 1_000 * SECOND_NS
#: 2026-03-01 12:00:00 UTC.
WALL_NS = 1_772_366_400 * SECOND_NS
ROWS_A_RECORD = 60
RECORDS_A_FRAME = 8


@dataclass(frozen=True)
class Mapping:
    """One group of mappings at the start and at the end of the capture."""

    kind: str
    rss_start: float
    rss_end: float
    size_start: float | None = None
    size_end: float | None = None
    path: str | None = None
    name: str | None = None
    anonymous: bool = True


@dataclass
class Capture:
    """A process and how it behaved; every series may be replaced, None leaves it out."""

    seconds: int = 120
    interval_seconds: float = 1.0
    seed: int = 1
    name: str = "<name:1>"
    allocator: str | None = "glibc"
    runtime: str | None = None
    anonymous_bytes: Values | None = None
    swap_bytes: Values | None = None
    file_bytes: Values | None = None
    shared_bytes: Values | None = None
    virtual_bytes: Values | None = None
    threads: Values | None = None
    cpu_seconds: Values | None = None
    descriptors: dict[str, Values] = field(default_factory=dict)
    sockets: dict[str, Values] = field(default_factory=dict)
    cgroup: dict[str, Values] = field(default_factory=dict)
    host: dict[str, Values] = field(default_factory=dict)
    gpu_bytes: Values | None = None
    mappings: list[Mapping] = field(default_factory=list)
    extra: list[Any] = field(default_factory=list)
    end: str | None = "duration"
    finish: bool = True
    rewrite: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """What a stranger's writer would make of each record's map."""

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.t = np.arange(0, self.seconds + 1e-9, self.interval_seconds)
        self.anonymous_bytes = self.stable(50 * MIB)
        self.swap_bytes = self.constant(0)
        self.file_bytes = self.constant(8 * MIB)
        self.shared_bytes = self.constant(0)
        self.virtual_bytes = self.constant(400 * MIB)
        self.threads = self.constant(4)
        self.cpu_seconds = self.t * 0.05
        self.descriptors = {"total": self.constant(14), "files": self.constant(14)}

    # --- shapes ---------------------------------------------------------------------------------

    def constant(self, value: float) -> Values:
        return np.full(self.t.size, float(value))

    def stable(self, level: float, noise_pages: int = 3) -> Values:
        return level + PAGE * self.random.integers(0, noise_pages + 1, self.t.size).astype(float)

    def leak(self, start: float, bytes_per_second: float, noise_pages: int = 3) -> Values:
        grown = np.floor(self.t * bytes_per_second / PAGE) * PAGE
        values: Values = self.stable(start, noise_pages) + grown
        return values

    def filling_cache(self, start: float, full: float, fill_seconds: float) -> Values:
        return self.stable(start) + (full - start) * np.minimum(1.0, self.t / fill_seconds)

    def sawtooth(self, floor: float, height: float, period: float) -> Values:
        return self.stable(floor) + height * ((self.t % period) / period)

    def steps(self, start: float, per_second: float) -> Values:
        return start + np.floor(self.t * per_second)

    # --- writing --------------------------------------------------------------------------------

    def write(self, path: Path) -> Path:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            writer = Writer(descriptor)
            for number, record in enumerate(self.records()):
                raw = to_map(record)
                writer.add_encoded(encode_map(raw if self.rewrite is None else self.rewrite(raw)))
                if number % RECORDS_A_FRAME == 0:
                    writer.flush()
            if self.finish:
                writer.finish()
        finally:
            os.close(descriptor)
        return path

    def records(self) -> list[Any]:
        found: list[Any] = [self.header(), self.target(), *self.facts()]
        if not self.t.size:
            return found
        found += self.snapshot(0, 0.0, end=False)
        for first in range(0, self.t.size, ROWS_A_RECORD):
            found += self.rows(slice(first, first + ROWS_A_RECORD))
        found += self.gpu()
        found += self.snapshot(1, float(self.t[-1]), end=True)
        found += self.extra
        if self.end is not None:
            found.append(kinds.CaseEnd(self.at(self.t[-1]), self.end))
        return found

    def at(self, seconds: float) -> int:
        return START_NS + round(float(seconds) * SECOND_NS)

    def header(self) -> Any:
        return kinds.CaseHeader(
            format_major=1,
            format_minor=0,
            wall_ns=WALL_NS,
            monotonic_ns=START_NS,
            collector_version=VersionToken("0.1.0"),
            collector_build="source",
            python_version=VersionToken("3.11.2"),
            kernel_release=VersionToken("6.1.0-18-amd64"),
            machine="x86_64",
            page_size_bytes=PAGE,
            cpu_count=4,
            requested_duration_ns=self.seconds * SECOND_NS,
            interval_ns=round(self.interval_seconds * SECOND_NS),
            privileged=False,
            same_user=True,
            levels=["observe"],
        )

    def target(self, taken_seconds: float = 0.0, name: str | None = None) -> Any:
        return kinds.Target(
            taken_ns=self.at(taken_seconds),
            pid=4711,
            start_ticks=100,
            age_ns=3600 * SECOND_NS,
            name=NameToken(name or self.name),
            state="sleeping",
            parent_pid=1,
            threads=4,
            executable=PathToken("/usr/bin/program"),
        )

    def facts(self) -> list[Any]:
        found: list[Any] = []
        if self.allocator is not None:
            found.append(
                kinds.Allocator(
                    kind=self.allocator,
                    linkage="shared",
                    effective=True,
                    evidence="library",
                    version=VersionToken("2.36"),
                )
            )
        if self.runtime is not None:
            found.append(kinds.Runtime(kind=self.runtime, evidence="library"))
        return found

    def rows(self, part: slice) -> list[Any]:
        taken: list[int | None] = [self.at(t) for t in self.t[part]]
        if not taken:
            return []

        def cut(values: Values | None) -> list[int | None] | None:
            return column(values, part)

        anonymous, files = self.anonymous_bytes, self.file_bytes
        resident = None
        if anonymous is not None:
            resident = anonymous + self.or_zero(files) + self.or_zero(self.shared_bytes)
        found = [
            kinds.StatusSeries(
                taken_ns=taken,
                rss_bytes=cut(resident),
                rss_anon_bytes=cut(anonymous),
                rss_file_bytes=cut(files),
                rss_shmem_bytes=cut(self.shared_bytes),
                swap_bytes=cut(self.swap_bytes),
                virtual_bytes=cut(self.virtual_bytes),
                threads=cut(self.threads),
            ),
            kinds.StatSeries(
                taken_ns=taken,
                run_ns=cut(None if self.cpu_seconds is None else self.cpu_seconds * 1e9),
            ),
        ]
        for cls, columns in (
            (kinds.DescriptorSeries, self.descriptors),
            (kinds.SocketSeries, self.sockets),
            (kinds.CgroupSeries, self.cgroup),
            (kinds.HostSeries, self.host),
        ):
            if columns:
                found.append(cls(taken_ns=taken, **{k: cut(v) for k, v in columns.items()}))
        return found

    def or_zero(self, values: Values | None) -> Values:
        return self.constant(0) if values is None else values

    def snapshot(self, number: int, seconds: float, *, end: bool) -> list[Any]:
        if not self.mappings:
            return []
        taken = kinds.RegionSnapshot(
            snapshot=number,
            taken_ns=self.at(seconds),
            source="smaps",
            mappings=len(self.mappings),
            read_ns=1_000_000,
            complete=True,
        )
        return [taken, *(self.region(number, mapping, end) for mapping in self.mappings)]

    def region(self, number: int, mapping: Mapping, end: bool) -> Any:
        rss = int(mapping.rss_end if end else mapping.rss_start)
        size = mapping.size_end if end else mapping.size_start
        return kinds.Region(
            snapshot=number,
            kind=mapping.kind,
            count=1,
            size_bytes=rss if size is None else int(size),
            path=None if mapping.path is None else PathToken(mapping.path),
            name=None if mapping.name is None else NameToken(mapping.name),
            writable=True,
            executable=False,
            shared=False,
            rss_bytes=rss,
            swap_bytes=0,
            anonymous_bytes=rss if mapping.anonymous else 0,
        )

    def gpu(self) -> list[Any]:
        if self.gpu_bytes is None:
            return []
        return [
            kinds.GpuMemory(
                taken_ns=self.at(t),
                source="fdinfo",
                driver="amdgpu",
                region="vram",
                clients=1,
                resident_bytes=int(value),
            )
            for t, value in zip(self.t, self.gpu_bytes, strict=True)
        ]

    def keep_only_facts(self) -> None:
        """A capture that was killed before its first sample was written."""
        self.t = self.t[:0]

    # --- what happens during a capture ----------------------------------------------------------

    def mark(self, seconds: float, label: str) -> None:
        self.extra.append(kinds.Mark(self.at(seconds), LabelToken(label)))

    def event(self, seconds: float, what: str) -> None:
        self.extra.append(kinds.Event(self.at(seconds), what))

    def gap(self, probe: str, reason: str) -> None:
        self.extra.append(kinds.Gap(self.at(1), probe, reason))

    def setting(self, name: str, value_bytes: int) -> None:
        self.extra.append(
            kinds.Setting(
                source="arguments",
                name=ArgumentToken(name),
                value=EnvironmentToken(str(value_bytes)),
                value_bytes=value_bytes,
            )
        )

    def group(self, *, limit_bytes: int | None = None, other_processes: int = 0) -> None:
        self.extra.append(
            kinds.CgroupFacts(
                taken_ns=self.at(0),
                version=2,
                limit_bytes=limit_bytes,
                shared_with_processes=other_processes,
            )
        )


def column(values: Values | None, part: slice) -> list[int | None] | None:
    if values is None:
        return None
    return [None if np.isnan(v) else int(v) for v in values[part]]


def as_file(capture: Capture, folder: Path) -> io.BytesIO:
    return io.BytesIO(capture.write(folder / "built.leakcase").read_bytes())


def heap_leak(bytes_per_second: float = 40_009, **options: Any) -> Capture:
    """A plain native leak in the main heap."""
    case = Capture(**options)
    case.anonymous_bytes = case.leak(50 * MIB, bytes_per_second)
    grown = bytes_per_second * case.seconds
    case.mappings = [
        Mapping("main-heap", 40 * MIB, 40 * MIB + grown),
        Mapping("anonymous", 10 * MIB, 10 * MIB),
        Mapping("library-code", 8 * MIB, 8 * MIB, path="/usr/lib/libc.so.6", anonymous=False),
    ]
    return case
