"""Four ways to have the kernel call our programs at places of one process's code.

What the kernel does is the same for all: a breakpoint in the process's private copy of the page,
and for a return a changed return address. They differ in what a call costs and in how many
descriptors are held. Closing the descriptors undoes it, also when it is the kernel that closes them
because we were killed; a fork's copy loses the breakpoint when it first meets it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from leakcase_collector.errors import CollectorError, NotSupported
from leakcase_collector.system import bpf, perf_event
from leakcase_collector.system.bpf_object import BpfObject
from leakcase_collector.system.bpf_refusals import refused, with_detail
from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.system.tracefs import TracefsEvent
from leakcase_collector.system.tracer_layout import cookie

SESSION, MULTI, PERF, TRACEFS = "uprobe-session", "uprobe-multi", "uprobe-perf", "uprobe-tracefs"
#: Words of the vocabulary ``attach_method``, the cheapest first.
METHODS = (SESSION, MULTI, PERF, TRACEFS)
#: Before it a multi link to a process saw the calls of its first thread only (46ba0e49b642 of
#: Linux, "bpf: Fix multi-uprobe PID filtering logic").
_MULTI_SINCE = (6, 10)
_EBUSY_SECONDS = 5.0


class Programs:
    """The programs of an object, loaded when first asked for."""

    def __init__(self, compiled: BpfObject, maps: dict[str, int], suffix: str) -> None:
        self._object = compiled
        self._maps = maps
        self._suffix = suffix
        self._loaded: dict[tuple[str, int, int], int] = {}

    def descriptor(self, name: str, attach_type: int, fixed_cookie: int = 0) -> int:
        wanted = (name, attach_type, fixed_cookie)
        if wanted not in self._loaded:
            full = name + self._suffix
            program = self._object.programs.get(full) or self._object.programs[name]
            code = program.linked(self._maps, fixed_cookie)
            self._loaded[wanted] = bpf.load_program(name, code, self._object.licence, attach_type)
        return self._loaded[wanted]

    def missed_runs(self) -> int:
        return sum(bpf.missed_runs(fd) for fd in self._loaded.values())

    def close(self) -> None:
        for fd in self._loaded.values():
            os.close(fd)
        self._loaded.clear()


class Attachment:
    """Places that are being watched."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._events: list[TracefsEvent] = []

    def hold(self, fd: int) -> None:
        self._fds.append(fd)

    def hold_event(self, event: TracefsEvent) -> None:
        self._events.append(event)

    def close(self) -> None:
        """Returns when the process's code is as it was and none of our programs runs any more.

        For each descriptor the kernel waits until every CPU has passed a quiet point, 40 to 100 ms;
        so they are closed side by side.
        """
        fds, self._fds = self._fds, []
        others = [threading.Thread(target=os.close, args=(fd,)) for fd in fds[1:]]
        for thread in others:
            thread.start()
        for fd in fds[:1]:
            os.close(fd)
        for thread in others:
            thread.join()
        events, self._events = self._events, []
        deadline = time.monotonic() + _EBUSY_SECONDS
        for event in events:
            while True:
                try:
                    event.remove()
                    break
                except CollectorError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)


def prepare(method: str, programs: Programs) -> None:
    """Load what `method` needs, so that an attach finds it; NotSupported on older kernels."""
    if method == SESSION:
        programs.descriptor("session", bpf.ATTACH_UPROBE_SESSION)
        programs.descriptor("entry", bpf.ATTACH_UPROBE_MULTI)
    elif method == MULTI:
        if kernel_release() < _MULTI_SINCE:
            raise with_detail(
                NotSupported(
                    "cannot attach by uprobe-multi: before Linux 6.10 it may see one thread only. "
                    "Use uprobe-perf."
                ),
                "uprobe",
            )
        programs.descriptor("entry", bpf.ATTACH_UPROBE_MULTI)
        programs.descriptor("at_return", bpf.ATTACH_UPROBE_MULTI)
    else:
        programs.descriptor("at_return", bpf.ATTACH_PERF)


def attach(method: str, programs: Programs, points: Sequence[EntryPoint], pid: int) -> Attachment:
    """Have the programs called at `points` of process `pid`, whatever its thread."""
    made = Attachment()
    try:
        if method in (SESSION, MULTI):
            for path in sorted({point.path for point in points}):
                here = [point for point in points if point.path == path]
                _attach_links(method, programs, here, pid, made)
        else:
            thread = living_thread(pid)
            for point in points:
                _attach_event(method, programs, point, thread, made)
    except OSError as error:
        _undo(made)
        raise refused(error, f"attach by {method}", "uprobe") from error
    except BaseException:
        _undo(made)
        raise
    return made


def _undo(made: Attachment) -> None:
    with suppress(CollectorError):
        made.close()


def _attach_links(
    method: str, programs: Programs, points: Iterable[EntryPoint], pid: int, made: Attachment
) -> None:
    """Of points in one file."""
    calls: list[tuple[int, int]] = []
    entries: list[tuple[int, int]] = []
    returns: list[tuple[int, int]] = []
    for point in points:
        place = (point.file_offset, cookie(point))
        if method == SESSION and point.return_probe:
            calls.append(place)
        else:
            entries.append(place)
            if point.return_probe:
                returns.append(place)
    path = next(iter(points)).path
    kind = bpf.ATTACH_UPROBE_MULTI
    if calls:
        session = bpf.ATTACH_UPROBE_SESSION
        program = programs.descriptor("session", session)
        made.hold(bpf.link_uprobes(program, session, path, calls, pid))
    if returns:
        program = programs.descriptor("at_return", kind)
        made.hold(bpf.link_uprobes(program, kind, path, returns, pid, is_return=True))
    if entries:
        program = programs.descriptor("entry", kind)
        made.hold(bpf.link_uprobes(program, kind, path, entries, pid))


def _attach_event(
    method: str, programs: Programs, point: EntryPoint, thread: int, made: Attachment
) -> None:
    wanted = [(False, programs.descriptor("entry_fixed", bpf.ATTACH_PERF, cookie(point)))]
    if point.return_probe:
        wanted.insert(0, (True, programs.descriptor("at_return", bpf.ATTACH_PERF)))
    for is_return, program in wanted:
        if method == PERF:
            event_fd = perf_event.uprobe_event(point.path, point.file_offset, is_return, thread)
        else:
            event = TracefsEvent(point.path, point.file_offset, is_return)
            made.hold_event(event)
            event_fd = perf_event.tracepoint_event(event.event_id, thread)
        made.hold(event_fd)
        perf_event.set_program(event_fd, program)


def living_thread(pid: int) -> int:
    """A thread of the process that has not ended; `pid` itself where there is none.

    The first thread may end before the others, and then knows the address space no more.
    """
    with suppress(OSError):
        for name in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
            with suppress(OSError), open(f"/proc/{pid}/task/{name}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                    return int(name)
    return pid


def kernel_release() -> tuple[int, int]:
    """The first two numbers of uname's release."""
    first, _, rest = os.uname().release.partition(".")
    second = "".join(char for char in rest.partition(".")[0] if char.isdigit())
    return (int(first) if first.isdigit() else 0, int(second or 0))
