"""The allocator is called only when no thread is in it; else nothing is run in the process."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leakcase_bundle.records import AllocatorArena, AllocatorWords
from leakcase_collector.attach import asking
from leakcase_collector.attach.safe_point import _frames, _points_into
from leakcase_collector.probes.allocator_statistics import (
    AllocatorStatisticsProbe,
    question_of,
    words_of,
)
from leakcase_collector.system.apart import run_apart
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from tests.collector.attach.borrowed import program, state, tracer
from tests.collector.heap.subjects import VERSIONS, subject
from tests.collector.heap.subjects import program as heap_program
from tests.collector.probes.context import RecordingContext
from tests.collector.system.started import started, started_python

pytestmark = [pytest.mark.live, pytest.mark.slow]

REQUESTS = int(os.environ.get("LEAKCASE_REQUESTS", "20"))
#: Allocators to be loaded before the C library.
LIBRARIES = {
    "jemalloc": "libjemalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "mimalloc": "libmimalloc.so.2",
}


@contextlib.contextmanager
def context_of(pid: int) -> Iterator[RecordingContext]:
    with ProcessIdentity(System(), pid) as identity:
        yield RecordingContext(pid, identity=identity)


def asked(pid: int, times: int = 1) -> RecordingContext:
    with context_of(pid) as context:
        probe = AllocatorStatisticsProbe()
        for number in range(times):
            probe.begin(context, number)
    assert tracer(pid) == 0
    return context


class Held:
    """The program of held.c, by its words."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process

    def word(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def go_on(self) -> bytes:
        assert self._process.stdin is not None
        self._process.stdin.write(b"x")
        self._process.stdin.flush()
        return self.word()

    def end(self) -> int:
        self.go_on()
        return self._process.wait(5)


@contextlib.contextmanager
def held(*words: str) -> Iterator[Held]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started([program("held"), *words], **pipes) as process:
        yield Held(process)


@pytest.mark.parametrize("words", [(), ("threads",), ("stack",), ("threads", "stack")])
def test_nothing_is_run_while_a_thread_stands_inside_malloc(words: tuple[str, ...]) -> None:
    """Alone it takes no lock; only its stack tells, also the one that a handler interrupted."""
    with held(*words) as target:
        assert target.word() == b"outside\n"
        assert len(asked(target.pid).emitted(AllocatorWords)) == 1
        assert target.go_on() == b"inside\n"
        inside = asked(target.pid)
        assert inside.gaps == [("failed", "no-safe-point")]
        assert inside.records == []
        assert len(inside.stops_ns) == asking.ATTEMPTS
        assert target.go_on() == b"done\n"
        assert len(asked(target.pid).emitted(AllocatorWords)) == 1
        assert target.end() == 0


def test_a_busy_program_is_asked_many_times_and_unharmed() -> None:
    """Four threads, one arena, which the usual debugger's call deadlocks within a few tries."""
    with subject("churn", 4, 100, MALLOC_ARENA_MAX="1") as running:
        context = asked(running.pid, REQUESTS)
        words = context.emitted(AllocatorWords)
        live = running.figures("live")["bytes"]
        said = running.figures("stop")
    assert said["errors"] == 0
    assert said["operations"] > 100 * REQUESTS
    assert set(context.gaps) <= {("failed", "no-safe-point")}
    assert len(words) >= 0.8 * REQUESTS, "most are answered"
    assert sum(one.attempts for one in words) <= len(context.stops_ns)
    for one in words:  # the program counts what it works with; there are its caches as well
        assert 0.9 * live < one.in_use_bytes < one.system_bytes


@pytest.mark.parametrize("version", VERSIONS)
def test_an_idle_allocator_says_what_the_census_finds(version: str) -> None:
    """At the same stop, right after it has written its answer, while the stream is still open."""
    if heap_program(version) is None:
        pytest.skip(f"glibc {version} could not be fetched")
    with subject("idle", 3, version=version) as running, context_of(running.pid) as context:
        question = question_of(context)
        system, identity = context.system, context.identity
        figures: list[list[int]] = []

        def look() -> None:
            census = running.census()
            assert census.is_complete
            figures.append([len(census.mapped), census.mapped_bytes])
            for one in census.arenas:
                free = [one.free_chunks + 1, one.free_bytes + one.top_bytes]
                figures.append([one.system_bytes, *free, one.fast_chunks, one.fast_bytes])

        def ask() -> dict[str, Any]:
            answer = asking.ask(system, identity, question, 10**10, looker=look)
            return {"asked": asking.as_map(answer), "figures": figures}

        told = run_apart(ask, 30)
        words, *arenas = words_of(0, 0, asking.Asked(**told["asked"]))
        mapped, *censused = told["figures"]
    assert [words.mapped_chunks, words.mapped_bytes] == mapped
    said = [
        [one.system_bytes, one.free_chunks, one.free_bytes, one.fast_chunks, one.fast_bytes]
        for one in arenas
    ]
    assert said == censused
    assert len(said) == 4


@pytest.mark.parametrize("kind", LIBRARIES)
def test_other_allocators_are_asked_as_well(kind: str) -> None:
    library = LIBRARIES[kind]
    if kind not in ldconfig():
        pytest.skip(f"{library} is not installed")
    with subject("idle", 2, LD_PRELOAD=library) as running:
        context = asked(running.pid, 3)
        sizes = running.figures("idle")
        held_bytes = sum(int(size) * count for size, count in sizes.items())
    words = context.emitted(AllocatorWords)
    assert [one.allocator for one in words] == [kind] * 3
    assert context.gaps == []
    for one in words:
        if kind == "mimalloc":
            assert one.in_use_bytes is None and one.system_bytes > held_bytes
        else:
            assert held_bytes < one.in_use_bytes < one.system_bytes
    if kind == "jemalloc":
        assert words[0].profiler_on is False
        arenas = [one for one in context.emitted(AllocatorArena) if one.look == 0]
        assert sum(one.in_use_bytes for one in arenas) == words[0].in_use_bytes


@pytest.mark.parametrize("kind", LIBRARIES)
def test_other_allocators_at_work_are_asked_and_unharmed(kind: str) -> None:
    """Their threads' stacks are full of old words: the unwind tables tell which are live."""
    if kind not in ldconfig():
        pytest.skip(f"{LIBRARIES[kind]} is not installed")
    with subject("churn", 4, 100, LD_PRELOAD=LIBRARIES[kind]) as running:
        context = asked(running.pid, REQUESTS // 2)
        said = running.figures("stop")
    assert said["errors"] == 0
    assert said["operations"] > 100 * REQUESTS
    assert set(context.gaps) <= {("failed", "no-safe-point")}
    assert 2 * len(context.emitted(AllocatorWords)) >= REQUESTS // 2


def ldconfig() -> str:
    tool = shutil.which("ldconfig") or "/sbin/ldconfig"
    return subprocess.run([tool, "-p"], capture_output=True, text=True, check=True).stdout


def test_a_process_that_is_stopped_is_not_made_to_run() -> None:
    with held() as target:
        assert target.word() == b"outside\n"
        os.kill(target.pid, 19)
        context = asked(target.pid)
        assert context.gaps == [("not-supported", "not-askable")]
        assert state(target.pid) == "T"
        os.kill(target.pid, 18)
        assert target.go_on() == b"inside\n"


SECCOMP = """
import ctypes, sys, time
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
# A filter that allows everything: whether it would is not for us to find out by trying.
program = (ctypes.c_uint64 * 1)(0x7fff000000000006)
class Filter(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("program", ctypes.c_void_p)]
assert libc.prctl(22, 2, ctypes.byref(Filter(1, ctypes.addressof(program))), 0, 0) == 0
print("ready", flush=True)
time.sleep(60)
"""


def test_a_process_behind_a_seccomp_filter_is_left_alone() -> None:
    with started_python(SECCOMP) as process:
        context = asked(process.pid)
        assert context.gaps == [("not-supported", "not-askable")]
        assert context.stops_ns == []


def test_a_static_program_is_not_asked() -> None:
    static = f"{program('held')}-static"
    source = str(Path(__file__).with_name("held.c"))
    command = ["gcc", "-static", "-fno-builtin", "-pthread", "-o", static, source]
    built = subprocess.run(command, capture_output=True, timeout=60)
    if built.returncode:
        pytest.skip("there is no static C library here")
    with started([static], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"outside\n"
        assert asked(process.pid).gaps == [("not-supported", "not-askable")]


def test_a_prediction_is_said_before_and_near_what_is_measured() -> None:
    with subject("idle", 3) as running, context_of(running.pid) as context:
        predicted = AllocatorStatisticsProbe().predict(context).stop_ns
        measured = sorted(asked(running.pid, 5).stops_ns)[2]
    assert measured < 10 * predicted
    assert predicted < 100 * measured


def test_words_are_found_in_a_stack_at_their_own_alignment_only() -> None:
    span = (0x7F12_3456_0000, 0x7F12_3458_0000)
    word = (0x7F12_3457_1234).to_bytes(8, "little")
    assert _points_into(bytes(64) + word + bytes(64), span)
    assert not _points_into(bytes(63) + word + bytes(64), span)
    assert not _points_into(bytes(64) + span[1].to_bytes(8, "little"), span)
    assert _points_into(bytes(8) + span[0].to_bytes(8, "little"), span)
    across = (0x7F12_34FF_0000, 0x7F12_3501_0000)
    assert _points_into((0x7F12_3500_0008).to_bytes(8, "little"), across)


def test_a_signal_frame_is_known_by_its_segment_registers() -> None:
    mark = bytes.fromhex("3300000000002b00")
    registers = b"".join(number.to_bytes(8, "little") for number in range(18))
    assert [row[15:17] for row in _frames(bytes(32) + registers + mark)] == [(15, 16)]
    assert not list(_frames(registers[8:] + mark)), "nothing before it can be a frame"
    assert not list(_frames(registers + bytes(4) + mark))
