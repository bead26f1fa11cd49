"""Things that go wrong on real hosts: one clear sentence or a gap each, the right exit status."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakcase_bundle.records import CaseEnd, Event, Gap, RegionSnapshot, StatusSeries, ThreadSeries
from tests.collector.system.started import wait_until
from tests.live import another_user
from tests.live.collecting import (
    COLLECT,
    analyze,
    child,
    collect,
    is_root,
    of_kind,
    python_child,
    read,
    sentences,
)

pytestmark = pytest.mark.live
needs_root = pytest.mark.skipif(not is_root(), reason="needs root: it makes another user's process")


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A folder that user 65534 may write to and reach, with the collector in it."""
    with another_user.reachable_collector() as folder:
        yield folder


@needs_root
@pytest.mark.skipif(
    not Path(another_user.SYSTEM_PYTHON).exists(), reason=f"no {another_user.SYSTEM_PYTHON}"
)
def test_another_users_process_leaves_gaps_and_status_three(nobodys: Path) -> None:
    with python_child("") as target:
        case = nobodys / "x.leakcase"
        done = subprocess.run(
            [*another_user.COLLECT, "capture", str(target.pid), "--duration", "2s", "-o", case],
            env=another_user.environment(nobodys), cwd="/", **another_user.as_nobody(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert any("refused" in line for line in sentences(done.stderr))
    records, reader = read(nobodys / "x.leakcase")
    assert reader.complete
    denied = {gap.probe for gap in of_kind(records, Gap) if gap.reason == "not-permitted"}
    assert {"descriptors", "regions"} <= denied
    # What may be seen is seen.
    assert of_kind(records, StatusSeries)[0].rss_bytes[0] > 0


def test_a_pid_that_nobody_has_is_one_sentence_and_status_four(tmp_path: Path) -> None:
    done = collect("capture", 4194303, "-o", tmp_path / "x.leakcase")
    assert done.returncode == 4
    assert len(sentences(done.stderr)) == 1
    assert "there is no process 4194303" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pid", ["0", "99999999999999999999", "007777777"])
def test_an_absurd_pid_is_one_sentence(tmp_path: Path, pid: str) -> None:
    done = collect("capture", pid, "-o", tmp_path / "x.leakcase")
    assert done.returncode == 4
    assert len(sentences(done.stderr)) == 1


def test_a_kernel_thread_is_refused_with_the_reason(tmp_path: Path) -> None:
    if not Path("/proc/2/comm").exists() or Path("/proc/2/comm").read_text() != "kthreadd\n":
        pytest.skip("no kernel threads are visible in this pid namespace")
    done = collect("capture", 2, "-o", tmp_path / "x.leakcase")
    assert done.returncode == 4
    assert "kernel thread" in done.stderr


def test_a_zombie_is_refused_with_the_reason(tmp_path: Path) -> None:
    target = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, target.pid, os.WEXITED | os.WNOWAIT)
    done = collect("capture", target.pid, "-o", tmp_path / "x.leakcase")
    target.wait()
    assert done.returncode == 4
    assert "zombie" in done.stderr


def test_a_target_that_ends_leaves_a_whole_case_and_status_four(tmp_path: Path) -> None:
    case = tmp_path / "x.leakcase"
    with python_child("") as target:
        capture = subprocess.Popen(
            [*COLLECT, "capture", str(target.pid), "--duration", "30s", "-o", str(case)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until(case.exists, seconds=20)
        time.sleep(2)
        target.kill()
        target.wait()
        started = time.monotonic()
        _, stderr = capture.communicate(timeout=20)
    assert time.monotonic() - started < 10
    assert capture.returncode == 4
    assert any("ended while it was watched" in line for line in sentences(stderr))
    records, reader = read(case)
    assert reader.complete
    assert of_kind(records, CaseEnd)[0].reason == "target-gone"


def test_an_exec_is_noticed_and_the_new_program_recorded(tmp_path: Path) -> None:
    case = tmp_path / "x.leakcase"
    code = "import os, time; time.sleep(3); os.execv('/bin/sleep', ['sleep', '60'])"
    with python_child(code, wait=False) as target:
        done = collect("capture", target.pid, "--duration", "6s", "-o", case)
    assert done.returncode == 0, done.stderr
    records, _ = read(case)
    assert [event.what for event in of_kind(records, Event)] == ["exec"]
    programs = [r.executable for r in records if type(r).__name__ == "Target"]
    assert len(programs) == 2
    assert programs[1].endswith("/sleep")
    assert analyze(case)["verdict"]["status"] == "undecided"
    assert "more to see, with:\n  --allow read-memory: " in done.stderr
    assert "java" not in done.stderr, "what it has not is not offered"


def test_a_process_of_five_thousand_threads(tmp_path: Path) -> None:
    code = (
        "import threading, time\nthreading.stack_size(65536)\n"
        "e = threading.Event()\n"
        "for _ in range(4999): threading.Thread(target=e.wait, daemon=True).start()"
    )
    case = tmp_path / "x.leakcase"
    with python_child(code) as target:
        done = collect("capture", target.pid, "--duration", "5s", "-o", case)
    assert done.returncode == 0, done.stderr
    records, _ = read(case)
    assert {n for s in of_kind(records, StatusSeries) for n in s.threads} == {5000}
    assert {n for s in of_kind(records, ThreadSeries) for n in s.alive} == {5000}


def test_a_process_of_fifty_thousand_mappings(tmp_path: Path) -> None:
    # Alternating protections keep the kernel from merging neighbours (mprotect(2)).
    code = (
        "import ctypes, mmap\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.mmap.restype = ctypes.c_void_p\n"
        "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 4\n"
        "libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
        "n = 50000\n"
        "base = libc.mmap(None, n * 4096, 3, 0x22, -1, 0)\n"
        "for i in range(0, n, 2): assert libc.mprotect(base + i * 4096, 4096, 1) == 0\n"
    )
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit < 51000:
        pytest.skip(f"vm.max_map_count is {limit}: such a process cannot be")
    case = tmp_path / "x.leakcase"
    with python_child(code) as target:
        done = collect("capture", target.pid, "--duration", "8s", "-o", case, timeout=90)
    assert done.returncode == 0, done.stderr
    records, _ = read(case)
    snapshots = of_kind(records, RegionSnapshot)
    assert snapshots
    assert all(s.mappings >= 50000 for s in snapshots)
    assert case.stat().st_size < 300_000
    assert analyze(case)["verdict"]["status"] in ("stable", "bounded", "undecided")


def test_a_read_only_place_is_one_sentence_and_status_two() -> None:
    with python_child("") as target:
        done = collect("capture", target.pid, "-o", "/proc/x.leakcase")
    assert done.returncode == 2
    assert len(sentences(done.stderr)) == 1
    assert "/proc/x.leakcase" in done.stderr


def test_an_existing_case_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "x.leakcase").write_text("mine")
    with python_child("") as target:
        done = collect("capture", target.pid, "-o", tmp_path / "x.leakcase")
    assert done.returncode == 2
    assert len(sentences(done.stderr)) == 1
    assert (tmp_path / "x.leakcase").read_text() == "mine"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("cannot mount a small tmpfs here (needs CAP_SYS_ADMIN)")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_that_fills_up_leaves_a_readable_case_and_status_three(small_disk: Path) -> None:
    case = small_disk / "x.leakcase"
    with python_child("") as target:
        capture = subprocess.Popen(
            [*COLLECT, "capture", str(target.pid), "--duration", "12s", "-o", str(case)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until(case.exists, seconds=20)
        time.sleep(2)
        with (
            (small_disk / "filler").open("wb", buffering=0) as filler,
            pytest.raises(OSError, match="No space"),
        ):
            while True:
                filler.write(b"x" * 4096)
        _, stderr = capture.communicate(timeout=60)
    assert capture.returncode == 3, stderr
    assert any("the disk is full" in line for line in sentences(stderr))
    records, reader = read(case)
    assert records
    assert reader.truncated


def test_a_disk_that_is_full_from_the_start_is_one_sentence_and_no_file(small_disk: Path) -> None:
    with contextlib.suppress(OSError):
        (small_disk / "filler").write_bytes(b"x" * (1 << 20))
    with python_child("") as target:
        done = collect("capture", target.pid, "--duration", "3s", "-o", small_disk / "x.leakcase")
    assert done.returncode == 2, done.stderr
    assert len(sentences(done.stderr)) == 1
    assert [p.name for p in small_disk.iterdir()] == ["filler"]


def test_an_interrupt_ends_with_130_and_a_whole_case(tmp_path: Path) -> None:
    case = tmp_path / "x.leakcase"
    with python_child("") as target:
        capture = subprocess.Popen(
            [*COLLECT, "capture", str(target.pid), "--duration", "60s", "-o", str(case)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until(case.exists, seconds=20)
        time.sleep(2)
        capture.send_signal(signal.SIGINT)
        stdout, stderr = capture.communicate(timeout=20)
    assert capture.returncode == 130
    assert stdout.strip() == str(case)
    sentences(stderr)
    records, reader = read(case)
    assert reader.complete
    assert of_kind(records, CaseEnd)[0].reason == "interrupted"


def test_with_no_target_and_no_terminal_it_says_whom_to_choose() -> None:
    done = collect("capture")
    assert done.returncode == 2
    assert len(sentences(done.stderr)) == 1
    assert "Give one of these pids" in done.stderr


def test_a_name_that_several_processes_have_is_not_guessed(tmp_path: Path) -> None:
    name = f"lk{os.getpid()}"
    copy = tmp_path / name
    shutil.copy("/bin/sleep", copy)
    with child([str(copy), "60"]) as first, child([str(copy), "60"]) as second:
        done = collect("capture", name, "-o", tmp_path / "x.leakcase")
        assert done.returncode == 2
        assert str(first.pid) in done.stderr
        assert str(second.pid) in done.stderr
    with child([str(copy), "60"]) as only:
        done = collect("capture", name, "--duration", "2s", "--json", "-o", tmp_path / "y.leakcase")
        assert json.loads(done.stdout)["pid"] == only.pid


def test_on_a_terminal_the_largest_processes_are_shown_and_asked_for(tmp_path: Path) -> None:
    with python_child("x = bytearray(50_000_000)") as target:
        master, slave = pty.openpty()
        capture = subprocess.Popen(
            [*COLLECT, "capture", "--duration", "3s", "-o", str(tmp_path / "x.leakcase")],
            stdin=slave, stdout=subprocess.DEVNULL, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        shown = b""
        answered = refused = 0
        deadline = time.monotonic() + 60
        while capture.poll() is None or select.select([master], [], [], 0)[0]:
            assert time.monotonic() < deadline, shown
            if select.select([master], [], [], 0.2)[0]:
                try:
                    shown += os.read(master, 4096)
                except OSError:
                    break
            if b"which pid?" in shown and not answered:
                os.write(master, f"{target.pid}\n".encode())
                answered = 1
            # What goes beyond the level observe is asked for, too.
            if shown.count(b"allow it?") > refused:
                os.write(master, b"n\n")
                refused += 1
        os.close(master)
        assert capture.wait(timeout=20) == 0
    text = shown.decode()
    assert str(target.pid) in text.split("which pid?")[0]
    # The live line: time, RSS, a sparkline.
    assert "0:02 / 0:03" in text
    assert "RSS" in text
    assert "▁" in text


def test_a_mark_reaches_the_running_capture_and_the_answer(tmp_path: Path) -> None:
    case = tmp_path / "x.leakcase"
    with python_child("") as target:
        none = collect("mark", target.pid, "active")
        assert none.returncode == 4
        assert "no capture" in none.stderr
        capture = subprocess.Popen(
            [*COLLECT, "capture", str(target.pid), "--duration", "6s", "-o", str(case)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(2)
        good = collect("mark", target.pid, "active")
        bad = collect("mark", target.pid, "My Secret!")
        assert capture.wait(timeout=20) == 0
    assert good.returncode == 0, good.stderr
    assert bad.returncode == 2
    assert len(sentences(bad.stderr)) == 1
    records, _ = read(case)
    assert [r.label for r in records if type(r).__name__ == "Mark"] == ["active"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--duration", "forever"],
        ["--interval", "1us"],
        ["--max-slowdown", "200%"],
        ["--max-pause", "-1s"],
        ["--allow", "everything"],
        ["--with", "no-such-probe"],
        ["--no-such-option"],
    ],
)
def test_an_absurd_option_is_refused_with_status_two(arguments: list[str], tmp_path: Path) -> None:
    done = collect("capture", os.getpid(), *arguments, "-o", tmp_path / "x.leakcase")
    assert done.returncode == 2
    assert sentences(done.stderr)
    assert not list(tmp_path.iterdir())
