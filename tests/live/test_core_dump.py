"""A core is written beside the case when it was asked for in so many words, and nothing else is."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from leakcase_bundle.records import CoreDump, Cost, Gap
from leakcase_collector.attach.core_writer import write_core
from leakcase_collector.heap.census import Budget, Census, take_census
from leakcase_collector.heap.steps import best_step
from leakcase_collector.probes.core_dump import core_path
from leakcase_collector.system.apart import run_apart
from leakcase_collector.system.clock import monotonic_ns
from leakcase_collector.system.core_file import CoreFile
from leakcase_collector.system.core_memory import CoreMemory
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from tests.collector.attach.borrowed import state, tracer
from tests.collector.heap.subjects import subject
from tests.collector.system.started import wait_until
from tests.live.collecting import COLLECT, collect, of_kind, python_child, read

pytestmark = pytest.mark.live

SECRET = "swordfish-4711"
NAME = "a b;touch pwned;$(touch pwned)`touch pwned`&|<>'\"*.leakcase"
ASKED = ("--duration", "200ms", "--allow", "dump", "--with", "core-dump")
LARGE = "held = bytearray(160 << 20)\nfor at in range(0, len(held), 4096): held[at] = 1"


def dumped(pid: int, case: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return collect("capture", pid, "-o", case, *ASKED, *options)


def gaps_of(case: Path) -> list[tuple[str, str | None]]:
    records, _ = read(case)
    return [(one.reason, one.detail) for one in of_kind(records, Gap) if one.probe == "core-dump"]


def goes_on(pid: int) -> None:
    wait_until(lambda: state(pid) in "SR" and tracer(pid) == 0)


@dataclass(frozen=True)
class Dumped:
    """One capture with a core, of a program that held a secret."""

    folder: Path
    program: str
    done: subprocess.CompletedProcess[str]

    @property
    def case(self) -> Path:
        return self.folder / NAME

    @property
    def core(self) -> Path:
        return self.folder / NAME.replace(".leakcase", ".core")


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Dumped:
    folder = tmp_path_factory.mktemp("dump")
    with python_child(f"secret = '{SECRET}' * 3") as target:
        program = os.readlink(f"/proc/{target.pid}/exe")
        done = dumped(target.pid, folder / NAME)
        goes_on(target.pid)
    assert done.returncode == 0, done.stderr
    return Dumped(folder, program, done)


def test_a_core_is_written_beside_the_case_and_nothing_else_is(dump: Dumped) -> None:
    """Nor does its name mean anything to any shell."""
    written = {dump.case.name, f"{dump.case.name}.map", dump.core.name}
    assert {path.name for path in dump.folder.iterdir()} == written
    assert stat.S_IMODE(dump.core.stat().st_mode) == 0o600
    assert str(dump.core) in dump.done.stderr


def test_the_case_tells_its_size_and_the_pause_before_and_after(dump: Dumped) -> None:
    records, _ = read(dump.case)
    (told,) = of_kind(records, CoreDump)
    assert told.size_bytes == dump.core.stat().st_size
    assert 0.5 * told.disk_bytes < told.predicted_bytes < 1.5 * told.disk_bytes
    (cost,) = [one for one in of_kind(records, Cost) if one.probe == "core-dump"]
    assert cost.target_stopped_ns == told.stopped_ns
    assert told.stopped_ns < 2_000_000_000
    assert told.predicted_stop_ns == cost.predicted_stop_ns


def test_the_core_has_what_the_process_had_and_the_case_nothing_of_it(dump: Dumped) -> None:
    assert SECRET.encode() in dump.core.read_bytes()
    shown = subprocess.run(["zstd", "-dc", str(dump.case)], capture_output=True).stdout
    assert shown and SECRET.encode() not in shown and dump.folder.name.encode() not in shown


def test_the_core_is_read_like_any_other(dump: Dumped, tmp_path: Path) -> None:
    done = collect("capture", "--core", dump.core, "-o", tmp_path / "y.leakcase")
    assert done.returncode == 0, done.stderr
    records, _ = read(tmp_path / "y.leakcase")
    kinds = {type(one).__name__ for one in records}
    assert {"HeapCensus", "PythonCensus", "PythonTypes"} <= kinds


@pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is not installed")
def test_a_debugger_reads_it(dump: Dumped) -> None:
    command = ["gdb", "-nx", "-batch", "-ex", "backtrace", dump.program, str(dump.core)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert "nanosleep" in told or "select" in told
    assert "main" in told


def books(census: Census) -> list[Any]:
    names = ("system_bytes", "heaps", "in_use_chunks", "cached_chunks", "fast_bytes", "free_bytes")
    arenas = [[getattr(arena, name) for name in names] for arena in census.arenas]
    return [arenas, census.in_use_sizes(), census.mapped, census.is_complete]


def test_its_heap_and_threads_are_those_of_the_process(tmp_path: Path) -> None:
    """Of 200 MB that the program asked for and never touched none is in the file."""
    path = tmp_path / "core"
    with subject("idle", 3) as running:
        live = running.census()
        with ProcessIdentity(System(), running.pid) as held, path.open("wb") as file:
            fd = file.fileno()
            written = run_apart(
                lambda: write_core(System(), held, fd, monotonic_ns() + 10**10)._asdict(), 20
            )
        threads = sorted(map(int, os.listdir(f"/proc/{running.pid}/task")))
        assert running.figures("idle")
    with CoreFile(str(path)) as core:
        assert sorted(thread.thread_id for thread in core.threads) == threads
        memory = CoreMemory(core)
        found = take_census(memory, Budget(1 << 40, 1 << 40), best_step()[1])
    assert books(found) == books(live)
    assert written["threads"] == 4
    assert written["disk_bytes"] < 0.3 * written["size_bytes"]


def test_all_does_not_allow_it(tmp_path: Path) -> None:
    with python_child("") as target:
        done = collect("capture", target.pid, "--duration", "200ms", "--allow", "all",
                       "--with", "core-dump", "-o", tmp_path / "x.leakcase")  # fmt: skip
    assert done.returncode == 3
    assert gaps_of(tmp_path / "x.leakcase") == [("not-consented", None)]
    assert not (tmp_path / "x.core").exists()


def test_a_pause_that_is_longer_than_allowed_is_refused_before(tmp_path: Path) -> None:
    with python_child("") as target:
        done = dumped(target.pid, tmp_path / "x.leakcase", "--max-pause", "5ms")
        goes_on(target.pid)
    assert done.returncode == 3
    assert "stop the target" in done.stderr and "--max-pause" in done.stderr
    assert ("over-budget", None) in gaps_of(tmp_path / "x.leakcase")
    assert not (tmp_path / "x.core").exists()


def test_a_process_that_is_not_copied_in_time_is_let_go(tmp_path: Path) -> None:
    """What was predicted is one thing, how long it stands another: the limit holds as well."""
    path = tmp_path / "core"
    with python_child(LARGE) as target:
        with ProcessIdentity(System(), target.pid) as held, path.open("wb") as file:
            fd = file.fileno()
            started = time.monotonic()
            with pytest.raises(Exception, match="stood still for longer"):
                run_apart(lambda: write_core(System(), held, fd, monotonic_ns() + 20_000_000), 20)
            assert time.monotonic() - started < 1.0
        goes_on(target.pid)


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    core = tmp_path / "x.core"
    core.write_text("mine")
    with python_child("") as target:
        done = dumped(target.pid, tmp_path / "x.leakcase")
        goes_on(target.pid)
    assert done.returncode == 3
    assert "exists already" in done.stderr
    assert core.read_text() == "mine"


def test_a_process_that_was_stopped_stays_so(tmp_path: Path) -> None:
    with python_child("") as target:
        os.kill(target.pid, signal.SIGSTOP)
        wait_until(lambda: state(target.pid) == "T")
        done = dumped(target.pid, tmp_path / "x.leakcase")
        assert done.returncode == 0, done.stderr
        assert state(target.pid) == "T" and tracer(target.pid) == 0
        os.kill(target.pid, signal.SIGCONT)
        goes_on(target.pid)
    assert (tmp_path / "x.core").exists()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_an_end_in_the_middle_leaves_no_file_and_no_stopped_process(
    tmp_path: Path, ending: signal.Signals
) -> None:
    with python_child(LARGE) as target:
        command = [*COLLECT, "capture", str(target.pid), "-o", str(tmp_path / "x.leakcase"), *ASKED]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as capture:
            wait_until(lambda: tracer(target.pid) != 0, seconds=20)
            capture.send_signal(ending)
            _, said = capture.communicate(timeout=20)
        goes_on(target.pid)
    assert capture.returncode == (130 if ending == signal.SIGINT else -9), said
    assert {path.name for path in tmp_path.iterdir()} == {"x.leakcase", "x.leakcase.map"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_without_room_is_not_filled(small_disk: Path) -> None:
    with python_child("") as target:
        done = dumped(target.pid, small_disk / "x.leakcase")
        goes_on(target.pid)
    assert done.returncode == 3
    assert "are free on its disk" in done.stderr
    assert gaps_of(small_disk / "x.leakcase") == [("over-budget", None)]
    assert not (small_disk / "x.core").exists()


def test_the_core_has_the_name_of_the_case() -> None:
    assert core_path("/a/b.leakcase") == "/a/b.core"
    assert core_path("case") == "case.core"
