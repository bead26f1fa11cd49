"""What every Python sample shares: a bounded run in exact time that states its own truth.

The same contract as common.h: ticks of 20 ms with absolute deadlines, one line of JSON at the
start and one at the end, after `--seconds N` (default 150) or SIGTERM. Runs on Python 3.9 and
later with nothing installed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import time
from collections.abc import Iterator

SECOND_NS = 1_000_000_000
TICK_NS = SECOND_NS // 50
DEFAULT_SECONDS = 150.0
LIMIT_BYTES = 1 << 30
_PR_SET_THP_DISABLE = 41  # prctl(2)


class Sample:
    """One run of a sample program."""

    def __init__(self, name: str) -> None:
        parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
        parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, metavar="N")
        seconds: float = parser.parse_args().seconds
        self._name = name
        self._tick = 0
        self._last_tick = int(seconds * SECOND_NS) // TICK_NS
        self._asked_to_stop = False
        self._ended = "time"
        _cap(resource.RLIMIT_AS, LIMIT_BYTES)
        _cap(resource.RLIMIT_CORE, 0)
        # Huge pages would make resident memory grow 2 MiB at a time where the host forces them.
        ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        print(json.dumps({"pid": os.getpid(), "sample": name}), flush=True)
        self._start_ns = time.monotonic_ns()

    def _on_sigterm(self, _signal_number: int, _frame: object) -> None:
        self._asked_to_stop = True

    def ticks(self) -> Iterator[None]:
        """Yields at each tick until the run is over; a late tick is caught up, never dropped."""
        while self._tick < self._last_tick:
            self._tick += 1
            wait_ns = self._start_ns + self._tick * TICK_NS - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(wait_ns / SECOND_NS)
            if self._asked_to_stop:
                self._ended = "signal"
                return
            yield

    def due(self, count: int, period_ns: int = SECOND_NS) -> int:
        """How many events must have happened by this tick, at `count` in each `period_ns`."""
        return self._tick * TICK_NS * count // period_ns

    def limit_reached(self) -> None:
        """Says that no more memory could be had: the run ends."""
        self._last_tick = self._tick
        self._ended = "limit"

    def end(self, leaked_bytes: int, leaked_count: int) -> None:
        """States the truth: resident bytes leaked, and in how many objects or blocks."""
        truth = {
            "sample": self._name,
            "leaked_bytes": leaked_bytes,
            "leaked_count": leaked_count,
            "elapsed_seconds": round((time.monotonic_ns() - self._start_ns) / SECOND_NS, 3),
            "ended": self._ended,
        }
        print(json.dumps(truth), flush=True)


def _cap(which: int, value: int) -> None:
    """Lowers (never raises) a resource limit's soft and hard value."""
    soft, hard = (
        value if limit == resource.RLIM_INFINITY else min(limit, value)
        for limit in resource.getrlimit(which)
    )
    resource.setrlimit(which, (soft, hard))
