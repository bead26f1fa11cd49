"""All threads of a process, stopped together, for as short as can be.

Only in a process of its own (`run_apart`): should that end, the kernel lets go of every thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Optional

from leakcase_collector.errors import (
    CollectorError,
    LimitReached,
    NotSupported,
    OverBudget,
    TargetGone,
)
from leakcase_collector.system import ptrace
from leakcase_collector.system.clock import NS_PER_SECOND, monotonic_ns
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity

#: A thread that is to stop does so within microseconds, unless the host is busy.
_SPIN_NS = 200_000
_NAP_SECONDS = 50e-6
_RELEASE_NS = NS_PER_SECOND // 2
_MAX_ROUNDS = 50


@dataclass
class StoppedThread:
    """One thread as it stands. `signal` was about to be delivered to it, and will be."""

    thread_id: int
    kind: str
    signal: int = 0
    registers: dict[str, int] = field(default_factory=dict)


class StoppedProcess:
    """Stops all threads on entering and lets them go on leaving. `stopped_ns`: how long they stood.

    OverBudget when they do not all stop before `deadline_ns` (monotonic); NotPermitted, TargetGone.
    """

    def __init__(self, system: System, pid: int, deadline_ns: int) -> None:
        ptrace.require_machine()
        self._system = system
        self.pid = pid
        self.deadline_ns = deadline_ns
        self.threads: dict[int, StoppedThread] = {}
        self._running: set[int] = set()
        self._since_ns: Optional[int] = None
        self.stopped_ns = 0

    def __enter__(self) -> StoppedProcess:
        try:
            self.stop()
        except CollectorError:
            self.release()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        self.release()

    @property
    def is_stopped_by_signal(self) -> bool:
        """Whether a stop signal held the process already: then its threads must not run."""
        return any(thread.kind == "group" for thread in self.threads.values())

    def stop(self) -> None:
        """Stop whatever of it runs, threads that were born meanwhile included."""
        if self._since_ns is None:
            self._since_ns = monotonic_ns()
        for _ in range(_MAX_ROUNDS):
            fresh = self._seize_new()
            for thread_id in sorted(self._running):
                with suppress(TargetGone):
                    ptrace.interrupt(thread_id)
            self._await(set(self._running), self.deadline_ns)
            if not fresh:
                break
        else:
            raise LimitReached(
                f"cannot stop process {self.pid}: it makes threads faster than they can be "
                "stopped. Try again, or do without this source."
            )
        if not self.threads:
            raise TargetGone(f"process {self.pid} has ended. What was recorded so far is kept.")

    def _seize_new(self) -> bool:
        found = {int(name) for name in self._system.list_directory(f"/proc/{self.pid}/task")}
        fresh = found - set(self.threads) - self._running
        for thread_id in sorted(fresh):
            with suppress(TargetGone):  # the thread, not the process
                ptrace.seize(thread_id)
                self._running.add(thread_id)
        return bool(fresh)

    def _await(self, wanted: set[int], deadline_ns: int) -> None:
        started_ns = monotonic_ns()
        while wanted:
            for thread_id in list(wanted):
                found = ptrace.poll(thread_id)
                if found is not None:
                    wanted.discard(thread_id)
                    self._note(thread_id, found)
            now = monotonic_ns()
            if wanted and now > deadline_ns:
                raise OverBudget(
                    f"process {self.pid} was let go again: {len(wanted)} of its threads did not "
                    "stop in time. Try again when the host is less busy, or raise --max-pause."
                )
            if wanted and now - started_ns > _SPIN_NS:
                time.sleep(_NAP_SECONDS)

    def _note(self, thread_id: int, found: ptrace.Stop) -> None:
        self._running.discard(thread_id)
        if found.kind == "gone":
            self.threads.pop(thread_id, None)
            return
        number = found.number if found.kind == "signal" else 0
        with suppress(TargetGone):  # killed since
            self.threads[thread_id] = StoppedThread(
                thread_id, found.kind, number, ptrace.registers(thread_id)
            )

    def let_run(self, thread_ids: Iterable[int]) -> None:
        """Let these run for a moment, while the others stand; `stop` stops them again."""
        for thread_id in list(thread_ids):
            thread = self.threads.pop(thread_id)
            with suppress(TargetGone):
                ptrace.resume(thread_id, thread.signal)
                self._running.add(thread_id)

    def release(self, but: Optional[int] = None) -> None:
        """Let all go for good, `but` one; its own stop, if it has any, is then its keeper's."""
        with suppress(CollectorError):
            for thread_id in self._running:
                with suppress(TargetGone):
                    ptrace.interrupt(thread_id)
            self._await(set(self._running), monotonic_ns() + _RELEASE_NS)
        for thread in list(self.threads.values()):
            if thread.thread_id != but:
                with suppress(TargetGone):
                    ptrace.detach(thread.thread_id, thread.signal)
                del self.threads[thread.thread_id]
        if self._since_ns is not None:
            self.stopped_ns += monotonic_ns() - self._since_ns
            self._since_ns = None


@contextmanager
def gone_only_if_ended(identity: ProcessIdentity) -> Iterator[None]:
    """ptrace(2) says "no such process" of a thread that ended, too: that is no TargetGone."""
    try:
        yield
    except TargetGone as error:
        identity.require_alive()
        raise CollectorError(
            f"a thread of process {identity.pid} ended while it was stopped. Try again."
        ) from error


def require_untouched(system: System, pid: int) -> None:
    """NotSupported where stopping it, or running a function in it, is not known to be harmless.

    Another tracer, a seccomp filter (which may answer a system call that the program itself never
    makes with its death), shadow stacks, a process that a stop signal holds.
    """
    fields: dict[str, str] = {}
    for line in system.read_text(f"/proc/{pid}/status").splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    reasons = (
        (fields.get("TracerPid", "0") != "0", "a debugger or another tracer holds it"),
        (fields.get("Seccomp", "0") != "0", "a seccomp filter guards its system calls"),
        ("shstk" in fields.get("x86_Thread_features", ""), "it runs with shadow stacks"),
        (fields.get("State", "R")[:1] in "Tt", "it is stopped"),
    )
    for applies, reason in reasons:
        if applies:
            raise NotSupported(
                f"no function is run in process {pid}: {reason}, so that it is not known to be "
                "harmless. heap-census reads the same without touching the process."
            )
