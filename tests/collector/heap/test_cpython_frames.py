"""The functions of Python that a thread is in, from outside: as the program itself tells them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from leakcase_collector.heap.cpython_frames import Interpreter, PythonFrame
from leakcase_collector.heap.cpython_threads import thread_numbers
from leakcase_collector.probes.python_types import find_python
from leakcase_collector.probes.subject import LiveSubject
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory
from tests.collector.heap.pythons import COVERED, program

each_python = pytest.mark.parametrize("python", COVERED)

#: Ends with one thread that tells where all others are, once they are where they stay.
TELLING = """
import sys, threading, time
def place(frame):
    code, line = frame.f_code, frame.f_lineno
    return [getattr(code, "co_qualname", code.co_name), code.co_filename, line]
def stacks():
    found = {}
    for thread in threading.enumerate():
        frame, places = sys._current_frames().get(thread.ident), []
        while frame is not None and thread is not threading.current_thread():
            places.append(place(frame))
            frame = frame.f_back
        if places:
            found[thread.native_id] = places
    return found
def tell_all(threads):
    last = None
    while True:
        time.sleep(0.05)
        now = stacks()
        if now == last and len(now) >= threads:
            break
        last = now
    tell(now)
    sys.stdin.read()
    import os
    os._exit(0)
gate = threading.Event()
def telling(threads=1):
    threading.Thread(target=tell_all, args=(threads,)).start()
"""

Place = tuple[str, str, "int | None"]


@contextmanager
def interpreter(pid: int) -> Iterator[Interpreter]:
    """The Python of a running process."""
    with ProcessIdentity(System(), pid) as identity, ProcessMemory(System(), identity) as memory:
        image = find_python(LiveSubject(System(), pid, identity))
        assert image is not None
        yield Interpreter(memory, image)


def stacks_of(pid: int) -> dict[int, list[list[PythonFrame]]]:
    """The stacks of all threads as they are now, by the threads' numbers."""
    with interpreter(pid) as python:
        threads = python.threads(thread_numbers(System(), pid))
        return {number: python.stack(state) for number, state in threads.items()}


def flat(runs: list[list[PythonFrame]]) -> list[list[object]]:
    return [[*frame] for run in runs for frame in run]


def printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def same(python: str, code: str, threads: int = 1) -> dict[int, list[list[PythonFrame]]]:
    """What was read, after it was compared with what the program told of itself."""
    with program(python, TELLING + code) as held:
        told = {
            int(number): [[printable(name), printable(file), line] for name, file, line in places]
            for number, places in held.first.items()
        }
        read = stacks_of(held.pid)
    assert len(told) == threads
    assert {number: flat(read[number]) for number in told} == told
    assert len(read) == threads + 1
    return {number: read[number] for number in told}


def named(runs: list[list[PythonFrame]]) -> list[list[str]]:
    return [[frame.function.rpartition(".")[2] for frame in run] for run in runs]


CALLS = """
import functools
class Handler:
    def __init__(self):
        self.kept = [self.load(
            1,
            2,
        )
            for _ in range(1)]
    def load(self, *numbers):
        return sorted([3], key=lambda number: self.part(number))
    def part(self, number):
        return functools.partial(self.last, number)()
    @staticmethod
    def last(number):
        class Body:
            made = next(numbers())
        return Body
    def __getattr__(self, name):
        return dict(map(deep, [150]))
def numbers():
    yield [
        (yield from inner())
    ]
def inner():
    yield list(drive(coroutine()))
def drive(made):
    yield made.send(None)
async def coroutine():
    async with Context() as context:
        return context
class Context:
    async def __aenter__(self):
        return [x for x in [Handler.__getattr__(None, "x")]]
    async def __aexit__(self, *_): pass
def deep(left):
    if left:

        return deep(left - 1)
    telling()
    return gate.wait()
Handler()
"""


@each_python
def test_all_ways_of_calling_are_told_as_the_program_tells_them(python: str) -> None:
    ((_, runs),) = same(python, CALLS).items()
    innermost = named(runs)
    functions = [name for run in innermost for name in run]
    assert functions.count("deep") == 151
    expected = {"<lambda>", "<module>", "Body", "numbers", "inner", "drive", "coroutine"}
    assert expected <= {*functions}
