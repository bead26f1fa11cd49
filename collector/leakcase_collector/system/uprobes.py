"""Four ways to have the kernel call our programs at places of one process's code.

What the kernel does is the same for all: a breakpoint in the process's private copy of the page,
and for a return a changed return address. They differ in what a call costs and in how many
descriptors are held. Closing the descriptors undoes it; they are held by a process of their own
(`held_apart`), which closes them when we are killed. A fork's copy of the process loses the
breakpoint when it first meets it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from leakcase_collector.errors import NotSupported
from leakcase_collector.system import bpf, perf_event
from leakcase_collector.system.bpf_object import BpfObject
from leakcase_collector.system.bpf_refusals import refused, with_detail
from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.system.held_apart import HeldApart, Until
from leakcase_collector.system.tracefs import TracefsEvent
from leakcase_collector.system.tracer_layout import cookie

SESSION, MULTI, PERF, TRACEFS = "uprobe-session", "uprobe-multi", "uprobe-perf", "uprobe-tracefs"
#: Words of the vocabulary ``attach_method``, the cheapest first.
METHODS = (SESSION, MULTI, PERF, TRACEFS)
#: Before it a multi link to a process saw the calls of its first thread only (46ba0e49b642 of
#: Linux, "bpf: Fix multi-uprobe PID filtering logic").
_MULTI_SINCE = (6, 10)
_SESSION_SINCE = (6, 13)


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


def prepare(method: str, programs: Programs) -> None:
    """Load what `method` needs, so that an attach finds it; NotSupported on older kernels."""
    if method == SESSION:
        _require(_SESSION_SINCE, method, "there are no such links")
        programs.descriptor("session", bpf.ATTACH_UPROBE_SESSION)
        programs.descriptor("entry", bpf.ATTACH_UPROBE_MULTI)
    elif method == MULTI:
        _require(_MULTI_SINCE, method, "they may see one thread only")
        programs.descriptor("entry", bpf.ATTACH_UPROBE_MULTI)
        programs.descriptor("at_return", bpf.ATTACH_UPROBE_MULTI)
    else:
        programs.descriptor("at_return", bpf.ATTACH_PERF)


def _require(release: tuple[int, int], method: str, otherwise: str) -> None:
    if kernel_release() < release:
        first, second = release
        raise with_detail(
            NotSupported(
                f"cannot attach by {method}: before Linux {first}.{second} {otherwise}. "
                "Use uprobe-perf."
            ),
            "uprobe",
        )


def attach(
    method: str,
    programs: Programs,
    points: Sequence[EntryPoint],
    pid: int,
    until: Until,
) -> HeldApart:
    """Have the programs called at `points` of process `pid`, whatever its thread.

    Releasing it returns when the process's code is as it was and none of our programs runs any
    more: for each descriptor the kernel waits until every CPU has passed a quiet point, 40 to
    100 ms.
    """
    _bring_in(points)
    if method in (PERF, TRACEFS):
        for point in points:
            programs.descriptor("entry_fixed", bpf.ATTACH_PERF, cookie(point))
    return HeldApart(lambda undo: _attach_all(method, programs, points, pid, undo), until)


def _attach_all(
    method: str, programs: Programs, points: Sequence[EntryPoint], pid: int, undo: ExitStack
) -> None:
    try:
        if method in (SESSION, MULTI):
            for path in sorted({point.path for point in points}):
                here = [point for point in points if point.path == path]
                for link in _links(method, programs, here, pid):
                    undo.callback(os.close, link)
        else:
            thread = living_thread(pid)
            for point in points:
                _attach_event(method, programs, point, thread, undo)
    except OSError as error:
        raise refused(error, f"attach by {method}", "uprobe") from error


def _bring_in(points: Sequence[EntryPoint]) -> None:
    """Read the code that is to be probed, so that the kernel finds its pages in memory.

    It reads what is missing with the process's memory map locked, a way that few ever went.
    """
    for point in points:
        with suppress(OSError), open(point.path, "rb") as file:
            os.pread(file.fileno(), 16, point.file_offset)


def _links(
    method: str, programs: Programs, points: Sequence[EntryPoint], pid: int
) -> Iterator[int]:
    """Descriptors for points in one file."""
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
    path = points[0].path
    kind = bpf.ATTACH_UPROBE_MULTI
    if calls:
        session = bpf.ATTACH_UPROBE_SESSION
        yield bpf.link_uprobes(programs.descriptor("session", session), session, path, calls, pid)
    if returns:
        program = programs.descriptor("at_return", kind)
        yield bpf.link_uprobes(program, kind, path, returns, pid, is_return=True)
    if entries:
        yield bpf.link_uprobes(programs.descriptor("entry", kind), kind, path, entries, pid)


def _attach_event(
    method: str, programs: Programs, point: EntryPoint, thread: int, undo: ExitStack
) -> None:
    wanted = [(False, programs.descriptor("entry_fixed", bpf.ATTACH_PERF, cookie(point)))]
    if point.return_probe:
        wanted.insert(0, (True, programs.descriptor("at_return", bpf.ATTACH_PERF)))
    for is_return, program in wanted:
        if method == PERF:
            event_fd = perf_event.uprobe_event(point.path, point.file_offset, is_return, thread)
        else:
            event = TracefsEvent(point.path, point.file_offset, is_return)
            undo.callback(event.remove)
            event_fd = perf_event.tracepoint_event(event.event_id, thread)
        undo.callback(os.close, event_fd)
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
