"""borrowed.c, built and started, and functions called in its threads."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Callable, NamedTuple, Optional

from leakcase_collector.attach.borrowed_call import BorrowedCall
from leakcase_collector.attach.machine_code import Area, Call, Look, Slot, Step
from leakcase_collector.attach.return_frame import find_gadgets, has_room
from leakcase_collector.attach.stopping import StoppedProcess
from leakcase_collector.system.apart import run_apart
from leakcase_collector.system.clock import monotonic_ns
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory, parse_mappings
from tests.collector.system.started import started

_SOURCE = Path(__file__).with_name("borrowed.c")
LIMIT_NS = 1_000_000_000


class Seen(NamedTuple):
    """What a thread of the program counted; for `ticker` the longest hold-up in ns."""

    rounds: int
    wrongs: int


@cache
def program(name: str = "borrowed") -> str:
    """The compiled program."""
    source = _SOURCE.with_name(f"{name}.c")
    target = Path(mkdtemp(prefix="leakcase-")) / name
    flags = ["-std=gnu11", "-fno-builtin", "-O1", "-Wall", "-Wextra", "-pthread"]
    subprocess.run(["gcc", *flags, "-o", str(target), str(source)], check=True, timeout=60)
    return str(target)


class Running:
    """The program at work: where its functions are, and which thread does what."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self.where = {name: int(value) for name, value in self._answer()}

    def ask(self, word: str) -> dict[str, tuple[int, ...]]:
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()
        return {name: tuple(map(int, values)) for name, *values in self._answer()}

    def report(self, word: str = "report") -> dict[str, Seen]:
        return {name: Seen(*value) for name, value in self.ask(word).items() if len(value) == 2}

    def _answer(self) -> list[list[str]]:
        assert self._process.stdout is not None
        lines = []
        while (line := self._process.stdout.readline()) != b".\n":
            assert line, "the program ended"
            lines.append(line.decode().split())
        return lines


@contextlib.contextmanager
def running() -> Iterator[Running]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started([program()], **pipes) as process:
        yield Running(process)


def call(
    target: Running,
    thread: str,
    steps: Sequence[Step],
    limit_ns: int = LIMIT_NS,
    look: Callable[[], None] = lambda: None,
    dies_after: float = 0.0,
) -> tuple[list[int], int]:
    """Run the steps in a thread of the program; what is in the slots then, and the stop in ns.

    `dies_after` seconds whoever does that is ended by a signal that it knows nothing of.
    """

    def work() -> tuple[list[int], int]:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, dies_after)
        slots: list[int] = []

        def read(area: Area) -> None:
            with open(f"/proc/{target.pid}/mem", "rb") as memory:
                memory.seek(area.slots)
                slots.extend(struct.unpack("<8Q", memory.read(64)))
            look()

        deadline_ns = monotonic_ns() + limit_ns
        stopped = StoppedProcess(System(), target.pid, deadline_ns)
        with stopped:
            one = borrow(target, stopped, thread)
            one.run(steps, read, deadline_ns)
        return slots, stopped.stopped_ns

    slots, stopped_ns = run_apart(work, 20)
    return slots, stopped_ns


def answering(target: Running, function: str, *arguments: int) -> list[Step]:
    """A call of one function, whose result is then in slot 0."""
    return [Call(target.where[function], arguments, Slot(0)), Look()]


def borrow(target: Running, stopped: StoppedProcess, thread: str) -> BorrowedCall:
    number = target.where[thread]
    with ProcessIdentity(System(), target.pid) as held, ProcessMemory(System(), held) as memory:
        mappings = memory.mappings()
        code = [(one.start, one.end) for one in mappings if one.executable and b"libc" in one.path]
        gadgets = find_gadgets(memory, code)
    assert gadgets is not None and gadgets.signal_return is not None
    room = has_room(mappings, stopped.threads[number].registers["rsp"])
    assert room
    return BorrowedCall(stopped, number, gadgets, has_room=room)


def mapped_bytes(pid: int) -> int:
    mappings = parse_mappings(Path(f"/proc/{pid}/maps").read_bytes().splitlines())
    return sum(mapping.end - mapping.start for mapping in mappings)


def state(pid: int, thread: Optional[int] = None) -> str:
    """One letter, as in /proc/PID/stat."""
    path = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    return Path(path).read_text().rpartition(")")[2].split()[0]


def tracer(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("TracerPid:"):
            return int(line.split()[1])
    raise AssertionError("no line TracerPid")


def die() -> None:
    """What no process can prepare for."""
    os.kill(os.getpid(), signal.SIGKILL)


def rest(seconds: float) -> None:
    time.sleep(seconds)
