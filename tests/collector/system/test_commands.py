"""Programs are run in a bare environment, in bounds, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leakcase_collector.errors import LimitReached, NotSupported
from leakcase_collector.system import commands
from leakcase_collector.system.clock import own_rss_bytes
from leakcase_collector.system.door import System
from tests.collector.system.started import is_running, wait_until


def test_output_status_and_cost_come_back() -> None:
    result = commands.run(["sh", "-c", "echo out; echo err >&2; exit 3"], 10)
    assert (result.stdout, result.stderr, result.exit_status) == (b"out\n", b"err\n", 3)
    assert 0 < result.cpu_ns < 10**9
    assert 0 < result.wall_ns < 10**10


def test_a_signal_is_a_negative_status() -> None:
    result = commands.run(["sh", "-c", "kill -TERM $$"], 10)
    assert result.exit_status == -signal.SIGTERM


def test_cpu_time_is_that_of_the_program() -> None:
    result = commands.run(["sh", "-c", "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"], 20)
    assert result.exit_status == 0
    assert result.cpu_ns > 5_000_000


def test_the_environment_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/tmp")
    monkeypatch.setenv("SECRET", "hunter2")
    output = commands.run(["env"], 10).stdout.decode()
    assert dict(line.split("=", 1) for line in output.splitlines()) == {
        "LC_ALL": "C",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }


def test_it_runs_in_the_root_directory_with_no_input() -> None:
    assert commands.run(["pwd"], 10).stdout == b"/\n"
    assert commands.run(["cat"], 10).stdout == b""


def test_no_descriptor_of_ours_is_inherited(tmp_path: Path) -> None:
    with open(tmp_path / "open", "w") as file:
        os.set_inheritable(file.fileno(), True)
        listing = commands.run(["ls", "-l", "/proc/self/fd"], 10).stdout
    assert str(tmp_path).encode() not in listing


def test_programs_are_found_only_in_the_system_s_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted-tool"
    planted.write_text("#!/bin/sh\necho pwned\n")
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    for name in ("planted-tool", str(planted), "./planted-tool", "../bin/ls", ""):
        assert commands.find_program(name) is None
        with pytest.raises(NotSupported, match="Install it"):
            commands.run([name], 10)
    found = commands.find_program("sh")
    assert found is not None
    assert found.startswith("/usr/")


def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; wait"
    started = time.monotonic()
    with pytest.raises(LimitReached, match="did not end in time"):
        commands.run(["sh", "-c", script], 0.5)
    assert time.monotonic() - started < 5
    for name in ("self", "child"):
        pid = int((tmp_path / name).read_text())
        wait_until(lambda pid=pid: not is_running(pid))  # type: ignore[misc]


def test_a_program_that_ignores_signals_and_closes_its_output_is_killed_too() -> None:
    started = time.monotonic()
    with pytest.raises(LimitReached):
        commands.run(["sh", "-c", "trap '' TERM INT; exec >&- 2>&-; sleep 300"], 0.3)
    assert time.monotonic() - started < 5


def test_too_much_output_ends_the_program_and_costs_no_memory() -> None:
    before = own_rss_bytes(System())
    with pytest.raises(LimitReached, match="more than 100000 bytes"):
        commands.run(["yes"], 10, output_limit_bytes=100_000)
    assert own_rss_bytes(System()) - before < 8 << 20


def test_what_a_program_leaves_in_the_background_does_not_hold_us_up_and_is_killed() -> None:
    started = time.monotonic()
    result = commands.run(["sh", "-c", "sleep 300 & echo $!"], 20)
    assert time.monotonic() - started < 10
    wait_until(lambda: not is_running(int(result.stdout)))


def test_our_own_sudden_death_ends_the_program(tmp_path: Path) -> None:
    code = (
        "from leakcase_collector.system import commands\n"
        f"commands.run(['sh', '-c', 'echo $$ > {tmp_path}/pid; exec sleep 300'], 300)\n"
    )
    pid_file = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", code]) as collector:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), 20)
        pid = int(pid_file.read_text())
        assert is_running(pid)
        collector.kill()
        collector.wait()
        wait_until(lambda: not is_running(pid))


def test_running_many_programs_leaves_no_descriptor_and_no_zombie() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        commands.run(["true"], 10)
        with pytest.raises(LimitReached):
            commands.run(["sleep", "300"], 0.01)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
