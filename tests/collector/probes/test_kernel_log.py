"""The log's lines are built from the format strings of mm/oom_kill.c: nothing is killed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leakcase_bundle.records import OomKill
from leakcase_collector.errors import CollectorError
from leakcase_collector.probes.kernel_log import MAX_KILLS, KernelLogProbe, parse_kernel_log
from tests.collector.probes.context import RecordingContext
from tests.collector.probes.recording import machine

KB = 1024
HOST = {"/proc/self/ns/pid": "pid:[4026531836]", "/proc/self/ns/cgroup": "cgroup:[4026531835]"}
CONTAINER = {"/proc/self/ns/pid": "pid:[4026532001]", "/proc/self/ns/cgroup": "cgroup:[4026532002]"}


class Started:
    """A target that started as many clock ticks after boot; all that the probe asks of it."""

    def __init__(self, start_ticks: int) -> None:
        self.start_ticks = start_ticks


def record(sequence: int, text: str, microseconds: int = 5_000_000, origin: int = 6) -> bytes:
    return f"{origin},{sequence},{microseconds},-;{text}\n".encode()


def context_line(pid: int, comm: str = "payrolld", group: str = "/docker/1f") -> str:
    """dump_oom_victim since Linux 5.0, for a control group's limit."""
    return (
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=1f,mems_allowed=0,"
        f"oom_memcg=/docker,task_memcg={group},task={comm},pid={pid},uid=1000"
    )


def killed_line(pid: int, comm: str = "payrolld", message: str = "Out of memory") -> str:
    """__oom_kill_process since Linux 5.4."""
    return (
        f"{message}: Killed process {pid} ({comm}) total-vm:409600kB, anon-rss:204800kB, "
        "file-rss:4kB, shmem-rss:8kB, UID:1000 pgtables:500kB oom_score_adj:0"
    )


NOISE = record(1, "Linux version 6.1.0") + (
    b"6,2,100,-;usb 1-1: new device\n SUBSYSTEM=usb\n DEVICE=c189:1\n4,3,200,c;continued"
)


def test_a_kill_by_a_groups_limit_is_told_with_its_group() -> None:
    log = (
        NOISE
        + b"\n"
        + record(7, context_line(4711))
        + record(8, killed_line(4711, message="Memory cgroup out of memory"), 5_000_123, origin=3)
    )
    (kill,) = parse_kernel_log(log)
    assert (kill.sequence, kill.taken_ns, kill.pid) == (8, 5_000_123_000, 4711)
    assert kill.comm == b"payrolld"
    assert kill.rss_anon_bytes == 204800 * KB
    assert kill.limited_by_cgroup
    assert kill.group == b"/docker/1f"


def test_a_kill_for_want_of_memory_on_the_host_is_no_groups() -> None:
    summary = (
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
        "task_memcg=/user.slice,task=a,task=b,pid=99,uid=0"
    )
    (kill,) = parse_kernel_log(record(7, summary) + record(8, killed_line(99, "a,task=b")))
    assert not kill.limited_by_cgroup
    assert kill.group == b"/user.slice"
    assert kill.comm == b"a,task=b"


@pytest.mark.parametrize(
    ("chosen", "killed", "by_group"),
    [
        # Linux 4.x: the process that is chosen may be the parent of the one that dies.
        (
            "Memory cgroup out of memory: Kill process 4710 (sh) score 973 or sacrifice child",
            "Killed process 4711 (x) total-vm:9kB, anon-rss:7kB, file-rss:0kB, shmem-rss:0kB",
            True,
        ),
        (
            "Out of memory: Kill process 4711 (x) score 973 or sacrifice child",
            "Killed process 4711 (x) total-vm:9kB, anon-rss:7kB, file-rss:0kB",
            False,
        ),
        # Red Hat's 3.10.
        (
            "Out of memory: Kill process 4711 (x) score 973 or sacrifice child",
            "Killed process 4711 (x), UID 994, total-vm:9kB, anon-rss:7kB, file-rss:0kB",
            False,
        ),
        # Linux 5.0 to 5.3 print the message in front and no UID.
        (
            "",
            "Memory cgroup out of memory: Killed process 4711 (x) total-vm:9kB, anon-rss:7kB, "
            "file-rss:0kB, shmem-rss:0kB",
            True,
        ),
    ],
)
def test_older_kernels_are_understood(chosen: str, killed: str, by_group: bool) -> None:
    (kill,) = parse_kernel_log(record(1, chosen) + record(2, killed))
    assert (kill.pid, kill.comm, kill.rss_anon_bytes) == (4711, b"x", 7 * KB)
    assert kill.limited_by_cgroup is by_group
    assert kill.group is None


def test_a_name_with_parentheses_and_escapes_is_the_name() -> None:
    (kill,) = parse_kernel_log(record(1, killed_line(5, r"a) (b\x0a\x5c")))
    assert kill.comm == b"a) (b\n\\"


def test_a_program_that_writes_to_the_log_cannot_forge_a_kill() -> None:
    # Facility 1, "user", is what the kernel gives to anything that is written to /dev/kmsg.
    forged = record(1, killed_line(4711), origin=8 + 3)
    assert parse_kernel_log(forged) == []


def test_the_reaper_and_skipped_victims_are_no_kills() -> None:
    log = record(1, "oom_reaper: reaped process 5 (x), now anon-rss:0kB, file-rss:0kB") + record(
        2, "Out of memory: OOM victim 5 (x) is already exiting. Skip killing the task"
    )
    assert parse_kernel_log(log) == []


def _capture(tmp_path: Path, log: bytes, links: dict[str, str], start_ticks: int = 0) -> Any:
    files = {"/dev/kmsg": log, "/proc/4711/cgroup": b"4:memory:/docker/1f\n0::/\n"}
    system = machine(tmp_path, files, links)
    context = RecordingContext(4711, system, identity=Started(start_ticks))
    probe = KernelLogProbe()
    probe.begin(context, 0)
    return probe, context


def test_the_targets_own_end_and_its_neighbours_are_told_apart(tmp_path: Path) -> None:
    log = b"".join(
        [
            record(1, context_line(4711)) + record(2, killed_line(4711)),
            record(3, context_line(4712, group="/docker/1f/below")) + record(4, killed_line(4712)),
            record(5, context_line(4713, group="/docker/1f2")) + record(6, killed_line(4713)),
            record(7, killed_line(4714)),
        ]
    )
    _, context = _capture(tmp_path, log, HOST)
    kills = context.emitted(OomKill)
    assert [kill.pid for kill in kills] == [4711, 4712, 4713, 4714]
    assert [kill.is_target for kill in kills] == [True, False, False, False]
    assert [kill.in_target_cgroup for kill in kills] == [True, True, False, None]
    assert [kill.limited_by_cgroup for kill in kills] == [True, True, True, False]
    assert "payrolld" not in str(kills)


def test_a_pid_that_was_killed_before_the_target_began_was_another_process(tmp_path: Path) -> None:
    # Five seconds after boot, and a target that began ten thousand years later.
    _, context = _capture(tmp_path, record(1, killed_line(4711)), HOST, start_ticks=3 * 10**13)
    (kill,) = context.emitted(OomKill)
    assert kill.is_target is False


def test_within_a_container_pids_and_groups_of_the_log_mean_nothing(tmp_path: Path) -> None:
    log = record(1, context_line(4711)) + record(2, killed_line(4711))
    _, context = _capture(tmp_path, log, CONTAINER)
    (kill,) = context.emitted(OomKill)
    assert (kill.is_target, kill.in_target_cgroup) == (None, None)
    assert kill.limited_by_cgroup


def test_kills_during_the_capture_are_told_at_its_end_and_none_twice(tmp_path: Path) -> None:
    before = record(1, killed_line(5))
    probe, context = _capture(tmp_path, before, HOST)
    (tmp_path / "dev/kmsg").write_bytes(before + record(2, killed_line(4711), 9_000_000))
    # The target is gone by then.
    (tmp_path / "proc/4711/cgroup").unlink()
    probe.finish(context, 10)
    assert [kill.pid for kill in context.emitted(OomKill)] == [5, 4711]
    assert [kill.taken_ns for kill in context.emitted(OomKill)] == [5 * 10**9, 9 * 10**9]


def test_the_newest_kills_are_kept_and_the_others_are_a_loss(tmp_path: Path) -> None:
    log = b"".join(record(n, killed_line(100 + n)) for n in range(MAX_KILLS + 3))
    _, context = _capture(tmp_path, log, HOST)
    assert [kill.pid for kill in context.emitted(OomKill)][-1] == 100 + MAX_KILLS + 2
    assert len(context.emitted(OomKill)) == MAX_KILLS
    assert context.losses == [("records", 3)]


def test_a_log_that_cannot_be_read_is_not_asked_again(tmp_path: Path) -> None:
    files = {"/proc/4711/cgroup": b"0::/\n"}
    context = RecordingContext(4711, machine(tmp_path, files, HOST), identity=Started(0))
    probe = KernelLogProbe()
    with pytest.raises(CollectorError):
        probe.begin(context, 0)
    probe.finish(context, 1)
    assert context.records == []


def test_the_log_of_this_host_is_read_or_refused() -> None:
    import os

    context = RecordingContext(os.getpid(), identity=Started(0))
    try:
        KernelLogProbe().begin(context, 0)
    except CollectorError as error:
        assert error.gap_reason in ("not-permitted", "not-supported")
    else:
        assert all(isinstance(item, OomKill) for item in context.records)
