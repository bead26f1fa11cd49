"""What is told of Python's frames where memory is damaged, and how they join those of C."""

from __future__ import annotations

import random
import struct

from leakcase_collector.errors import NotSupported
from leakcase_collector.heap.cpython_frames import (
    Interpreter,
    PythonFrame,
    RawFrame,
    evaluates_python,
    frames_of_sample,
    interleave,
)
from leakcase_collector.heap.cpython_runtime import PythonImage
from leakcase_collector.heap.cpython_threads import thread_numbers
from leakcase_collector.probes.python_types import find_python
from leakcase_collector.probes.subject import LiveSubject
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import Memory, MemoryMapping, ProcessMemory
from tests.collector.heap.pythons import program
from tests.collector.heap.test_cpython_frames import (
    CALLS,
    TELLING,
    each_python,
    flat,
    stacks_of,
)


class Damaged:
    """The memory of a process, some bytes of which are others each time that they are read."""

    pointer_bytes = 8

    def __init__(self, memory: Memory, seed: int) -> None:
        self._memory = memory
        self._random = random.Random(seed)

    def mappings(self) -> list[MemoryMapping]:
        return self._memory.mappings()

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        return self._memory.resident_runs(start, end)

    def read(self, address: int, size: int) -> bytes:
        content = bytearray(size)
        self.read_into(address, memoryview(content))
        return bytes(content)

    def read_into(self, address: int, view: memoryview) -> int:
        count = self._memory.read_into(address, view)
        for _ in range(self._random.randrange(1 + len(view) // 64)):
            at = self._random.randrange(len(view))
            view[at] = self._random.choice((0, 255, view[at] ^ 1 << self._random.randrange(8)))
        return count


@each_python
def test_of_damaged_memory_less_is_told_and_nothing_fails(python: str) -> None:
    with program(python, TELLING + CALLS) as held:
        most = len(flat(stacks_of(held.pid)[held.pid]))
        numbers = thread_numbers(System(), held.pid)
        with ProcessIdentity(System(), held.pid) as identity:
            image = find_python(LiveSubject(System(), held.pid, identity))
            assert image is not None
            with ProcessMemory(System(), identity) as memory:
                told = [_damaged(memory, image, numbers, seed) for seed in range(25)]
    assert max(told) <= most
    assert 0 < sum(told) < 25 * most


def _damaged(memory: Memory, image: PythonImage, numbers: dict[int, int], seed: int) -> int:
    """How many frames of the main thread are told."""
    try:
        read = Interpreter(Damaged(memory, seed), image)
        threads = read.threads(numbers)
    except NotSupported:
        return 0
    return max((len(flat(read.stack(state))) for state in threads.values()), default=0)


def test_what_an_event_wrote_is_unpacked_as_far_as_it_goes() -> None:
    pairs = struct.pack("=6Q", 0x7F0000001001, 5, 0x7F0000002000, 6, 0x7F0000003001, 7)
    whole = struct.pack("=II", 3, 0) + pairs
    first = RawFrame(0x7F0000001000, 5, is_entry=True)
    assert frames_of_sample(whole)[0] == first
    assert [frame.is_entry for frame in frames_of_sample(whole)] == [True, False, True]
    assert [len(frames_of_sample(whole[:n])) for n in (0, 7, 8, 23, 24, 55, 56)] == [
        *(0, 0, 0, 0),
        *(1, 2, 3),
    ]
    assert frames_of_sample(struct.pack("=II", 1 << 31, 1) + pairs)[0] == first


def test_each_run_of_python_stands_within_the_frame_that_executes_it() -> None:
    a, b, c, d = (PythonFrame(name, "x.py", 1) for name in "abcd")
    evaluates = "_PyEval_EvalFrameDefault"
    native = ["malloc", evaluates, "call", evaluates + ".cold", "main"]

    def told(runs: list[list[PythonFrame]], native: list[str] = native) -> list[object]:
        return [*interleave(native, evaluates_python, runs)]

    assert told([[a, b], [c]]) == [
        *("malloc", a, b, evaluates),
        *("call", c, evaluates + ".cold", "main"),
    ]
    assert told([]) == native
    assert told([[], [c]])[1:5] == [evaluates, "call", c, evaluates + ".cold"]
    assert told([[a], [b], [c, d]])[-4:] == [evaluates + ".cold", "main", c, d]
    assert not evaluates_python("_PyEval_EvalFrame")
    assert not evaluates_python(None)
