"""A core file beside the case, for what only a whole copy of the memory can answer."""

from __future__ import annotations

import os
import re
from typing import Any, Optional

from leakcase_bundle.records import CoreDump
from leakcase_collector.errors import (
    CollectorError,
    LimitReached,
    NotSupported,
    OutputError,
    OverBudget,
)
from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND, monotonic_ns
from leakcase_collector.system.door import System
from leakcase_collector.system.ownership import (
    create_private_file,
    create_unnamed_file,
    name_file,
)

from .base import Cadence, CaptureOptions, Context, Prediction, Probe

#: Copied into the page cache; once that is full of what is not on the disk yet, the disk's speed.
_CACHED_BYTES_PER_SECOND, _DISK_BYTES_PER_SECOND = 600 << 20, 100 << 20
#: vm.dirty_ratio's default share of the memory that is available.
_CACHE_SHARE = 5
_STOP_NS, _THREAD_NS = 10 * NS_PER_MS, 200_000
_CPU_NS_PER_MIB = 700_000
#: What must be left on the disk: it is others' as well.
_MARGIN_BYTES, _MARGIN_SHARE = 256 << 20, 20
_LATE_SECONDS = 1.0
_FIGURE = re.compile(r"^(RssAnon|RssShmem|VmSwap|Threads):\s+(\d+)", re.MULTILINE)
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


class CoreDumpProbe(Probe):
    """All of the target's own memory, copied while it stands still. For a later look at leisure."""

    name = "core-dump"
    level = "dump"
    cadence = Cadence.END
    reads = "all memory of the target that is its own, into a file beside the case, mode 0600"
    needs = "ptrace permission, x86-64, room on the disk, and a --max-pause that allows it"
    risk = (
        "the target stands still until all is copied, what is in swap comes back into memory, "
        "and the file holds every secret that the memory holds: it never belongs into a ticket"
    )
    stops_target = True
    opt_in = True

    def __init__(self) -> None:
        self._limit_ns = 2 * NS_PER_SECOND
        self._path: Optional[str] = None
        self._written: Optional[str] = None

    def configure(self, options: CaptureOptions) -> None:
        self._limit_ns = options.max_pause_ns
        if options.case_path is not None:
            self._path = core_path(options.case_path)

    def predict(self, context: Context) -> Prediction:
        size, threads = _memory(context.system, context.pid)
        cached = min(size, _available_bytes(context.system) // _CACHE_SHARE)
        stop_ns = _STOP_NS + threads * _THREAD_NS
        stop_ns += cached * NS_PER_SECOND // _CACHED_BYTES_PER_SECOND
        stop_ns += (size - cached) * NS_PER_SECOND // _DISK_BYTES_PER_SECOND
        return Prediction(cpu_ns=(size >> 20) * _CPU_NS_PER_MIB, stop_ns=stop_ns)

    def toll(self) -> Optional[str]:
        where = "" if self._path is None else f" {self._path}"
        return f"a core file{where} as large as its memory; --max-pause bounds the stop"

    def left_behind(self) -> Optional[str]:
        return self._written

    def finish(self, context: Context, taken_ns: int) -> None:
        if self._path is None:
            raise NotSupported("no core file is written: there is no case to put it beside.")
        predicted_bytes, _ = _memory(context.system, context.pid)
        _require_room(self._path, predicted_bytes)
        written = self._write(context, self._path)
        context.stopped(written["stopped_ns"])
        self._written = self._path
        context.emit(
            CoreDump(
                taken_ns,
                context.redactor.path(os.path.abspath(self._path)),
                predicted_bytes=predicted_bytes,
                predicted_stop_ns=self.predict(context).stop_ns,
                **written,
            )
        )

    def _write(self, context: Context, path: str) -> dict[str, Any]:
        from leakcase_collector.attach.core_writer import write_core
        from leakcase_collector.system.apart import run_apart

        fd = create_unnamed_file(os.path.dirname(path))
        is_named = fd is None
        fd = create_private_file(path) if fd is None else fd
        try:
            system, identity, limit_ns = context.system, context.identity, self._limit_ns
            written: dict[str, Any] = run_apart(
                lambda: write_core(system, identity, fd, monotonic_ns() + limit_ns)._asdict(),
                limit_ns / NS_PER_SECOND + _LATE_SECONDS,
                obeys_stop=True,
            )
            if not is_named:
                name_file(fd, path)
            return written
        except (CollectorError, OSError) as error:
            if is_named:
                os.unlink(path)
            if isinstance(error, OutputError):  # of the core's, not of the case's
                raise OverBudget(str(error)) from error
            if isinstance(error, LimitReached):
                raise LimitReached(f"no core file was written: {error}") from error
            raise
        finally:
            os.close(fd)


def core_path(case_path: str) -> str:
    """The core's place: the case's name with .core."""
    stem = case_path[: -len(".leakcase")] if case_path.endswith(".leakcase") else case_path
    return f"{stem}.core"


def _memory(system: System, pid: int) -> tuple[int, int]:
    """Bytes that a core would hold, and threads (proc_pid_status(5)).

    Kernels before 4.5 tell no RssAnon: all of the resident set is taken then.
    """
    status = system.read_text(f"/proc/{pid}/status")
    found = {name: int(value) for name, value in _FIGURE.findall(status)}
    size = 1024 * sum(found.get(name, 0) for name in ("RssAnon", "RssShmem", "VmSwap"))
    return size, found.get("Threads", 1)


def _available_bytes(system: System) -> int:
    found = _AVAILABLE.search(system.read_text("/proc/meminfo"))
    return 1024 * int(found.group(1)) if found else 0


def _require_room(path: str, size_bytes: int) -> None:
    """OverBudget where the disk has no room for it and for what others write meanwhile."""
    disk = os.statvfs(os.path.dirname(path) or ".")
    free = disk.f_bavail * disk.f_frsize
    margin = max(_MARGIN_BYTES, disk.f_blocks * disk.f_frsize // _MARGIN_SHARE)
    if free < size_bytes + margin:
        raise OverBudget(
            f"no core file is written: it needs about {size_bytes >> 20} MiB, and of the "
            f"{free >> 20} MiB that are free on its disk {margin >> 20} MiB are to stay so. Choose "
            "another place with -o."
        )
