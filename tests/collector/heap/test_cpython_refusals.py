"""Pythons whose objects cannot be counted are refused with a reason, and nothing is made up."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from leakcase_bundle.records import PythonCensus, PythonTypes
from leakcase_collector.errors import (
    CollectorError,
    LeftOut,
    NotPermitted,
    NotSupported,
    TargetGone,
)
from leakcase_collector.heap.cpython import count_objects
from leakcase_collector.heap.cpython_blocks import ResidentBlocks
from leakcase_collector.heap.cpython_layout import layout_of
from leakcase_collector.heap.cpython_pools import parse_header
from leakcase_collector.heap.cpython_runtime import PythonImage, find_collector
from leakcase_collector.heap.cpython_types import TypeTable
from leakcase_collector.probes.python_types import TYPES_MAX, PythonTypesProbe, find_python
from leakcase_collector.redact import Redactor
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import MemoryMapping
from tests.collector.heap.pythons import census, program, pythons
from tests.collector.heap.test_cpython import LEAKING
from tests.collector.probes.context import RecordingContext, run
from tests.collector.system.started import as_nobody, needs_root, started, wait_until

BASE = 0x7F0000000000


class RecordedMemory:
    """Some bytes at BASE, and nothing else."""

    pointer_bytes = 8

    def __init__(self, content: bytes) -> None:
        self._content = content

    def mappings(self) -> list[MemoryMapping]:
        return []

    def read(self, address: int, size: int) -> bytes:
        return self._content[address - BASE : address - BASE + size]

    def read_into(self, address: int, view: memoryview) -> int:
        content = self.read(address, len(view))
        view[: len(content)] = content
        return len(content)

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        low, high = max(start, BASE), min(end, BASE + len(self._content))
        return [(low, high)] if low < high else []


def image_of(runtime: bytes) -> tuple[PythonImage, ResidentBlocks]:
    image = PythonImage("/usr/bin/python3", BASE, len(runtime), BASE, None)
    return image, ResidentBlocks(RecordedMemory(runtime))


def collector_of(runtime: bytes) -> None:
    find_collector(*image_of(runtime))


def debug_offsets(version: int, free_threaded: int) -> bytes:
    """The beginning of _PyRuntime since 3.13."""
    return b"xdebugpy" + struct.pack("=QQ", version, free_threaded) + bytes(8192)


def test_a_newer_version_is_refused_by_its_number() -> None:
    with pytest.raises(NotSupported, match=r"version 3\.16"):
        collector_of(debug_offsets(0x031000F0, 0))


def test_a_free_threaded_build_is_refused() -> None:
    with pytest.raises(NotSupported, match="free-threaded"):
        collector_of(debug_offsets(0x030D00F0, 1))


@pytest.mark.parametrize("version", [0x030D00F0, 0x030E00F0])
@pytest.mark.parametrize(("words", "reason"), [(b"\xff", "damaged"), (b"\0", "not running")])
def test_a_damaged_description_of_itself_is_refused(
    version: int, words: bytes, reason: str
) -> None:
    with pytest.raises(NotSupported, match=reason):
        collector_of(debug_offsets(version, 0)[:24] + words * 8192)


@pytest.mark.parametrize("word", [20, 26, 32], ids=["thread", "frame", "code"])
def test_an_offset_that_no_structure_of_its_kind_has_is_refused(word: int) -> None:
    words = [0] * 96
    words[word] = 70_000
    content = debug_offsets(0x030D00F0, 0)[:24] + struct.pack("=96Q", *words)
    with pytest.raises(NotSupported, match="damaged"):
        layout_of(*image_of(content))


@pytest.mark.parametrize("content", [bytes(1464), bytes(200_000), b"\x08" * 4096, b""])
def test_a_runtime_of_no_known_shape_is_refused(content: bytes) -> None:
    with pytest.raises(NotSupported, match="is not affected"):
        collector_of(content)


@pytest.mark.parametrize("python", pythons("2.7", "3.6", "3.7"))
def test_an_older_python_is_refused(python: str) -> None:
    code = "import sys; sys.stdout.write('0\\n'); sys.stdout.flush(); sys.stdin.read()"
    with started([python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(NotSupported, match=r"3\.8 to 3\.14"):
            census(process.pid)


@pytest.mark.parametrize("python", pythons("3.9", "3.10", "3.11", "3.12", "3.13", "3.14"))
def test_sub_interpreters_are_refused(python: str) -> None:
    code = """
try: import _interpreters
except ImportError: import _xxsubinterpreters as _interpreters
made = _interpreters.create()
tell(0)
sys.stdin.readline()
_interpreters.destroy(made)
tell(0)
sys.stdin.read()
"""
    with program(python, code) as held:
        with pytest.raises(NotSupported, match="sub-interpreters"):
            census(held.pid)
        held.ask()
        assert census(held.pid).tracked_complete, "the one that is left is counted again"


def test_pypy_is_refused(tmp_path: Path) -> None:
    """A program with a library of PyPy's name: the real one is on few machines."""
    library = next(
        Path(line.split()[-1])
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "/libm.so" in line or "/libm-" in line
    )
    shutil.copy(library, tmp_path / "libpypy3.10-c.so")
    environment = {**os.environ, "LD_PRELOAD": str(tmp_path / "libpypy3.10-c.so")}
    with started(["/bin/sleep", "60"], env=environment) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        wait_until(lambda: "r-xp" in "".join(x for x in maps.open() if "libpypy" in x))
        with pytest.raises(NotSupported, match="PyPy"):
            find_python(context_of(process.pid).subject)


def test_words_that_are_no_type_and_headers_that_are_no_pool_are_none() -> None:
    content = bytes(range(256)) * 64
    table = TypeTable(ResidentBlocks(RecordedMemory(content)), BASE)
    addresses = [*range(BASE, BASE + 512), 0, 8, 1 << 63, (1 << 64) - 8]
    assert [table.find(address) for address in addresses] == [None] * len(addresses)
    assert {parse_header(content[at : at + 48], BASE, 16384) for at in range(200)} == {None}
    assert parse_header(bytes(48), BASE, 16384) is None


# --- as a probe -----------------------------------------------------------------------------------


def context_of(pid: int, redactor: Redactor | None = None) -> RecordingContext:
    return RecordingContext(pid, identity=ProcessIdentity(System(), pid), redactor=redactor)


def test_the_probe_tells_the_growth_of_a_type_between_begin_and_finish() -> None:
    with program(sys.executable, LEAKING) as held:
        context, probe = context_of(held.pid), PythonTypesProbe()
        probe.begin(context, 1)
        held.ask()
        probe.finish(context, 2)
    first, last = context.emitted(PythonCensus)
    assert (first.census, last.census) == (0, 1)
    assert first.tracked_complete
    assert str(first.version).startswith(".".join(map(str, sys.version_info[:2])))
    told = [
        {(str(n), s): c for n, s, c in zip(t.names, t.sources, t.counts)}
        for t in context.emitted(PythonTypes)
    ]
    assert told[1]["Session", "gc"] - told[0]["Session", "gc"] == 2003
    assert last.tracked_objects - first.tracked_objects >= 2003
    sizes = context.emitted(PythonTypes)[0].sizes_bytes
    assert sizes == sorted(sizes, reverse=True)
    assert context.gaps == []


def test_a_look_that_lacked_the_time_for_the_pools_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried = partial(count_objects, headers_cpu_ns=0)
    monkeypatch.setattr("leakcase_collector.probes.python_types.count_objects", hurried)
    with program(sys.executable, LEAKING) as held:
        context = run(PythonTypesProbe(), context_of(held.pid))
    assert context.gaps == [("no-time", None)]
    assert {one.pool_bytes for one in context.emitted(PythonCensus)} == {None}


def test_no_names_leave_the_case_without_symbols() -> None:
    with program(sys.executable, LEAKING) as held:
        context, probe = context_of(held.pid, Redactor(keep_symbols=False)), PythonTypesProbe()
        with pytest.raises(LeftOut):
            probe.begin(context, 1)
    assert len(context.emitted(PythonCensus)) == 1
    assert context.emitted(PythonTypes) == []


def test_the_smallest_of_very_many_types_are_folded_and_the_loss_is_told() -> None:
    code = """
kinds = [type("Kind%d" % number, (), {}) for number in range(400)]
keep = [kind() for kind in kinds]
tell(0)
sys.stdin.read()
"""
    with program(sys.executable, code) as held:
        context, probe = context_of(held.pid), PythonTypesProbe()
        probe.begin(context, 1)
    types = context.emitted(PythonTypes)[0]
    assert len(types.names) == len(types.counts) == len(types.sources) == TYPES_MAX
    assert types.folded_types > 100
    assert context.losses == [("types", types.folded_types)]
    total = context.emitted(PythonCensus)[0]
    told = sum(types.sizes_bytes) + types.folded_bytes
    assert abs(told - total.tracked_bytes - total.untracked_bytes) < 4096


def test_a_program_without_python_has_no_record_and_no_gap() -> None:
    with started(["/bin/sleep", "60"]) as process:
        context = run(PythonTypesProbe(), context_of(process.pid))
    assert (context.records, context.gaps) == ([], [])


def _refused(pid: int) -> str:
    try:
        PythonTypesProbe().begin(context_of(pid), 1)
    except CollectorError as error:
        return type(error).__name__
    return "allowed"


@needs_root
def test_another_users_python_is_refused() -> None:
    with program(sys.executable, LEAKING) as held:
        assert as_nobody(lambda: _refused(held.pid)) == NotPermitted.__name__
        assert _refused(held.pid) == "allowed"


def test_a_target_that_ended_is_gone() -> None:
    with program(sys.executable, LEAKING) as held:
        context = context_of(held.pid)
        held.kill()
        with pytest.raises(TargetGone):
            PythonTypesProbe().begin(context, 1)
