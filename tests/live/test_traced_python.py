"""What a program in Python keeps is told by the function of Python, or of C, that made it."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Optional

import pytest

from leakcase_bundle.records import CodeFrame, CodeStack
from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.probes.heap_labels import ModuleFiles
from leakcase_collector.probes.python_types import find_python
from leakcase_collector.probes.subject import LiveSubject
from leakcase_collector.redact import Redactor
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory
from leakcase_collector.trace.assembly import Assembly
from leakcase_collector.trace.python_objects import ObjectReader
from leakcase_collector.trace.python_stacks import PythonStacks
from leakcase_collector.trace.watch import Watch
from leakcase_collector.trace.window import drain
from tests.collector.heap.pythons import COVERED, Program, program, pythons
from tests.collector.system.started import needs_root

pytestmark = [pytest.mark.live, pytest.mark.slow, needs_root]
SYSTEM = System()
SOURCE = Path(__file__).parent / "python_keep.c"
each_python = pytest.mark.parametrize("python", COVERED)


class Told(NamedTuple):
    """One stack as the case tells it, innermost first, and what it holds."""

    frames: list[CodeFrame]
    blocks: int
    size_bytes: int

    @property
    def python(self) -> list[tuple[str, Optional[int]]]:
        """The functions of Python: their bare names, and the lines."""
        return [
            (str(frame.function).rpartition(".")[2], frame.line)
            for frame in self.frames
            if frame.code == "python"
        ]


class Traced:
    """A program under watch."""

    def __init__(self, held: Program, assembly: Assembly, watch: Watch) -> None:
        self._held = held
        self._assembly = assembly
        self._watch = watch
        self.first = held.first

    def work(self) -> list[Told]:
        """Let it work once; what it keeps of that, by stack."""
        tracer, table = self._watch.tracer, self._assembly.table
        self._assembly.prepare()
        tracer.arm()
        self.said = self._held.ask()
        tracer.stop_allocations()
        drain(tracer, table)
        blocks: Counter[int] = Counter()
        held: Counter[int] = Counter()
        self.live = tracer.live()
        for block in self.live:
            stack = table.number(block.key)
            assert stack is not None
            blocks[stack] += 1
            held[stack] += block.size
        records = table.records(blocks)
        frames = {record.frame: record for record in records if isinstance(record, CodeFrame)}
        assert tracer.counters().lost_samples == tracer.counters().lost_live == 0
        return [
            Told([frames[number] for number in one.frames], blocks[one.stack], held[one.stack])
            for one in records
            if isinstance(one, CodeStack)
        ]


@contextmanager
def traced(
    python: str, code: str, choose: Callable[[Assembly], Optional[Watch]]
) -> Iterator[Traced]:
    """`code` tells something, and works when it is asked."""
    with program(python, code) as held, ProcessIdentity(SYSTEM, held.pid) as identity:
        subject = LiveSubject(SYSTEM, held.pid, identity)
        image = find_python(subject)
        assert image is not None
        stacks = PythonStacks(SYSTEM, held.pid, image, subject.memory)
        try:
            assembly = Assembly(
                SYSTEM, identity, subject, Redactor(), "bursts",
                ModuleFiles(subject).read, stacks,
            )  # fmt: skip
        except (NotPermitted, NotSupported) as error:
            pytest.skip(str(error))
        try:
            watch = choose(assembly)
            assert watch is not None
            yield Traced(held, assembly, watch)
        finally:
            assembly.close()


def by_function(told: Iterable[Told]) -> Counter[str]:
    """Blocks by the innermost function of Python."""
    made: Counter[str] = Counter()
    for stack in told:
        if stack.python:
            made[stack.python[0][0]] += stack.blocks
    return made


def blocks_of(assembly: Assembly) -> Watch:
    return assembly.blocks


def copies_makers(python: str) -> bool:
    """Whether its compiler copied PyType_GenericAlloc into the interpreter's loop: then instances
    are not seen to be made, but what they hold is."""
    return "[GCC 16" in subprocess.check_output([python, "-VV"], text=True)


OBJECTS = """
import functools
class Session:
    def __init__(self, number):
        self.items = [number]
class Passing:
    __slots__ = ("number",)
sessions = {}
def login(number):
    sessions[number] = Session(number)
@functools.lru_cache(maxsize=None)
def page(number):
    return [number]
def passing(number):
    Passing().number = number
    return [{"id": one, "pair": (one, [one])} for one in range(5)]
def work(start):
    for number in range(start, start + 500):
        login(number)
        passing(number)
        page(number)
gc.disable()
start = 0
tell(0)
while sys.stdin.readline():
    start += 500
    work(start)
    tell(start)
"""


@each_python
def test_objects_that_stay_are_told_by_the_function_that_made_them(python: str) -> None:
    with traced(python, OBJECTS, Assembly.objects) as target:
        told = target.work()
        instances = {block.address for block in target.live}
    assert {stack.python[-1][0] for stack in told} == {"<module>"}
    made = by_function(told)
    assert {name: made[name] // 500 for name in ("__init__", "page")} == {"__init__": 1, "page": 1}
    # Lists, tuples and dicts of the one are re-used by the other.
    assert made["passing"] + made["<listcomp>"] <= 5
    assert sum(made.values()) == len(instances)
    lines = {stack.python[0] for stack in told}
    # The two lines before are those of the prelude.
    assert lines >= {("__init__", 7), ("page", 15)}
    if not copies_makers(python):
        assert made["login"] + made["work"] >= 500, "the instance is made where its class is called"
        assert ("login", 12) in lines


KEEPING = """
import functools, threading
sys.path.insert(0, FOLDER)
import python_keep
kept = []
def innermost(size):
    kept.append(bytearray(size))
    frame, stack = sys._getframe(), []
    while frame is not None:
        stack.append([frame.f_code.co_name, frame.f_lineno])
        frame = frame.f_back
    return stack[1:]
def keep(size):
    return sorted([size], key=lambda size: len(innermost(size))) and innermost(size)
@functools.lru_cache(maxsize=None)
def page(number):
    return bytes(3000 + number)
def native():
    python_keep.take(41)
def passing():
    return len(bytearray(5000))
def threaded():
    kept.extend(bytearray(7000) for _ in range(29))
tell(0)
while sys.stdin.readline():
    for number in range(37):
        stack = keep(1000)
        page(number)
        passing()
    native()
    thread = threading.Thread(target=threaded)
    thread.start()
    thread.join()
    tell(stack)
"""


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds the module of C for a Python; its folder."""

    def build(python: str) -> Path:
        asked = "import sysconfig; print(sysconfig.get_path('include'))"
        include = subprocess.check_output([python, "-c", asked], text=True).strip()
        if not Path(include, "Python.h").exists():
            pytest.skip(f"no headers of {python}")
        folder = tmp_path_factory.mktemp("extension")
        folders = [f"-I{include}", f"-I{Path(include).parent}"]
        options = ["-O2", "-fomit-frame-pointer", "-shared", "-fPIC", *folders]
        target = ["-o", str(folder / "python_keep.so")]
        subprocess.run(["gcc", *options, str(SOURCE), *target], check=True, timeout=60)
        return folder

    return build


@pytest.mark.parametrize("python", COVERED[::2])
def test_lists_caches_and_modules_of_c_are_told_as_what_keeps_memory(
    python: str, extension: Callable[[str], Path]
) -> None:
    code = KEEPING.replace("FOLDER", repr(str(extension(python))))
    with traced(python, code, blocks_of) as target:
        told = target.work()
    large = [stack for stack in told if stack.size_bytes >= 1000 * stack.blocks and stack.python]
    made = by_function(large)
    assert {name: made[name] for name in ("innermost", "page", "native", "passing")} == {
        "innermost": 2 * 37, "page": 37, "native": 41, "passing": 0,
    }  # fmt: skip
    (leak,) = (stack for stack in large if stack.python[0][0] == "native")
    assert "keep_one" in [frame.function for frame in leak.frames[:2]]
    assert [frame.code for frame in leak.frames].index("python") >= 2
    # Whole stacks, as the program itself walked its last one.
    stacks = [stack.python for stack in large if stack.python[0][0] == "innermost"]
    assert [tuple(place) for place in target.said] in [stack[1:] for stack in stacks]
    functions = [[name for name, _ in stack] for stack in stacks]
    assert ["innermost", "<lambda>", "keep", "<module>"] in functions


@pytest.mark.parametrize("python", pythons("3.9", "3.11")[:2])
def test_threads_that_started_since_are_told_too(
    python: str, extension: Callable[[str], Path]
) -> None:
    """By the thread state that runs, if it says that it is the thread's."""
    code = KEEPING.replace("FOLDER", repr(str(extension(python))))
    with traced(python, code, blocks_of) as target:
        told = target.work()
    assert by_function(stack for stack in told if stack.size_bytes > 6000)["<genexpr>"] >= 29


LIVES = """
class Plain:
    def __init__(self, number): self.number, self.name = number, str(number)
class Slots:
    __slots__ = ("number", "other")
    def __init__(self, number): self.number, self.other = number, [number]
def work():
    global kept
    kept = [[kind(number) for number in range(50)] for kind in (Plain, Slots)]
    return [[id(made) for made in row] for row in kept]
tell(0)
sys.stdin.readline()
tell(work())
sys.stdin.readline()
for row in kept:
    del row[:25]
    references = [row[:] for _ in range(9)]
tell(0)
sys.stdin.read()
"""


@pytest.mark.parametrize("python", COVERED[1::2] or COVERED)
def test_an_object_that_nothing_refers_to_any_more_is_dead(python: str) -> None:
    with traced(python, LIVES, Assembly.objects) as target:
        target.work()
        by_address = {block.address: block for block in target.live}
        rows = target.said
        assert all(address in by_address for row in rows for address in row)
        pid = target._held.pid
        with ProcessIdentity(SYSTEM, pid) as identity:
            with ProcessMemory(SYSTEM, identity) as memory:
                reader = ObjectReader(memory)
                then = [[reader.read(a, by_address[a].size) for a in row] for row in rows]
            target._held.ask()
            with ProcessMemory(SYSTEM, identity) as memory:
                reader = ObjectReader(memory)
                for row, looks in zip(rows, then):
                    dead = []
                    for address, look in zip(row, looks):
                        now = reader.read(address, by_address[address].size)
                        assert look is not None and now is not None
                        dead.append(reader.is_freed(address, look, now) or now.words != look.words)
                    assert dead == [True] * 25 + [False] * 25
                    assert len(set(looks)) == 50, "each is told from the others"
