"""Stacks of all threads of real programs, from core files, are those that gdb finds in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leakcase_collector.probes.core_subject import CoreSubject
from leakcase_collector.system.core_file import CoreFile
from leakcase_collector.system.door import System
from leakcase_collector.unwind.machines import MACHINES, registers_of_core
from leakcase_collector.unwind.modules import CodeModules
from leakcase_collector.unwind.unwinder import Unwinder, UnwoundStack
from tests.collector.cores import by_gdb, needs_gdb
from tests.collector.system.started import started, wait_until
from tests.collector.unwind.stepped import build

STACK_BYTES = 256 * 1024
#: Below the stack pointer a function that calls no other may have its own (System V ABI, AMD64).
BELOW_BYTES = 128
MACHINE = MACHINES[os.uname().machine]
BUSY_PYTHON = """
import json, re, threading
def work():
    while True:
        text = json.dumps({str(number): [number, None] for number in range(50)})
        sorted(re.findall(r"([0-9]+)", text), key=lambda found: -int(found))
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
work()
"""

pytestmark = [
    needs_gdb,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs gdb's symbols of this libc"),
]


def of_ours(core_path: Path) -> dict[int, UnwoundStack]:
    with CoreFile(str(core_path)) as core, CoreSubject(System(), core) as subject:
        memory = subject.memory()
        with CodeModules(subject) as modules:
            unwinder = Unwinder(modules)
            found = {}
            for thread in core.threads:
                start = thread.stack_pointer - BELOW_BYTES
                stack = bytearray(STACK_BYTES)
                size = memory.read_into(start, memoryview(stack))
                registers = registers_of_core(MACHINE, thread.registers)
                found[thread.thread_id] = unwinder.unwind(
                    registers, start, bytes(stack[:size]), after_call=False
                )
    return found


def of_gdb(program: str, core_path: Path) -> dict[int, tuple[int, ...]]:
    out = core_path.with_suffix(".json")
    script = str(Path(__file__).with_name("core.gdb.py"))
    environment = {**os.environ, "LC_ALL": "C", "LEAKCASE_OUT": str(out), "DEBUGINFOD_URLS": ""}
    command = ["gdb", "-batch", "-nx", program, str(core_path), "-x", script]
    subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    stacks = json.loads(out.read_text())
    return {int(tid): tuple(pc for pc, _ in frames) for tid, frames in stacks.items()}


def compare(pid: int, program: str, folder: Path) -> int:
    """How many threads there were."""
    core_path = by_gdb(pid, folder)
    ours, theirs = of_ours(core_path), of_gdb(program, core_path)
    core_path.unlink()
    assert {tid: stack.pcs for tid, stack in ours.items()} == theirs
    assert {stack.end for stack in ours.values()} == {"root"}
    return len(theirs)


def test_stacks_of_a_busy_python_program_are_those_of_gdb(tmp_path: Path) -> None:
    with started([sys.executable, "-c", BUSY_PYTHON]) as process:
        wait_until(lambda: len(list(Path(f"/proc/{process.pid}/task").iterdir())) == 4)
        assert compare(process.pid, os.path.realpath(sys.executable), tmp_path) == 4


@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")
def test_stacks_of_redis_are_those_of_gdb(tmp_path: Path) -> None:
    program = shutil.which("redis-server") or ""
    options = ["--port", "0", "--unixsocket", str(tmp_path / "socket"), "--save", ""]
    with started([program, *options], cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        wait_until((tmp_path / "socket").exists)
        assert compare(process.pid, program, tmp_path) >= 4


def test_stacks_of_both_threads_of_a_static_program_are_those_of_gdb(tmp_path: Path) -> None:
    program = build("pauses.c", tmp_path, "-pthread", "-static", "-no-pie")
    with started([str(program)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert compare(process.pid, str(program), tmp_path) == 2
