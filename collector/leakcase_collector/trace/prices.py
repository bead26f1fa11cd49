"""What a watched call costs on this machine: tried out on ourselves, before the target pays it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from leakcase_collector.errors import CollectorError
from leakcase_collector.system.allocation_tracer import AllocationTracer
from leakcase_collector.system.clock import thread_cpu_ns
from leakcase_collector.system.door import System
from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.tracer_layout import TracerLimits
from leakcase_collector.system.uprobes import SESSION

from .entry_points import find_entry_points
from .schedule import Prices

#: What a watched return is expected to add to a call.
RETURN_NS = 1_400
#: What an allocation costs less that is passed over for its size: where its return need not be
#: watched, and where it is watched in vain. Measured as those above: 3.7 us a pair, 1.6 and 2.2.
PASSED_OVER_SAVES_NS, IN_VAIN_SAVES_NS = 1_700, 1_200
#: What opening and closing a window costs: instructions written, pages no longer shared.
WINDOW_NS = 200_000
_PAIRS = 1_000
_ROUNDS = 3
_TRIED = frozenset({"malloc", "free"})
#: What was measured is not believed beyond these shares of what was expected.
_LEAST, _MOST = 0.2, 10.0
_SMALL = TracerLimits(live_blocks=4096, sites=256, ring_bytes=65_536, threads=64)


def prices(points: Iterable[EntryPoint], method: Optional[str] = None) -> Prices:
    """What watching each call is expected to cost, by its dearest entry; `method` of attaching."""
    call_ns: dict[str, int] = {}
    for point in points:
        cost_ns = point.hit_ns + (RETURN_NS if point.return_probe else 0)
        call_ns[point.call] = max(call_ns.get(point.call, 0), cost_ns)
    saved_ns = PASSED_OVER_SAVES_NS if method == SESSION else IN_VAIN_SAVES_NS
    return Prices(call_ns, WINDOW_NS, saved_ns)


def measured_factor(system: System, method: Optional[str]) -> Optional[float]:
    """How many times what was expected malloc and free cost, watched; None where that cannot be
    tried: then what is expected has to do."""
    try:
        with (
            ProcessIdentity(system, os.getpid()) as identity,
            find_entry_points(system, identity, _TRIED) as found,
        ):
            points = [point for point in found.points if point.emulated]
            if {point.call for point in points} != _TRIED:
                return None
            return _try(points, method)
    except CollectorError:
        return None


def _try(points: Sequence[EntryPoint], method: Optional[str]) -> Optional[float]:
    work = _work()
    work()
    free_ns = min(work() for _ in range(_ROUNDS))
    with AllocationTracer(os.getpid(), points, method=method, limits=_SMALL) as tracer:
        tracer.arm()
        work()
        watched_ns = min(work() for _ in range(_ROUNDS))
        seen = tracer.counters().calls.get("malloc", 0)
    if seen < _ROUNDS * _PAIRS:
        return None
    expected = prices(points).call_ns
    factor = (watched_ns - free_ns) / _PAIRS / (expected["malloc"] + expected["free"])
    return min(max(factor, _LEAST), _MOST)


def _work() -> Callable[[], int]:
    """Allocates and frees `_PAIRS` blocks; returns the CPU time that took, ns."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = (ctypes.c_void_p,)
    malloc, free = libc.malloc, libc.free

    def work() -> int:
        started_ns = thread_cpu_ns()
        for _ in range(_PAIRS):
            free(malloc(40))
        return thread_cpu_ns() - started_ns

    return work
