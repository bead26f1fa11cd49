"""The functions of Python that a thread is in, from outside: as the program itself tells them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leakcase_collector.heap.cpython_frames import Interpreter, PythonFrame
from leakcase_collector.heap.cpython_threads import thread_numbers
from leakcase_collector.probes.python_types import find_python
from leakcase_collector.probes.subject import LiveSubject
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory
from tests.collector.heap.pythons import COVERED, program, pythons
from tests.collector.system.started import needs_root, started, wait_until

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


THREADS = """
def worker(number):
    kept = []
    for _ in range(number): kept.append(number)
    lock.acquire()
lock = threading.Lock()
lock.acquire()
for number in range(6):
    threading.Thread(target=worker, args=(number,)).start()
class Twice(threading.Thread):
    def run(self):
        (lambda: sum(x for x in self))()
    def __iter__(self):
        yield lock.acquire()
Twice().start()
telling(8)
gate.wait()
"""


@each_python
def test_each_thread_has_its_own_stack(python: str) -> None:
    stacks = same(python, THREADS, threads=8)
    innermost = sorted(named(runs)[0][0] for runs in stacks.values())
    assert innermost == ["__iter__", "wait", *["worker"] * 6]


ODD = r"""
names = {
    "caf\u00e9": "/tmp/\u00fcber dir/na\u00efve.py",
    "\u540d\u524d": "\u30d5\u30a1\u30a4\u30eb\n\t\x1b[31m.py",
    "\U00010400": "/\U0001f40d\U0001f40d/\x01.py",
    "plain": "/bad-\udcff-bytes.py",
    "long" * 1000: "x" * 3000,
}
inside = gate.wait
for name, file in names.items():
    code = compile("\n" * 70000 + "def %s(): return inside()" % name, file, "exec")
    scope = {"inside": inside}
    exec(code, scope)
    inside = scope.popitem()[1]
telling()
inside()
"""


@each_python
def test_names_with_any_characters_are_told(python: str) -> None:
    ((_, runs),) = same(python, ODD).items()
    functions = [frame.function for run in runs for frame in run]
    assert {"caf\u00e9", "\u540d\u524d", "\U00010400"} <= set(functions)
    assert 70001 in [frame.line for run in runs for frame in run]


FLOW = """
import asyncio, contextlib
def deep(left, then):
    return deep(left - 1, then) if left else then()
@contextlib.contextmanager
def around():
    try:
        yield
    finally:
        telling()
        gate.wait()
async def numbers():
    for number in range(3):
        yield number
    with around():
        for missing in []: pass
async def main():
    async def one():
        return [number async for number in numbers()]
    await asyncio.gather(one(), asyncio.sleep(0))
def failing():
    try:
        {}["missing"]
    except KeyError:
        while True:
            asyncio.run(main())
deep(900, failing)
"""


@each_python
def test_coroutines_handlers_and_900_calls_deep_are_told(python: str) -> None:
    ((_, runs),) = same(python, FLOW).items()
    functions = [name for run in named(runs) for name in run]
    assert functions.count("deep") == 901
    assert {"numbers", "one", "around", "failing"} <= set(functions)


FORKED = """
def child():
    tell(os.getpid())
    telling()
    gate.wait()
threading.Thread(target=gate.wait, daemon=True).start()
tell(os.getpid())
if os.fork() == 0:
    child()
gate.wait()
"""


@each_python
def test_the_main_thread_of_a_forked_child_is_found_by_its_new_number(python: str) -> None:
    with program(python, TELLING + FORKED) as held:
        child = held.hear()
        ((_, told),) = held.hear().items()
        read = stacks_of(child)
        os.kill(child, signal.SIGKILL)
    assert child != held.first
    assert flat(read[child]) == told


@needs_root
@pytest.mark.parametrize("python", COVERED[::3])
def test_threads_are_found_in_a_pid_namespace_of_its_own(python: str) -> None:
    """There the interpreter knows its threads by other numbers than we do."""
    prelude = "import json, os, sys\ndef tell(value): print(json.dumps(value), flush=True)\n"
    command = ["unshare", "--pid", "--fork", "--kill-child", python, "-S", "-c"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started([*command, prelude + TELLING + THREADS], **pipes) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        read = stacks_of(int(children))
        numbers = thread_numbers(System(), int(children))
    assert "1" in told
    assert numbers[1] == int(children)
    assert {inner: flat(read[numbers[int(inner)]]) for inner in told} == told


@pytest.mark.parametrize("python", pythons("3.13", "3.14"))
def test_threads_of_sub_interpreters_are_read_too(python: str) -> None:
    code = """
try: import _interpreters as interpreters
except ImportError: import _xxsubinterpreters as interpreters
made = interpreters.create()
waiting = "import time\\ndef inside(): time.sleep(1000)\\ninside()"
run = getattr(interpreters, "run_string", None) or interpreters.exec
thread = threading.Thread(target=run, args=(made, waiting), daemon=True)
thread.start()
tell(thread.native_id)
gate.wait()
"""
    with program(python, TELLING + code) as held:
        wait_until(lambda: _innermost(held.pid, held.first) == "inside", 10)


def _innermost(pid: int, thread: int) -> str | None:
    frames = flat(stacks_of(pid).get(thread, []))
    return str(frames[0][0]) if frames else None


BUSY = """
import random
def leaf(n): return [n] * 3
def middle(n): return sorted(range(n), key=lambda x: len(leaf(x)))
def work():
    while True:
        exec("def made(): return middle(3)\\nmade()", {"middle": middle})
        middle(random.randrange(200))
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
tell(0)
sys.stdin.read()
os._exit(0)
"""


@pytest.mark.parametrize("python", COVERED[::2])
def test_while_threads_run_what_is_told_is_code_of_the_program(python: str) -> None:
    seen = set()
    with program(python, TELLING + BUSY) as held, interpreter(held.pid) as read:
        for _ in range(60):
            threads = read.threads(thread_numbers(System(), held.pid))
            del threads[held.pid]
            for state in threads.values():
                seen |= {frame[0] for frame in flat(read.stack(state))}
    bare = {str(name).rpartition(".")[2] for name in seen}
    assert {"work", "middle"} <= bare
    expected = {"work", "middle", "leaf", "<lambda>", "made", "<module>", "run", "randrange"}
    assert bare - expected <= {"_bootstrap", "_bootstrap_inner", "__init__"} | _OF_RANDOM


_OF_RANDOM = {"_randbelow", "_randbelow_with_getrandbits", "__index__"}
