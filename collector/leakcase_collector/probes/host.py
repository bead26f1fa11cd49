"""Memory and swap of the whole host, and its memory pressure."""

from __future__ import annotations

from typing import ClassVar, Optional

from leakcase_bundle.records import HostSeries
from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.system.clock import NS_PER_SECOND
from leakcase_collector.system.files import KeptFile

from .base import Cadence, Context, Prediction, Probe
from .figures import parse_pressure, whole

#: The host's figures say in what company the target lives; they need not be as dense as its own.
INTERVAL_NS = 5 * NS_PER_SECOND

_COLUMNS: dict[bytes, str] = {
    b"MemTotal": "total_bytes",
    b"MemAvailable": "available_bytes",
    b"MemFree": "free_bytes",
    b"Cached": "cached_bytes",
    b"AnonPages": "anonymous_bytes",
    b"Shmem": "shmem_bytes",
    b"Slab": "slab_bytes",
    b"SUnreclaim": "slab_unreclaimable_bytes",
    b"PageTables": "page_tables_bytes",
    b"KernelStack": "kernel_stack_bytes",
    b"SwapTotal": "swap_total_bytes",
    b"SwapFree": "swap_free_bytes",
    b"Committed_AS": "committed_bytes",
    b"HugePages_Total": "huge_pages_total",
    b"HugePages_Free": "huge_pages_free",
    b"Hugepagesize": "huge_page_bytes",
}


def parse_meminfo(content: bytes) -> dict[str, Optional[int]]:
    """The columns of `HostSeries` that the text has; MemAvailable came with Linux 3.14.

    See proc_meminfo(5). Counts of huge pages have no unit, all else is in KiB.
    """
    figures: dict[str, Optional[int]] = {}
    # What follows the last newline may be cut off.
    for line in content.split(b"\n")[:-1]:
        name, _, rest = line.partition(b":")
        column = _COLUMNS.get(name)
        if column is not None:
            number, _, unit = rest.strip().partition(b" ")
            figures[column] = whole(number, 1024 if unit == b"kB" else 1)
    return figures


class HostProbe(Probe):
    """A row of `HostSeries` at the start, every five seconds, and at the end."""

    name: ClassVar[str] = "host"
    cadence: ClassVar[Cadence] = Cadence.TICK
    reads: ClassVar[str] = "/proc/meminfo, /proc/pressure/memory: memory of the host"
    needs: ClassVar[str] = "nothing; pressure needs Linux 4.20"

    def __init__(self) -> None:
        self._meminfo: Optional[KeptFile] = None
        self._pressure: Optional[KeptFile] = None
        self._last_ns: Optional[int] = None

    def predict(self, context: Context) -> Prediction:
        # Measured: 150 us when it reads, which at one tick a second is at every fifth.
        return Prediction(cpu_ns=35_000)

    def begin(self, context: Context, taken_ns: int) -> None:
        self._meminfo = context.system.open_kept("/proc/meminfo")
        try:
            self._pressure = context.system.open_kept("/proc/pressure/memory")
            self._pressure.read()
        except (NotSupported, NotPermitted) as error:
            # Not built in, or present and switched off (psi=0): then the read fails.
            self._pressure = None
            context.gap(error, "pressure")

    def sample(self, context: Context, taken_ns: int) -> None:
        # Half an interval of tolerance: ticks come a little early or late.
        due_ns = INTERVAL_NS - context.interval_ns // 2
        if self._last_ns is None or taken_ns - self._last_ns >= due_ns:
            self._read(context, taken_ns)

    def finish(self, context: Context, taken_ns: int) -> None:
        if self._last_ns is None or taken_ns > self._last_ns:
            self._read(context, taken_ns)

    def _read(self, context: Context, taken_ns: int) -> None:
        if self._meminfo is None:
            return
        self._last_ns = taken_ns
        figures = parse_meminfo(self._meminfo.read())
        if self._pressure is not None:
            some, full = parse_pressure(self._pressure.read())
            figures.update(pressure_some_us=some, pressure_full_us=full)
        context.sample(HostSeries, taken_ns, **figures)
