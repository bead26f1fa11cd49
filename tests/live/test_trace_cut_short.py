"""A collector that is stopped must not leave its probes in its target, and says what that cost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from leakcase_bundle.records import Gap, TraceOutstanding, TraceSurvival, TraceWindow
from tests.collector.system import started
from tests.collector.system.compiled import compiled
from tests.live.bpf_things import children, needs_bpf
from tests.live.collecting import COLLECT, of_kind, read
from tests.live.tracer_targets import FEW, SOURCE, Counted, points

pytestmark = [pytest.mark.live, needs_bpf]
SECONDS = 40.0
wait_until = partial(started.wait_until, seconds=SECONDS)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    flags = ["-O2", "-fomit-frame-pointer", "-fno-builtin", "-pthread"]
    return compiled(tmp_path_factory.mktemp("counted"), "counted", SOURCE.read_text(), flags)


class Watched:
    """A target whose code shows whether probes are in."""

    def __init__(self, target: Counted, libc: Path) -> None:
        self.target = target
        self._points = [point._replace(path=str(libc)) for point in points(FEW)]
        self._code = self._now()

    def _now(self) -> list[bytes]:
        return [self.target.code_at(point) for point in self._points]

    def has_probes(self) -> bool:
        return self._now() != self._code

    def is_clean(self) -> bool:
        return self._now() == self._code


@pytest.fixture
def watched(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """With a libc of its own: a process that is killed while it has probes may leave the kernel's
    note of them at the file for good."""
    libc = tmp_path / "libc.so.6"
    shutil.copy(points(FEW)[0].path, libc)
    with monkeypatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(tmp_path))
        target = Counted(program)
    try:
        yield Watched(target, libc)
    finally:
        target.end()


@contextmanager
def traced(watched: Watched, mode: str, case: Path) -> Iterator[subprocess.Popen[bytes]]:
    """By the command, from its first probe on; ended by Ctrl-C."""
    command = [*COLLECT, "capture", str(watched.target.pid), "--trace", mode, "--duration", "20s",
               "--interval", "200ms", "--allow", "read-memory,trace", "--max-slowdown", "100%",
               "-o", str(case)]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            wait_until(watched.has_probes)
            yield process
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=SECONDS)
            assert process.returncode == 130, said
            assert b"Traceback" not in said
        finally:
            process.kill()


def test_full_tracing_that_is_stopped_is_undone_and_tells_what_it_saw_until_then(
    watched: Watched, tmp_path: Path
) -> None:
    case, target = tmp_path / "stopped.leakcase", watched.target
    with traced(watched, "full", case) as collector:
        time.sleep(0.3)  # It still takes its first stacks.
        target.tell("leak 50 4000")
        time.sleep(0.6)
        collector.send_signal(signal.SIGSTOP)
        target.tell("leak 7 4000")
        wait_until(watched.is_clean)
        target.tell("leak 9 4000")
        collector.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        assert watched.is_clean()
    records, reader = read(case)
    assert reader.complete
    assert "cut-short" in {gap.detail for gap in of_kind(records, Gap)}
    (outstanding,) = of_kind(records, TraceOutstanding)[:1]
    # None of them where the host is so busy that no beat came before the stop.
    assert sum(outstanding.blocks) in (0, 50)
    (window,) = (one for one in of_kind(records, TraceWindow) if one.watched == "allocator")
    assert window.duration_ns < 5e9


@pytest.mark.slow
def test_a_window_in_which_the_collector_is_stopped_is_undone_and_left_out(
    watched: Watched, tmp_path: Path
) -> None:
    case, target = tmp_path / "stopped.leakcase", watched.target
    with traced(watched, "bursts", case) as collector:
        collector.send_signal(signal.SIGSTOP)
        wait_until(watched.is_clean)
        target.tell("leak 9 4000")
        collector.send_signal(signal.SIGCONT)
        time.sleep(1)
    wait_until(watched.is_clean)
    records, reader = read(case)
    assert reader.complete
    assert "cut-short" in {gap.detail for gap in of_kind(records, Gap)}
    windows = [one for one in of_kind(records, TraceWindow) if one.watched == "allocator"]
    assert all(window.duration_ns < 1e9 for window in windows)
    assert all(sum(look.alive) < 9 for look in of_kind(records, TraceSurvival))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_the_holder_of_the_probes_may_be_stopped_or_killed(
    number: signal.Signals, watched: Watched, tmp_path: Path
) -> None:
    case, target = tmp_path / "holder.leakcase", watched.target
    with traced(watched, "full", case) as collector:
        time.sleep(0.5)  # It still takes its first stacks.
        target.tell("leak 50 4000")
        time.sleep(1)
        for holder in children(collector.pid):
            os.kill(holder, number)
        time.sleep(0.5)
        target.tell("leak 7 4000")
    wait_until(watched.is_clean)
    records, reader = read(case)
    assert reader.complete
    is_told = "cut-short" in {gap.detail for gap in of_kind(records, Gap)}
    assert is_told == (number == signal.SIGKILL)
    (outstanding,) = of_kind(records, TraceOutstanding)[:1]
    assert sum(outstanding.blocks) in ((0, 50) if is_told else (57,))
