"""Reading through the door: what is read, and what each failure becomes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leakcase_collector.errors import (
    CollectorError,
    LimitReached,
    NotPermitted,
    NotSupported,
    TargetGone,
)
from leakcase_collector.system.door import System
from leakcase_collector.system.os_errors import translated
from tests.collector.system.started import as_nobody, needs_root, started

SYSTEM = System()


def test_a_recorded_tree_is_read_by_the_paths_of_a_real_machine(tmp_path: Path) -> None:
    for name in ("proc/4711", "sys/fs/cgroup", "root/etc"):
        (tmp_path / name).mkdir(parents=True)
    recording = Path("/proc/self/status").read_bytes()
    (tmp_path / "proc/4711/status").write_bytes(recording)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    (tmp_path / "root/etc/os-release").write_text("ID=x\n")
    system = System(f"{tmp_path}/proc", f"{tmp_path}/sys/", f"{tmp_path}/root/")
    assert not system.is_live
    assert system.process_ids() == [4711]
    assert system.read_bytes("/proc/4711/status") == recording
    assert list(system.read_lines("/proc/4711/status")) == recording.splitlines()
    assert system.read_text("/sys/fs/cgroup/memory.max") == "max\n"
    assert system.read_text("/etc/os-release") == "ID=x\n"
    with pytest.raises(TargetGone):
        system.read_bytes("/proc/4712/status")
    with pytest.raises(NotSupported):
        system.read_bytes("/proc/4711/smaps_rollup")


def test_a_file_larger_than_its_limit_is_refused_and_one_as_large_is_not(tmp_path: Path) -> None:
    system = System(root=str(tmp_path))
    (tmp_path / "file").write_bytes(b"x" * 1000)
    assert len(system.read_bytes("/file", limit_bytes=1000)) == 1000
    with pytest.raises(LimitReached, match="999 bytes"):
        system.read_bytes("/file", limit_bytes=999)
    with pytest.raises(LimitReached):
        list(system.read_lines("/file", limit_bytes=999))
    with system.open_kept("/file", limit_bytes=999) as kept, pytest.raises(LimitReached):
        kept.read()


def test_lines_are_whole_across_reads(tmp_path: Path) -> None:
    lines = [b"%d " % number + b"y" * (number % 700) for number in range(1000)]
    (tmp_path / "file").write_bytes(b"\n".join(lines) + b"\n")
    assert list(System(root=str(tmp_path)).read_lines("/file")) == lines


def test_a_directory_with_more_entries_than_the_limit_is_refused(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    system = System(root=str(tmp_path))
    assert sorted(system.list_directory("/", limit_entries=5)) == ["0", "1", "2", "3", "4"]
    with pytest.raises(LimitReached):
        system.list_directory("/", limit_entries=4)


def test_a_kept_file_follows_the_present(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    with System(root=str(tmp_path)).open_kept("/file") as kept:
        assert kept.read() == b"one"
        (tmp_path / "file").write_text("two" * 10_000)
        assert kept.read() == b"two" * 10_000


def test_a_kept_file_of_a_process_that_ended_says_target_gone() -> None:
    with started(["sleep", "60"]) as process:
        kept = SYSTEM.open_kept(f"/proc/{process.pid}/status")
        assert kept.read().startswith(b"Name:\tsleep\n")
        process.kill()
        process.wait()
        with pytest.raises(TargetGone, match=f"process {process.pid} is gone"):
            kept.read()
        kept.close()


def test_a_kept_file_is_read_whole_when_the_kernel_hands_it_out_in_pieces() -> None:
    """maps comes in pages; the door must not stop at the first."""
    with SYSTEM.open_kept("/proc/self/maps") as kept:
        content = kept.read()
    assert len(content) > 4096
    assert content.endswith(b"\n")
    assert b"[vsyscall]" in content or b"[vdso]" in content


def test_a_process_that_does_not_exist_is_gone() -> None:
    with started(["true"]) as process:
        process.wait()
    for path in ("status", "smaps", "fd/3", "task/1/stat"):
        with pytest.raises(TargetGone):
            SYSTEM.read_bytes(f"/proc/{process.pid}/{path}")
    with pytest.raises(TargetGone):
        SYSTEM.open_target_file(process.pid, "/etc/passwd")
    with pytest.raises(TargetGone):
        SYSTEM.open_executable(process.pid)


def test_a_thread_or_descriptor_that_is_not_there_is_not_the_end_of_the_process() -> None:
    with pytest.raises(NotSupported):
        SYSTEM.read_link("/proc/self/fd/9999")
    with pytest.raises(NotSupported):
        SYSTEM.read_bytes(f"/proc/{os.getpid()}/task/999999999/stat")
    with pytest.raises(NotSupported):
        SYSTEM.read_bytes(f"/proc/{os.getpid()}/no_such_file")


def test_what_this_kernel_does_not_offer_is_not_supported() -> None:
    with pytest.raises(NotSupported):
        SYSTEM.read_bytes("/sys/kernel/no/such/file")
    with pytest.raises(NotSupported):
        SYSTEM.list_directory("/proc/self/status")
    with pytest.raises(NotSupported):
        SYSTEM.read_bytes("/proc/self/task")


@needs_root
def test_what_the_kernel_refuses_is_not_permitted() -> None:
    with started(["sleep", "60"]) as process:
        pid = process.pid
        for ask in (
            lambda: SYSTEM.read_bytes(f"/proc/{pid}/io"),
            lambda: SYSTEM.list_directory(f"/proc/{pid}/fd"),
            lambda: SYSTEM.open_executable(pid).close(),
            lambda: SYSTEM.open_target_file(pid, "/etc/hostname").close(),
        ):
            assert isinstance(as_nobody(ask), NotPermitted)


@needs_root
def test_a_process_hidden_by_the_mount_is_not_called_gone() -> None:
    """Under hidepid=2 another user's /proc/PID does not exist, although the process does."""
    code = (
        "import os; from leakcase_collector.system.door import System\n"
        "os.setgroups([]); os.setresgid(65534,65534,65534); os.setresuid(65534,65534,65534)\n"
        "try: System().read_bytes('/proc/1/status')\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    script = 'mount -t proc -o hidepid=2 proc /proc && "$@"'
    shell = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, "sh"]
    result = subprocess.run(
        [*shell, sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=20, check=True
    )
    assert result.stdout == b"NotPermitted\n"


def test_every_translated_error_is_a_typed_sentence_without_control_characters() -> None:
    for number in range(1, 134):
        error = translated(OSError(number, os.strerror(number)), "/home/\x1b[31m\n/x")
        assert isinstance(error, CollectorError)
        assert str(error).isprintable()
        assert str(error).endswith(".")


def test_reading_a_pipe_that_nobody_writes_to_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    signal.alarm(5)
    try:
        assert System(root=str(tmp_path)).read_bytes("/fifo") == b""
    finally:
        signal.alarm(0)


def _may_read_the_kernel_log() -> bool:
    """kernel.dmesg_restrict refuses at open, whatever the file's mode says."""
    try:
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _may_read_the_kernel_log(), reason="the kernel log may not be read")
def test_the_kernel_log_is_read_to_its_present_end() -> None:
    content = SYSTEM.read_bytes("/dev/kmsg", limit_bytes=64 << 20)
    assert content.count(b"\n") > 0


def test_the_executable_is_read_though_it_was_deleted(tmp_path: Path) -> None:
    program = tmp_path / "napper"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with started([str(program), "60"]) as process:
        program.unlink()
        with SYSTEM.open_executable(process.pid) as file:
            assert file.read_at(0, 1 << 20) == Path("/bin/sleep").read_bytes()[: 1 << 20]


def test_a_file_read_at_its_end_gives_what_there_is() -> None:
    with SYSTEM.open_executable(os.getpid()) as file:
        assert len(file.read_at(file.size_bytes - 3, 10)) == 3
        assert file.read_at(file.size_bytes + 5, 10) == b""
