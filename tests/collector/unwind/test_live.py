"""Stacks of running processes: their files opened as they are mapped, wherever they are by now."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from leakcase_collector.heap.roots import parse_syscall
from leakcase_collector.probes.subject import LiveSubject
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.unwind.machines import MACHINES
from leakcase_collector.unwind.modules import CodeModules
from leakcase_collector.unwind.unwinder import Frame, Unwinder, UnwoundStack
from tests.collector.system.started import needs_root, started, wait_until
from tests.collector.unwind.stepped import build

STACK_BYTES = 16 * 1024


def stacks(pid: int) -> dict[int, tuple[UnwoundStack, list[Frame]]]:
    """Of each thread, which must wait in a system call; its other registers are not told."""
    system, machine = System(), MACHINES[os.uname().machine]
    subject = LiveSubject(system, pid, ProcessIdentity(system, pid))
    found = {}
    with CodeModules(subject) as modules, subject.memory() as memory:
        unwinder = Unwinder(modules)
        for tid in map(int, system.list_directory(f"/proc/{pid}/task")):
            state = parse_syscall(system.read_bytes(f"/proc/{pid}/task/{tid}/syscall"))
            assert state.stack_pointer is not None
            registers = {
                machine.stack_pointer: state.stack_pointer,
                machine.program_counter: state.words[-1],
            }
            stack = bytearray(STACK_BYTES)
            size = memory.read_into(state.stack_pointer, memoryview(stack))
            copied = bytes(stack[:size])
            unwound = unwinder.unwind(registers, state.stack_pointer, copied, after_call=False)
            found[tid] = unwound, unwinder.frames(unwound)
    return found


def waits(pid: int) -> bool:
    """Whether both threads have come to their system call."""
    folder = Path(f"/proc/{pid}/task")
    words = [(one / "syscall").read_text().split() for one in folder.iterdir()]
    return len(words) == 2 and all(len(word) == 9 for word in words)


def of_the_program(frames: Sequence[Frame], program: Path) -> list[Frame]:
    return [frame for frame in frames if frame.module and frame.module.path == str(program)]


@pytest.mark.parametrize("options", [[], ["-static", "-no-pie"], ["-static-pie"]])
def test_every_thread_is_followed_to_its_first_function(options: list[str], tmp_path: Path) -> None:
    program = build("pauses.c", tmp_path, "-pthread", *options)
    with started([str(program)], stdout=subprocess.PIPE) as process:
        wait_until(lambda: waits(process.pid))
        found = stacks(process.pid)
    assert len(found) == 2
    for tid, (unwound, _) in found.items():
        assert unwound.end == "root"
        repeated = max(unwound.pcs.count(pc) for pc in unwound.pcs)
        assert repeated == (9 if tid == process.pid else 4)


@needs_root
def test_a_program_that_was_replaced_is_read_as_it_is_mapped(tmp_path: Path) -> None:
    program = build("pauses.c", tmp_path, "-pthread")
    with started([str(program)], stdout=subprocess.PIPE) as process:
        wait_until(lambda: waits(process.pid))
        program.unlink()
        program.write_bytes(b"\x7fELF, but another one")
        found = stacks(process.pid)
    unwound, frames = found[process.pid]
    assert unwound.end == "root"
    own = of_the_program(frames, program)
    assert len(own) == 12  # deep ten times, main, _start
    assert own[0].module is not None and own[0].module.is_deleted


def test_the_vdso_is_read_from_memory(tmp_path: Path) -> None:
    program = build("pauses.c", tmp_path, "-pthread")
    with started([str(program)], stdout=subprocess.PIPE) as process:
        wait_until(lambda: waits(process.pid))
        system = System()
        subject = LiveSubject(system, process.pid, ProcessIdentity(system, process.pid))
        (vdso,) = [one for one in subject.mappings() if one.path == b"[vdso]"]
        with CodeModules(subject) as modules:
            place = modules.place(vdso.start + 0x500)
            assert place is not None and place.module is not None and place.module.frames
            assert (place.module.path, place.address) == ("[vdso]", 0x500)
