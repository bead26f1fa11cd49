"""Proportional and private shares of the whole process: /proc/PID/smaps_rollup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from leakcase_bundle.records import RollupSeries
from leakcase_collector.errors import NotSupported
from leakcase_collector.system.clock import monotonic_ns

from .base import Cadence, Context, Prediction, Probe
from .figures import whole

#: Keys of smaps_rollup, all in kB, by the column they go to (Documentation/filesystems/proc.rst).
COLUMNS: Mapping[bytes, str] = {
    b"Rss:": "rss_bytes",
    b"Pss:": "pss_bytes",
    b"Pss_Anon:": "pss_anon_bytes",
    b"Pss_File:": "pss_file_bytes",
    b"Pss_Shmem:": "pss_shmem_bytes",
    b"Private_Clean:": "private_clean_bytes",
    b"Private_Dirty:": "private_dirty_bytes",
    b"Shared_Clean:": "shared_clean_bytes",
    b"Shared_Dirty:": "shared_dirty_bytes",
    b"Anonymous:": "anonymous_bytes",
    b"AnonHugePages:": "huge_anonymous_bytes",
    b"Swap:": "swap_bytes",
    b"SwapPss:": "swap_pss_bytes",
    b"Locked:": "locked_bytes",
}
_PAGE_LOCK_NS = 90


def parse_rollup(content: bytes) -> dict[str, Optional[int]]:
    """The columns that this kernel offers; empty where the text has none of them."""
    out: dict[str, Optional[int]] = {}
    for line in content.split(b"\n"):
        words = line.split()
        if len(words) == 3 and words[2] == b"kB" and words[0] in COLUMNS:
            out[COLUMNS[words[0]]] = whole(words[1], 1024)
    return out


class RollupProbe(Probe):
    """What is shared with other processes and what is the target's alone."""

    name = "rollup"
    cadence = Cadence.PACED
    reads = "/proc/PID/smaps_rollup"
    needs = "Linux 4.14, and the target's user"
    # The walk gives the lock up whenever somebody waits for it (Linux 5.9).
    risk = "page faults of the target may wait while its page tables are walked"

    def __init__(self) -> None:
        self._is_offered = True

    def predict(self, context: Context) -> Prediction:
        """From the number of resident pages, whose page tables the kernel walks."""
        statm = context.system.read_bytes(f"/proc/{context.pid}/statm").split()
        pages = int(statm[1]) if len(statm) > 1 else 0
        lock_ns = 50_000 + pages * _PAGE_LOCK_NS
        return Prediction(cpu_ns=lock_ns + 50_000, lock_ns=lock_ns)

    def begin(self, context: Context, taken_ns: int) -> None:
        self.sample(context, taken_ns)

    def sample(self, context: Context, taken_ns: int) -> None:
        if not self._is_offered:
            return
        started_ns = monotonic_ns()
        try:
            content = context.system.read_bytes(f"/proc/{context.pid}/smaps_rollup")
        except NotSupported as error:
            self._is_offered = False
            context.gap(error, "smaps_rollup")
            return
        read_ns = monotonic_ns() - started_ns
        columns = parse_rollup(content)
        if columns:
            context.sample(RollupSeries, started_ns, read_ns=read_ns, **columns)

    def finish(self, context: Context, taken_ns: int) -> None:
        self.sample(context, taken_ns)
