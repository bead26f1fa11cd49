"""What the capture may cost, and how the probes are slowed down to stay within it.

Two things are bounded: the collector's own CPU (`CPU_SHARE` of one core), and the time for which
reading holds the target's mmap lock (a tenth of ``--max-slowdown``), because the target's page
faults and mappings wait for that lock. Probes that read one small file run at every interval;
dearer ones are paced: after each call they rest long enough that their share is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .probes.base import ASSUMED_NS
from .system.clock import NS_PER_SECOND

#: Of one core, for all probes together after the start.
CPU_SHARE = 0.005
#: Of one core, for each paced probe.
PACED_CPU_SHARE = 0.0008
#: Of --max-slowdown, for the time in which the target's mmap lock is held by a read.
LOCK_SHARE = 0.1

PACED_FLOOR_NS = 5 * NS_PER_SECOND
#: Paced probes also thin out with the capture's age, so that a day's case stays small.
PACED_AGE_SHARE = 0.05

#: Of a core, over the whole capture, for a look that is taken early since another probe needs it.
_LEARNERS_SHARE = 0.002
#: Two tell what grew, and a third whether that was but the start of its work.
ENOUGH_LOOKS = 3
_NEXT_LOOK_AT, _NEXT_LOOK_LATEST_NS = 1 / 8, 30 * NS_PER_SECOND

#: Above these the capture gives up what costs it, in this order.
MEMORY_LIMIT_BYTES = 64 << 20
CASE_LIMIT_BYTES = 64 << 20

_WINDOW_NS = 10 * NS_PER_SECOND
MAX_INTERVAL_NS = 60 * NS_PER_SECOND


def rest_ns(cpu_ns: int, lock_ns: int, age_ns: int, max_slowdown: float) -> int:
    """How long a paced probe rests after a call that cost this much.

    `age_ns` is the time since the capture began, `max_slowdown` a share of the target's time.
    """
    return max(
        PACED_FLOOR_NS,
        int(cpu_ns / PACED_CPU_SHARE),
        int(lock_ns / max(LOCK_SHARE * max_slowdown, 1e-6)),
        int(age_ns * PACED_AGE_SHARE),
    )


def rest_for_learners_ns(pause_ns: int, cpu_ns: int, duration_ns: Optional[int]) -> int:
    """How long a probe from which another learns rests after one of its first looks, which cost
    `cpu_ns`: `pause_ns`, as by itself, or less where a further look is not too dear."""
    whole_ns = ASSUMED_NS if duration_ns is None else duration_ns
    if cpu_ns > _LEARNERS_SHARE * whole_ns:
        return pause_ns
    early_ns = max(PACED_FLOOR_NS, int(_NEXT_LOOK_AT * whole_ns))
    return min(pause_ns, early_ns, _NEXT_LOOK_LATEST_NS)


def flush_after_ns(age_ns: int) -> int:
    """How long records are kept in memory: seconds at first, so that a kill costs little; a
    minute or two in a long capture, because each frame repeats the columns' names."""
    return min(max(age_ns // 10, 2 * NS_PER_SECOND), 120 * NS_PER_SECOND)


@dataclass
class CpuBudget:
    """Watches the collector's own CPU and says when the interval must grow."""

    started_ns: int
    cpu_at_start_ns: int

    def __post_init__(self) -> None:
        self._window_start_ns = self.started_ns
        self._window_cpu_ns = self.cpu_at_start_ns

    def is_exceeded(self, now_ns: int, cpu_ns: int) -> bool:
        """Whether the last window of ten seconds or more cost too much; starts a new window."""
        wall = now_ns - self._window_start_ns
        if wall < _WINDOW_NS:
            return False
        share = (cpu_ns - self._window_cpu_ns) / wall
        self._window_start_ns, self._window_cpu_ns = now_ns, cpu_ns
        return share > CPU_SHARE
