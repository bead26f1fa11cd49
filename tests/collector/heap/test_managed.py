"""Heaps of runtimes with a collector, against what the programs themselves say of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakcase_bundle.records import ManagedClasses, ManagedHeap, ManagedNative
from leakcase_collector.errors import NotSupported
from leakcase_collector.heap.go_heap import find_go_heap
from leakcase_collector.heap.java_counters import heap_figures, parse_counters
from leakcase_collector.probes.java_classes import ClassCount, JavaClassesProbe, parse_histogram
from leakcase_collector.probes.managed_heap import ManagedHeapProbe
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from tests.collector.probes.context import RecordingContext

HERE = Path(__file__).parent
MIB = 1 << 20
PURPOSES = ("purposes", "reserved_bytes")


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            if os.environ.get("CI"):
                pytest.fail(f"CI has every runtime, but no {program} is here")
            pytest.skip(f"there is no {program} here")


@contextmanager
def _running(command: Sequence[str | Path]) -> Iterator[tuple[int, list[int]]]:
    """A program that prints a line of figures and waits: its pid and the figures."""
    process = subprocess.Popen(
        [*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.pid, [int(float(word)) for word in process.stdout.readline().split()]
    finally:
        process.kill()
        process.communicate()


def _look(pid: int) -> RecordingContext:
    system = System()
    context = RecordingContext(pid, identity=ProcessIdentity(system, pid))
    ManagedHeapProbe().begin(context, 1)
    return context


def _heap(pid: int) -> ManagedHeap:
    context = _look(pid)
    (record,) = context.emitted(ManagedHeap)
    assert isinstance(record, ManagedHeap) and not context.gaps
    return record


# --- the JVM --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that keeps 20 MB in 20,000 arrays."""
    _need("java", "javac")
    folder = tmp_path_factory.mktemp("java")
    subprocess.run(["javac", "-d", str(folder), str(HERE / "Kept.java")], check=True, timeout=60)
    return folder


@pytest.mark.parametrize(
    "option", ["-XX:+UseG1GC", "-XX:+UseSerialGC", "-XX:+PerfDisableSharedMem"]
)
def test_a_java_heap_is_as_full_as_its_management_beans_say(option: str, kept: Path) -> None:
    command = ["java", "-Xmx128m", option, "-cp", str(kept), "Kept"]
    with _running(command) as (pid, (used, _, _, collections)):
        heap = _heap(pid)
    assert (heap.runtime, heap.source) == ("jvm", "hsperfdata")
    assert heap.limit_bytes == 128 * MIB
    assert heap.used_bytes == pytest.approx(used, rel=0.06)
    assert 19 * MIB < (heap.kept_bytes or 0) < 25 * MIB
    assert heap.collections == collections and heap.full_collections == 2
    assert 20 * MIB < (heap.resident_bytes or 0) <= 128 * MIB


def test_a_java_heap_without_counters_is_found_and_its_fill_is_a_gap(kept: Path) -> None:
    with _running(["java", "-Xmx128m", "-XX:-UsePerfData", "-cp", str(kept), "Kept"]) as (pid, _):
        context = _look(pid)
    (heap,) = context.emitted(ManagedHeap)
    assert context.gaps == [("not-supported", "hsperfdata")]
    assert heap.used_bytes is None and heap.limit_bytes == 128 * MIB
    assert 20 * MIB < heap.resident_bytes <= 128 * MIB


@given(st.binary(max_size=300), st.integers(0, 4), st.integers(0, 200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_make_the_counters_reader_fail(rest: bytes, entries: int, at: int) -> None:
    prologue = b"\xca\xfe\xc0\xc0\1\2\0\1" + bytes(16) + bytes([at, 0, 0, 0, entries, 0, 0, 0])
    for content in (rest, prologue + rest):
        with suppress(NotSupported):
            heap_figures(parse_counters(content))


def _asked(pid: int) -> RecordingContext:
    system = System()
    context = RecordingContext(pid, identity=ProcessIdentity(system, pid))
    probe = JavaClassesProbe()
    probe.begin(context, 1)
    probe.finish(context, 2)
    return context


def test_a_jvm_tells_its_objects_by_class_without_a_jdk(kept: Path) -> None:
    tracking = "-XX:NativeMemoryTracking=summary"
    with _running(["java", "-Xmx128m", tracking, "-cp", str(kept), "Kept"]) as (pid, _):
        context = _asked(pid)
        left = {path.name for path in Path("/tmp").glob(".attach_pid*")}
        assert f".attach_pid{pid}" not in left
    assert not context.gaps
    first, last = context.emitted(ManagedClasses)
    for classes in (first, last):
        counts = dict(zip(classes.names, classes.counts))
        assert counts["byte[]"] > 20_000 and counts["java.lang.String"] > 100
        assert classes.includes_garbage
    native = dict(zip(*(getattr(context.emitted(ManagedNative)[0], name) for name in PURPOSES)))
    assert native["java-heap"] == 128 * MIB and native["thread"] > 0


@pytest.mark.parametrize(
    "option, detail",
    [("-XX:+DisableAttachMechanism", "jvm-attach"), ("-Xrs", "native-memory-tracking")],
)
def test_a_jvm_that_cannot_be_asked_is_left_alone(option: str, detail: str, kept: Path) -> None:
    with _running(["java", "-Xmx128m", option, "-cp", str(kept), "Kept"]) as (pid, _):
        context = _asked(pid)
        time.sleep(0.2)
        assert Path(f"/proc/{pid}/status").exists()
        assert "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    assert context.gaps == [("not-supported", detail)]


def test_classes_are_called_as_the_language_calls_them() -> None:
    text = """ num     #instances         #bytes  class name (module)
-------------------------------------------------------
   1:         20100       20400000  [B (java.base@17.0.15)
   2:           300         90000  [[Ljava.lang.String; (java.base@17.0.15)
   3:            10         160    Session
   4:             5          80    Session
Total         20415       20490240
"""
    assert parse_histogram(text) == [
        ClassCount("byte[]", 20100, 20400000),
        ClassCount("java.lang.String[][]", 300, 90000),
        ClassCount("Session", 15, 240),
    ]


def test_an_answer_that_no_jvm_gives_neither_holds_nor_ends_the_capture() -> None:
    assert parse_histogram("\n" * (1 << 20)) == []
    assert parse_histogram(f"1: {'9' * 5000} 1 Session\n1: 2 {'9' * 25} Session\n") == []
    many = "1: 9999999999999 9999999999999 Session\n" * 100
    assert parse_histogram(many)[0].objects < 1 << 63


def test_counters_that_no_jvm_has_are_none() -> None:
    spaces = {f"sun.gc.generation.0.space.{n}.used": (1 << 63) - 1 for n in range(8)}
    figures = heap_figures({**spaces, "sun.gc.metaspace.capacity": -5})
    assert figures.used_bytes is None and figures.metadata_bytes is None


# --- Go -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["", "-s -w"])
def test_gos_own_figures_are_found_in_a_stripped_program_too(flags: str, tmp_path: Path) -> None:
    _need("go")
    program = tmp_path / "kept"
    environment = {**os.environ, "GOCACHE": str(tmp_path.parent / "go"), "GO111MODULE": "off"}
    build = ["go", "build", "-ldflags", flags, "-o", str(program), str(HERE / "kept.go")]
    subprocess.run(build, check=True, env=environment, timeout=120)
    with _running([program]) as (pid, (used, committed, stacks, collections)):
        heap = _heap(pid)
    assert (heap.runtime, heap.source) == ("go", "heap-stats")
    assert heap.used_bytes == pytest.approx(used, rel=0.01)
    assert heap.committed_bytes == pytest.approx(committed, rel=0.02)
    assert heap.metadata_bytes == pytest.approx(stacks, abs=256 << 10)
    assert heap.collections == collections > 0
    assert 20 * MIB < (heap.resident_bytes or 0) < 60 * MIB


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=600))
@settings(max_examples=50, deadline=None)
def test_other_words_are_not_gos_figures(words: list[int]) -> None:
    content = b"".join(word.to_bytes(8, "little", signed=True) for word in words)
    assert find_go_heap(memoryview(content + bytes(4096))) is None


# --- Node -----------------------------------------------------------------------------------------


def test_v8s_pages_are_as_many_bytes_as_node_says() -> None:
    _need("node")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if not version.stdout.startswith("v20."):
        pytest.skip(f"the form of V8's pages is known of Node 20, this is {version.stdout.strip()}")
    with _running(["node", "--expose-gc", HERE / "kept.js"]) as (pid, (committed, used, _)):
        heap = _heap(pid)
    assert (heap.runtime, heap.source) == ("node", "v8-pages")
    assert heap.committed_bytes == pytest.approx(committed, rel=0.05)
    assert heap.kept_bytes == pytest.approx(used, rel=0.05)
    assert 20 * MIB < (heap.resident_bytes or 0) <= (heap.committed_bytes or 0)


def test_a_program_without_a_collector_has_neither_record_nor_gap() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            context = _look(process.pid)
        finally:
            process.kill()
    assert not context.records and not context.gaps
