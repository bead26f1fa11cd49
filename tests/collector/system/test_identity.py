"""One process throughout: reuse of its number, exec, death, zombies, threads, containers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leakcase_collector.errors import NotPermitted, NotSupported, TargetGone
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import (
    ProcessIdentity,
    ProcessStat,
    is_in_container,
    namespaces,
    thread_group,
)
from tests.collector.system.started import (
    as_nobody,
    needs_root,
    started,
    started_python,
    wait_until,
)

SYSTEM = System()


def without_pidfd(system: System, pid: int) -> ProcessIdentity:
    """As on a kernel before 5.3: only pid and start time."""
    identity = ProcessIdentity(system, pid)
    assert identity.pidfd is not None
    os.close(identity.pidfd)
    identity.pidfd = None
    return identity


def test_stat_is_split_after_the_last_parenthesis() -> None:
    fields = b"4711 (a) b (x) S 1 " + b" ".join(b"%d" % n for n in range(5, 53))
    stat = ProcessStat(fields)
    assert stat.comm == b"a) b (x"
    assert stat.state == "S"
    assert stat.field(4) == 1
    assert stat.start_ticks == 22
    assert stat.layout == (26, 27, 28, 47)


def test_a_stat_that_is_cut_off_is_not_supported() -> None:
    for content in (b"", b"1 (x", b"1 (x) S 1 2 3"):
        with pytest.raises(NotSupported):
            ProcessStat(content)


@pytest.mark.parametrize("take", [ProcessIdentity, without_pidfd])
def test_a_running_process_is_alive_and_the_same_until_it_ends(take: type[ProcessIdentity]) -> None:
    with started(["sleep", "60"]) as process, take(SYSTEM, process.pid) as identity:
        assert identity.pid == process.pid
        assert identity.is_alive()
        assert identity.is_same()
        identity.require_alive()
        assert not identity.is_kernel_thread
        process.kill()
        wait_until(lambda: not identity.is_alive())
        assert identity.is_same(), "an unreaped zombie still owns its number"
        process.wait()
        assert not identity.is_alive()
        assert not identity.is_same()
        with pytest.raises(TargetGone):
            identity.require_alive()


def test_the_start_time_agrees_with_ps() -> None:
    with started(["sleep", "60"]) as process, ProcessIdentity(SYSTEM, process.pid) as identity:
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        assert uptime - 10 < identity.start_ticks / os.sysconf("SC_CLK_TCK") <= uptime


def test_a_process_that_is_not_there_is_gone() -> None:
    with started(["true"]) as process:
        process.wait()
    with pytest.raises(TargetGone):
        ProcessIdentity(SYSTEM, process.pid)


def test_a_zombie_is_held_and_known_as_one() -> None:
    with started(["true"]) as process:
        wait_until(lambda: ProcessIdentity(SYSTEM, process.pid).stat().is_zombie)
        with ProcessIdentity(SYSTEM, process.pid) as identity:
            assert not identity.is_alive()
        assert not without_pidfd(SYSTEM, process.pid).is_alive()


@needs_root
def test_a_reused_number_is_noticed_by_every_way() -> None:
    """In a pid namespace of its own the next pid can be chosen, so that reuse is certain."""
    code = """
import os, subprocess, time
from leakcase_collector.errors import TargetGone
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
system = System()
first = subprocess.Popen(["sleep", "60"])
held, old = ProcessIdentity(system, first.pid), ProcessIdentity(system, first.pid)
os.close(old.pidfd); old.pidfd = None
kept = system.open_kept(f"/proc/{first.pid}/stat")
first.kill(); first.wait(); time.sleep(0.05)
open("/proc/sys/kernel/ns_last_pid", "w").write(str(first.pid - 1))
second = subprocess.Popen(["sleep", "60"])
assert second.pid == first.pid, (second.pid, first.pid)
try:
    kept.read(); print("kept file was fooled")
except TargetGone:
    print("gone", held.is_alive(), held.is_same(), old.is_alive(), old.is_same())
second.kill(); second.wait()
"""
    result = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    )
    assert result.stdout == b"gone False False False False\n"


def test_exec_of_another_program_is_noticed_once() -> None:
    shell = ["sh", "-c", "read line; exec sleep 60"]
    with (
        started(shell, stdin=subprocess.PIPE) as process,
        ProcessIdentity(SYSTEM, process.pid) as identity,
    ):
        start_ticks = identity.start_ticks
        assert identity.has_executed() is False
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
        wait_until(lambda: identity.has_executed() is True)
        assert identity.has_executed() is False
        assert identity.is_alive()
        assert identity.stat().start_ticks == start_ticks


def test_exec_of_the_same_program_is_noticed_too() -> None:
    code = (
        "import os, sys; print(1); line = sys.stdin.readline();"
        "line and os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    with (
        started_python(code, stdin=subprocess.PIPE) as process,
        ProcessIdentity(SYSTEM, process.pid) as identity,
    ):
        before = identity.image
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        wait_until(lambda: identity.has_executed() is True)
        assert identity.image.file == before.file
        process.stdin.close()


def test_a_thread_that_renames_itself_has_not_executed() -> None:
    code = (
        "import sys; print(1); sys.stdin.readline();"
        "open('/proc/self/comm', 'w').write('other'); print(2); sys.stdin.readline()"
    )
    with (
        started_python(code, stdin=subprocess.PIPE) as process,
        ProcessIdentity(SYSTEM, process.pid) as identity,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert identity.stat().comm == b"other"
        assert identity.has_executed() is False
        process.stdin.close()


@needs_root
def test_whether_another_user_s_process_executed_is_unknown_and_not_no() -> None:
    with started(["sleep", "60"]) as process:
        pid = process.pid

        def look() -> tuple[object, ...]:
            with ProcessIdentity(System(), pid) as identity:
                return (
                    identity.is_alive(),
                    identity.has_executed(),
                    is_in_container(System(), pid),
                    identity.image.layout,
                )

        assert as_nobody(look) == (True, None, None, None)


def test_a_thread_s_number_leads_to_its_process() -> None:
    code = (
        "import threading, time; t = threading.Thread(target=time.sleep, args=(60,)); t.start();"
        "print(1)"
    )
    with started_python(code) as process:
        threads = sorted(int(name) for name in os.listdir(f"/proc/{process.pid}/task"))
        assert len(threads) == 2
        assert thread_group(SYSTEM, threads[1]) == process.pid
        with ProcessIdentity(SYSTEM, threads[1]) as identity:
            assert identity.pid == process.pid
            assert identity.is_alive()


@pytest.mark.parametrize("take", [ProcessIdentity, without_pidfd])
def test_a_process_whose_main_thread_left_is_alive_and_no_zombie(
    take: type[ProcessIdentity],
) -> None:
    code = (
        "import ctypes, threading, time;"
        "threading.Thread(target=time.sleep, args=(60,)).start(); print(1);"
        "ctypes.CDLL(None).syscall(60, 0)"
    )
    if os.uname().machine != "x86_64":
        pytest.skip("the number of exit(2) is that of x86-64")
    with started_python(code) as process:
        wait_until(lambda: ProcessIdentity(SYSTEM, process.pid).stat().state == "Z")
        with take(SYSTEM, process.pid) as identity:
            assert identity.is_alive()
            assert not identity.stat().is_zombie


@pytest.mark.skipif(not os.path.exists("/proc/2/status"), reason="no kernel thread is visible here")
def test_kernel_threads_are_recognised() -> None:
    if "kthreadd" not in Path("/proc/2/comm").read_text():
        pytest.skip("pid 2 is no kernel thread in this pid namespace")
    with ProcessIdentity(SYSTEM, 2) as identity:
        assert identity.is_kernel_thread
        assert identity.image.layout is None


def test_a_recorded_process_is_held_without_a_pidfd(tmp_path: Path) -> None:
    (tmp_path / "4711").mkdir()
    for name in ("status", "stat"):
        (tmp_path / "4711" / name).write_bytes(Path(f"/proc/self/{name}").read_bytes())
    status = (tmp_path / "4711/status").read_text()
    (tmp_path / "4711/status").write_text(status.replace(f"Tgid:\t{os.getpid()}", "Tgid:\t4711"))
    with ProcessIdentity(System(proc=str(tmp_path)), 4711) as identity:
        assert identity.pidfd is None
        assert identity.is_alive()


def test_namespaces_are_those_of_the_links() -> None:
    mine = namespaces(SYSTEM, "self")
    assert mine.mount == os.stat("/proc/self/ns/mnt").st_ino
    assert mine.network == os.stat("/proc/self/ns/net").st_ino
    assert is_in_container(SYSTEM, os.getpid()) is False


@needs_root
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--mount"], False),
        (["--mount", "--root=/usr"], True),
        (["--pid", "--fork", "--kill-child"], True),
        (["--net"], False),
    ],
    ids=["private-mounts", "own-root", "own-pids", "own-network"],
)
def test_what_counts_as_a_container(options: list[str], expected: bool) -> None:
    with started(["unshare", *options, "/bin/sleep", "60"]) as process:
        pid = process.pid
        if "--fork" in options:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            wait_until(lambda: bool(children.read_text().split()))
            pid = int(children.read_text().split()[0])
        wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        assert is_in_container(SYSTEM, pid) is expected


def test_holding_a_process_leaves_no_descriptor_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with started(["sleep", "60"]) as process:
        for _ in range(5):
            with ProcessIdentity(SYSTEM, process.pid) as identity:
                identity.has_executed()
    with pytest.raises((TargetGone, NotPermitted)):
        ProcessIdentity(SYSTEM, process.pid)
    time.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before
