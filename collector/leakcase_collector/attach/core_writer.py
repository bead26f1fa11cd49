"""A core file of a running process: it stands still while its memory is copied, then goes on.

Written is what core(5) writes by default: private memory that was written to, in swap too (which
brings it back), anonymous shared memory, the first page of each program file. Memory that was never
touched is a hole. What files hold unchanged is not copied.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from leakcase_collector.errors import NotSupported, OutputError, OverBudget
from leakcase_collector.system import ptrace
from leakcase_collector.system.clock import monotonic_ns
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import PAGE_BYTES, MemoryMapping, ProcessMemory

from .core_contents import (
    SEGMENTS_MAX,
    ProcessNotes,
    Segment,
    ThreadNotes,
    headers,
    notes,
)
from .stopping import StoppedProcess, gone_only_if_ended

#: What fits into a processor's own cache: with 4 MB it takes three times as long.
_CHUNK_BYTES = 512 << 10
#: Pages of the kernel's that change or cannot be read; the vdso is kept, debuggers want it.
_NOT_READ = (b"[vvar", b"[vsyscall]")
_SHARED_MEMORY = (b"/dev/zero", b"/dev/shm/", b"/memfd:", b"/SYSV", b"[anon_shmem")

Span = tuple[int, int]


class Part(NamedTuple):
    """What is copied of one segment."""

    segment: Segment
    runs: list[Span]


class Written(NamedTuple):
    """The finished file."""

    size_bytes: int
    disk_bytes: int
    stopped_ns: int
    threads: int


def parts_of(memory: ProcessMemory, mappings: Sequence[MemoryMapping]) -> list[Part]:
    """What a core of this memory holds, mapping by mapping. Reads no page of it."""
    parts = []
    for mapping in mappings:
        if mapping.path.startswith(_NOT_READ[1]):
            continue
        runs = _runs(memory, mapping)
        size = runs[-1][1] - mapping.start if runs else 0
        parts.append(Part(Segment(mapping, size), runs))
    if len(parts) > SEGMENTS_MAX:
        raise NotSupported(
            f"no core file is written: the process has {len(parts)} mappings, more than are "
            "covered. Use gcore."
        )
    return parts


def _runs(memory: ProcessMemory, mapping: MemoryMapping) -> list[Span]:
    start, end, path = mapping.start, mapping.end, mapping.path
    if not mapping.readable or path.startswith(_NOT_READ):
        return []
    if path == b"[vdso]":
        return [(start, end)]
    is_file = path.startswith(b"/") and not path.startswith(_SHARED_MEMORY)
    if not mapping.is_private:
        return [] if is_file else memory.touched_runs(start, end)
    if not is_file:
        return memory.touched_runs(start, end)
    if path.startswith(b"/dev/"):
        return []
    # Of a file that was written to all is kept: what is not in the core would read as zeros.
    if memory.own_runs(start, end):
        return [(start, end)]
    return [] if mapping.offset else [(start, start + PAGE_BYTES)]


def write_core(system: System, identity: ProcessIdentity, fd: int, deadline_ns: int) -> Written:
    """Stop the process, write its core to `fd`, let it go. To be called apart (`run_apart`).

    OverBudget when it is not done by `deadline_ns`: the process goes on, the file is worth nothing.
    """
    with gone_only_if_ended(identity), ProcessMemory(system, identity) as memory:
        process = _process_notes(system, identity)
        stopped = StoppedProcess(system, identity.pid, deadline_ns)
        with stopped:
            identity.require_alive()
            mappings = memory.mappings()
            parts = parts_of(memory, mappings)
            threads = [
                _thread_notes(stopped, number)
                for number in sorted(stopped.threads, key=lambda one: (one != identity.pid, one))
            ]
            note = notes(process, threads, mappings)
            head, places = headers([part.segment for part in parts], len(note))
            _write(fd, head + note, 0)
            for part, place in zip(parts, places):
                _copy(memory, fd, part, place, deadline_ns)
            if parts:
                os.ftruncate(fd, places[-1] + parts[-1].segment.file_bytes)
        size, blocks = os.fstat(fd).st_size, os.fstat(fd).st_blocks
        return Written(size, blocks * 512, stopped.stopped_ns, len(threads))


def _copy(memory: ProcessMemory, fd: int, part: Part, place: int, deadline_ns: int) -> None:
    view = memoryview(bytearray(_CHUNK_BYTES))
    start = part.segment.mapping.start
    for low, high in part.runs:
        while low < high:
            if monotonic_ns() > deadline_ns:
                raise OverBudget(
                    "no core file was written: the process would have stood still for longer than "
                    "--max-pause, and was let go. Raise it, or write to a faster disk with -o."
                )
            size = min(high - low, _CHUNK_BYTES)
            count = memory.read_into(low, view[:size])
            # A page that cannot be read (beyond the end of its file) stays a hole.
            _write(fd, view[:count], place + low - start)
            low += count if count == size else -(-(count + 1) // PAGE_BYTES) * PAGE_BYTES


def _write(fd: int, content: bytes | memoryview, at: int) -> None:
    view = memoryview(content)
    try:
        while view:
            count = os.pwrite(fd, view, at)
            view, at = view[count:], at + count
    except OSError as error:
        raise OutputError(
            f"no core file was written: {os.strerror(error.errno or 0)}. Free some space, or "
            "choose another place with -o."
        ) from error


def _thread_notes(stopped: StoppedProcess, number: int) -> ThreadNotes:
    thread = stopped.threads[number]
    try:
        extended = ptrace.register_set(number, ptrace.NT_X86_XSTATE)
    except NotSupported:
        extended = None
    floating = ptrace.register_set(number, ptrace.NT_FPREGSET)
    general = ptrace.pack_registers(thread.registers)
    return ThreadNotes(number, thread.signal, general, floating, extended)


def _process_notes(system: System, identity: ProcessIdentity) -> ProcessNotes:
    folder = f"/proc/{identity.pid}"
    stat = identity.stat()
    owner = system.status(folder)
    return ProcessNotes(
        identity.pid,
        stat.field(4),
        stat.field(5),
        stat.field(6),
        owner.st_uid,
        owner.st_gid,
        stat.state,
        stat.comm,
        system.read_bytes(f"{folder}/cmdline").rstrip(b"\0"),
        system.read_bytes(f"{folder}/auxv"),
    )
