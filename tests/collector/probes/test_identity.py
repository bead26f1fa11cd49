from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leakcase_bundle.records import Target
from leakcase_collector.probes.identity import (
    IdentityProbe,
    StatusFacts,
    parse_cmdline,
    parse_integer,
    parse_status_facts,
    parse_user,
)
from tests.collector.probes.children import python
from tests.collector.probes.context import RecordingContext
from tests.collector.probes.recording import machine, recorded

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\nalice:x:997:998::/home/alice:/bin/sh\nbroken:x\n:x:5:5::\n"
)
EXEC = "import os; print(1, flush=True); input(); os.execv('/bin/sleep', ['sleep', '60'])"


def test_status_gives_the_effective_user_and_the_innermost_pid() -> None:
    content = recorded("status-linux-6.18.txt").replace(b"NSpid:\t10702", b"NSpid:\t10702\t77\t3")
    content = content.replace(b"Uid:\t0\t0", b"Uid:\t0\t997").replace(
        b"TracerPid:\t0", b"TracerPid:\t12"
    )
    assert parse_status_facts(content) == StatusFacts(997, 12, 0, 3)


def test_an_old_kernel_knows_no_pid_in_the_namespace() -> None:
    facts = parse_status_facts(recorded("status-linux-3.10.txt"))
    assert facts == StatusFacts(997, 0, 0, None)


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        (b"/usr/bin/python3\0-m\0http.server\0", ["/usr/bin/python3", "-m", "http.server"]),
        (b"a\0\0b\0", ["a", "", "b"]),
        (b"redis-server *:6379\0\0\0\0\0", ["redis-server *:6379"]),
        (b"postgres: alice payroll 10.0.0.7(5432) idle", None),
        (b"", []),
        (b"a\xff\0", ["a\udcff"]),
    ],
)
def test_arguments_are_split_at_nuls(content: bytes, arguments: list[str] | None) -> None:
    assert parse_cmdline(content) == ([content.decode()] if arguments is None else arguments)


def test_an_adjustment_may_be_negative() -> None:
    assert parse_integer(b"-1000\n") == -1000
    assert parse_integer(b"667\n") == 667
    assert parse_integer(b"--1") is None


def test_a_user_is_found_by_number_and_a_broken_line_is_passed_over() -> None:
    assert parse_user(PASSWD, 997) == b"alice"
    assert parse_user(PASSWD, 5) is None
    assert parse_user(b"", 0) is None


def _target(context: RecordingContext, taken_ns: int | None = None) -> Target:
    IdentityProbe().begin(context, time.monotonic_ns() if taken_ns is None else taken_ns)
    targets = context.emitted(Target)
    assert targets
    last = targets[-1]
    assert isinstance(last, Target)
    return last


def test_a_child_of_ours_is_recognised_and_its_secrets_are_not_shown() -> None:
    started_ns = time.monotonic_ns()
    with python("", arguments=["--port", "8080", "--password=hunter2", "payroll"]) as child:
        context = RecordingContext(child.pid)
        target = _target(context)
        now_ns = time.monotonic_ns()
    assert (target.pid, target.parent_pid) == (child.pid, os.getpid())
    assert target.state in ("running", "sleeping")
    assert target.threads == 1
    # The kernel counts start times in ticks of 10 ms.
    assert 0 <= target.age_ns <= now_ns - started_ns + 20_000_000
    assert target.uid == os.geteuid()
    program = os.path.basename(os.path.realpath(sys.executable))
    assert target.executable is not None and target.executable.endswith("/" + program)
    assert target.executable_deleted is False
    assert target.argument_count == 7
    assert target.arguments is not None
    assert "--port" in target.arguments
    assert "--password" in target.arguments
    assert (target.in_container, target.other_pid_namespace, target.traced) == (False, False, False)
    assert target.namespace_pid == child.pid
    assert target.oom_score is not None and target.oom_score_adj is not None
    assert context.gaps == []
    shown = str(target)
    for secret in ("hunter2", "payroll", "8080"):
        assert secret not in shown


def test_a_deleted_program_is_said_to_be_deleted(tmp_path: Path) -> None:
    program = tmp_path / "payroll-daemon"
    shutil.copy("/bin/sleep", program)
    process = subprocess.Popen([str(program), "60"])
    try:
        program.unlink()
        target = _target(RecordingContext(process.pid))
    finally:
        process.kill()
        process.wait()
    assert target.executable_deleted is True
    assert target.executable is not None and target.executable.endswith("/payroll-daemon")
    assert "(deleted)" not in target.executable
    # The process's name repeats the program's, which its path shows anyway.
    assert target.name == "payroll-daemon"


def test_after_an_exec_the_new_program_is_emitted() -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os; print(1, flush=True); input(); os.execv('/bin/sleep', ['sleep', '60'])",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        context = RecordingContext(process.pid)
        probe = IdentityProbe()
        probe.begin(context, time.monotonic_ns())
        process.stdin.write(b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 5
        while "sleep" not in os.readlink(f"/proc/{process.pid}/exe"):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        probe.begin(context, time.monotonic_ns())
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
    before, after = context.emitted(Target)
    assert before.start_ticks == after.start_ticks
    assert before.executable != after.executable
    assert after.name == "sleep"


def test_a_zombie_has_no_program_and_that_is_no_gap() -> None:
    with python("") as child:
        child.kill_without_reaping()
        context = RecordingContext(child.pid)
        target = _target(context)
    assert target.state == "zombie"
    assert target.executable is None and target.executable_deleted is None
    assert target.argument_count == 0
    assert context.gaps == []


def test_a_recorded_container_is_told_from_the_host(tmp_path: Path) -> None:
    ours = {"pid": 1, "mnt": 2, "user": 3, "net": 4, "cgroup": 5}
    theirs = {"pid": 11, "mnt": 12, "user": 13, "net": 4, "cgroup": 5}
    links = {f"/proc/self/ns/{name}": f"{name}:[{inode}]" for name, inode in ours.items()}
    links |= {f"/proc/4711/ns/{name}": f"{name}:[{inode}]" for name, inode in theirs.items()}
    links["/proc/4711/exe"] = "/usr/bin/python3.11"
    status = recorded("status-linux-6.18.txt").replace(b"NSpid:\t10702", b"NSpid:\t4711\t1")
    files = {
        "/proc/4711/stat": recorded("stat-linux-6.18.txt"),
        "/proc/4711/status": status.replace(b"Seccomp:\t0", b"Seccomp:\t2"),
        "/proc/4711/cmdline": b"python3\0",
        "/proc/4711/cgroup": b"0::/kubepods.slice/payroll\n",
        "/proc/4711/oom_score": b"667\n",
        "/proc/4711/oom_score_adj": b"-997\n",
        "/etc/passwd": PASSWD,
    }
    target = _target(RecordingContext(4711, machine(tmp_path, files, links)), 10**18)
    assert target.in_container is True
    assert (target.other_pid_namespace, target.other_mount_namespace) == (True, True)
    assert target.namespace_pid == 1
    assert target.seccomp_mode == 2
    assert target.oom_score_adj == -997
    # Names of the host's users mean nothing in another user namespace.
    assert (target.other_user_namespace, target.user, target.uid) == (True, None, 0)
    assert target.cgroup is not None and target.cgroup.startswith("/kubepods.slice/<")


def test_what_cannot_be_read_is_a_gap_each_and_the_rest_is_there(tmp_path: Path) -> None:
    files = {
        "/proc/4711/stat": recorded("stat-linux-6.18.txt"),
        "/proc/4711/status": recorded("status-linux-3.10.txt"),
        "/etc/passwd": PASSWD,
    }
    context = RecordingContext(4711, machine(tmp_path, files))
    target = _target(context, 10**18)
    assert target.uid == 997
    assert target.user == "<user:1>"
    assert target.executable is None
    assert (target.oom_score, target.cgroup, target.in_container) == (None, None, None)
    assert {detail for _, detail in context.gaps} == {"exe", "cmdline", "cgroup", "other"}
