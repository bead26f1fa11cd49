"""Threads: how many, how fast they come and go, and what they are called."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import ClassVar, NamedTuple, Optional

from leakcase_bundle.records import ThreadGroup, ThreadSeries
from leakcase_collector.errors import NotSupported
from leakcase_collector.system.clock import (
    CLOCK_TICKS_PER_SECOND,
    NS_PER_SECOND,
    thread_cpu_ns,
)

from .base import Cadence, Context, Prediction, Probe
from .figures import whole

MAX_NAMED_THREADS = 2_000
MAX_GROUPS = 64
#: The share of one CPU that listing the threads may take: one part in so many.
_LISTING_SHARE = 500

_DIGITS = re.compile(rb"[0-9]+")


class ThreadFigures(NamedTuple):
    """One thread: its name as the kernel has it, and the CPU time it used."""

    name: bytes
    cpu_ns: Optional[int]


def parse_thread(content: bytes) -> Optional[ThreadFigures]:
    """Fields 2, 14 and 15 of ``/proc/PID/task/TID/stat`` (proc_pid_stat(5)); None if not such.

    The name stands between the first "(" and the last ")" and may hold anything but NUL.
    """
    before, closing, after = content.rpartition(b")")
    _, opening, name = before.partition(b"(")
    if not (opening and closing):
        return None
    fields = after.split(None, 13)
    cpu_ns = None
    if len(fields) == 14:
        ticks = [whole(field, NS_PER_SECOND // CLOCK_TICKS_PER_SECOND) for field in fields[11:13]]
        cpu_ns = None if None in ticks else sum(tick for tick in ticks if tick is not None)
    return ThreadFigures(name, cpu_ns)


def fold_digits(name: bytes) -> bytes:
    """The name with each run of digits as one "#", so that worker-1 and worker-27 are one group."""
    return _DIGITS.sub(b"#", name)


def spread(items: list[str], limit: int) -> list[str]:
    """At most `limit` of the items, evenly from first to last: old and new are both seen."""
    if len(items) <= limit:
        return items
    return [items[index * len(items) // limit] for index in range(limit)]


class ThreadsProbe(Probe):
    """`ThreadSeries` a tick, `ThreadGroup`s at the start and at the end.

    The count is the directory's number of links and costs the same for any number of threads.
    Listing them, which tells new from old, costs in proportion (5,000 threads: 7 ms): it is put
    off for as long as keeps it under 0.2 % of a CPU, and in between `created` and `ended` are not
    known.
    """

    name: ClassVar[str] = "threads"
    cadence: ClassVar[Cadence] = Cadence.TICK
    reads: ClassVar[str] = "/proc/PID/task: number, names and CPU time of threads"

    def __init__(self) -> None:
        self._known: Optional[set[str]] = None
        self._list_again_ns = 0

    def predict(self, context: Context) -> Prediction:
        # Measured once a second: 35 us with few threads; the listing of many is spread over time
        # (see the class), their names at both ends cost 20 us a thread.
        return Prediction(cpu_ns=35_000)

    def begin(self, context: Context, taken_ns: int) -> None:
        self._emit_groups(context, taken_ns)

    def finish(self, context: Context, taken_ns: int) -> None:
        self._emit_groups(context, taken_ns)

    def sample(self, context: Context, taken_ns: int) -> None:
        directory = f"/proc/{context.pid}/task"
        # Two links of its own and one for each thread (proc_task_getattr in fs/proc/base.c).
        alive: Optional[int] = context.system.status(directory).st_nlink - 2
        created: Optional[int] = None
        ended: Optional[int] = None
        if taken_ns >= self._list_again_ns:
            began_ns = thread_cpu_ns()
            tasks = set(context.system.list_directory(directory))
            if self._known is not None:
                created, ended = len(tasks - self._known), len(self._known - tasks)
            self._known = tasks
            alive = len(tasks)
            self._list_again_ns = taken_ns + (thread_cpu_ns() - began_ns) * _LISTING_SHARE
        context.sample(ThreadSeries, taken_ns, alive=alive, created=created, ended=ended)

    def _emit_groups(self, context: Context, taken_ns: int) -> None:
        groups = self._groups(context)
        largest = sorted(groups.items(), key=lambda item: -len(item[1]))
        for name, members in largest[:MAX_GROUPS]:
            known = [thread.cpu_ns for thread in members if thread.cpu_ns is not None]
            context.emit(
                ThreadGroup(
                    taken_ns=taken_ns,
                    name=context.redactor.name(name.decode("utf-8", "surrogateescape")),
                    count=len(members),
                    cpu_ns=sum(known) if known else None,
                )
            )
        left_out = sum(len(members) for _, members in largest[MAX_GROUPS:])
        if left_out:
            context.loss("threads", left_out)

    def _groups(self, context: Context) -> dict[bytes, list[ThreadFigures]]:
        """The threads alive by their folded names; the number of those passed over is a loss."""
        directory = f"/proc/{context.pid}/task"
        tasks = context.system.list_directory(directory)
        chosen = spread(tasks, MAX_NAMED_THREADS)
        if len(chosen) < len(tasks):
            context.loss("threads", len(tasks) - len(chosen))
        main = parse_thread(context.system.read_bytes(f"/proc/{context.pid}/stat"))
        groups: dict[bytes, list[ThreadFigures]] = defaultdict(list)
        for task in chosen:
            try:
                thread = parse_thread(context.system.read_bytes(f"{directory}/{task}/stat"))
            except NotSupported:
                continue  # it ended meanwhile
            if thread is not None:
                # A thread that nobody named bears the name of its process, which is often its
                # program's (python3.11): unfolded it can be recognised as such.
                is_named = main is None or thread.name != main.name
                groups[fold_digits(thread.name) if is_named else thread.name].append(thread)
        return groups
