"""Making the collector cheap for its host: last for CPU and disk, first for the OOM killer."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from .clock import NS_PER_MS, own_turns
from .door import System

NICE_INCREMENT = 10
#: For who cannot take it back: a third of a turn on a busy core, where 10 leaves a tenth.
NICE_FOR_GOOD = 5
OOM_SCORE_ADJ = 1000
_OOM_SCORE_FILE = "/proc/self/oom_score_adj"
#: It waited for so long, and so many times as long as it ran: the host leaves it no turns.
WAITED_NS = 100 * NS_PER_MS
WAITED_TIMES = 3

#: ioprio_set by machine (arch/*/entry/syscalls, include/uapi/asm-generic/unistd.h).
_IOPRIO_SET = {
    "x86_64": 251,
    "i686": 289,
    "aarch64": 30,
    "armv7l": 314,
    "ppc64le": 273,
    "riscv64": 30,
    "s390x": 282,
}
# ioprio_set(2): class in the bits above 13; class 3 is idle; who 1 is "one process".
_IOPRIO_IDLE = 3 << 13
_IOPRIO_WHO_PROCESS = 1


class Priority(NamedTuple):
    """What was achieved; None where the kernel refused, so that it stayed as it was."""

    nice: int | None
    is_batch: bool
    is_io_idle: bool
    oom_score_adj: int | None
    is_core_free: bool


def yield_to_host() -> Priority:
    """Lower this process's priority (and that of every command it runs) as far as it may.

    No step needs a privilege, none can be taken back without one, and none raises.
    """
    return Priority(_lower_nice(), _choose_batch(), _lower_io(), _volunteer(), _forbid_cores())


#: The nice value before it was raised.
_former_nice: list[int] = []


@contextmanager
def in_a_hurry() -> Iterator[None]:
    """For moments in which the target pays for how long we take: as we were before we yielded.

    On a busy host the last in line may wait for seconds. Only with CAP_SYS_NICE can it be had;
    without, nothing changes.
    """
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        with suppress(OSError):
            if _former_nice:
                os.setpriority(os.PRIO_PROCESS, 0, _former_nice[0])
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        yield
    finally:
        with suppress(OSError):
            if _former_nice:
                os.setpriority(os.PRIO_PROCESS, 0, nice)
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Turns:
    """Notices that a busy host leaves no turns to the last in line, and gets back into it.

    Looks would take minutes there, and what they tell of would lie far apart. What the collector
    may use is bounded by itself, so that it need not be held up as well. Only with CAP_SYS_NICE,
    and it stays SCHED_BATCH: it waits for its turn, and takes nobody's.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._before = own_turns(system)
        self._is_starved = False

    def look(self) -> None:
        """To be called often: gets back where it waited too much since any call before."""
        before, self._before = self._before, own_turns(self._system)
        if before is not None and self._before is not None:
            ran_ns, waited_ns = (now - then for now, then in zip(self._before, before))
            starves = waited_ns >= max(WAITED_NS, WAITED_TIMES * ran_ns)
            self._is_starved = self._is_starved or starves
        if self._is_starved and _former_nice:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, _former_nice[0])


def _lower_nice() -> int | None:
    former = os.getpriority(os.PRIO_PROCESS, 0)
    if _former_nice:
        return former  # Once: twice would be the lowest there is.
    try:
        lowered = os.nice(NICE_FOR_GOOD)
    except OSError:
        return None
    _former_nice.append(former)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, former)
        lowered = os.nice(NICE_INCREMENT)
    return lowered


def _choose_batch() -> bool:
    # SCHED_BATCH: never pre-empts the target on wake-up (sched(7)).
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        return False
    return True


def _lower_io() -> bool:
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is None:
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE) == 0)


def _volunteer() -> int | None:
    # Raising one's own score is always allowed (proc_pid_oom_score_adj(5)).
    try:
        with open(_OOM_SCORE_FILE, "w", encoding="ascii") as file:
            file.write(str(OOM_SCORE_ADJ))
    except OSError:
        return None
    return OOM_SCORE_ADJ


def volunteer_no_more() -> None:
    """For a process of ours that must live to undo what it does: the OOM killer shall take others
    first. Where it may not be had, nothing changes."""
    with suppress(OSError), open(_OOM_SCORE_FILE, "w", encoding="ascii") as file:
        file.write("0")


def _forbid_cores() -> bool:
    """No core file of ours: it would hold what we read of the target.

    A limit of 0 does not stop a core_pattern that is a pipe; the value 1 does, and is too small
    for a file as well (the "limit == 1" branch in fs/coredump.c).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if hard == 0 else 1
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    except (OSError, ValueError):
        return False
    return True
