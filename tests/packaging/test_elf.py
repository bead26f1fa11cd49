"""The ELF file: one file, no Python, on a system that has none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakcase_bundle.records import CaseEnd, CaseHeader, StatusSeries
from tests.live.collecting import analyze, of_kind, python_child, read
from tests.packaging import built
from tests.packaging.bare_root import NoBareRoot, bare_root

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("objdump") is None, reason="there is no objdump (binutils)"),
]

# The chroot's own /proc, seen by nobody else; the process to watch lives inside as well.
CAPTURE_INSIDE = """
mount -t proc proc "$1/proc" || exit 90
exec chroot "$1" /bin/sh -c '
    sleep 60 & target=$!
    /usr/local/bin/leakcase-collect capture $target --duration 3s -o /tmp/x.leakcase --json
    status=$?
    kill $target
    exit $status'
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A bare system with nothing but the ELF file added."""
    try:
        folder = bare_root()
    except NoBareRoot as reason:
        pytest.skip(str(reason))
    program = folder / "usr" / "local" / "bin" / "leakcase-collect"
    shutil.copy2(built.elf(), program)
    for old in (folder / "tmp").glob("x.leakcase*"):
        old.unlink()
    yield folder
    program.unlink()


def test_it_captures_in_a_bare_system_without_python(root: Path) -> None:
    assert list((root / "usr" / "bin").glob("python*")) == []
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", CAPTURE_INSIDE, "sh", str(root)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["end"] == "duration"
    case = root / "tmp" / "x.leakcase"
    records, reader = read(case)
    assert reader.complete
    assert of_kind(records, CaseHeader)[0].collector_build == "elf"
    assert analyze(case)["verdict"]["status"] in ("stable", "undecided", "bounded")
    assert list((root / "tmp").glob("_MEI*")) == [], "what it unpacked is removed"


def test_it_says_what_it_can_do() -> None:
    done = subprocess.run([built.elf(), "probes"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert "status" in done.stdout


@pytest.mark.parametrize(
    ("number", "expected_status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)], ids=str
)
def test_a_signal_ends_it_with_a_whole_case(
    tmp_path: Path, number: signal.Signals, expected_status: int
) -> None:
    case = tmp_path / "x.leakcase"
    with python_child("") as target, _capture(target.pid, case) as capture:
        capture.send_signal(number)
        assert capture.wait(timeout=20) == expected_status
    _, reader = read(case)
    assert reader.complete


def test_when_its_first_process_is_killed_the_second_writes_the_end_of_the_case(
    tmp_path: Path,
) -> None:
    case = tmp_path / "x.leakcase"
    with python_child("") as target, _capture(target.pid, case) as capture:
        capture.kill()
        capture.wait(timeout=20)
        deadline = time.monotonic() + 20
        while not read(case)[1].complete and time.monotonic() < deadline:
            time.sleep(0.1)
    records, reader = read(case)
    assert reader.complete
    assert of_kind(records, CaseEnd)[0].reason == "interrupted"


def _capture(pid: int, case: Path) -> subprocess.Popen[bytes]:
    """A capture that has written its first samples."""
    capture = subprocess.Popen(
        [built.elf(), "capture", str(pid), "--duration", "60s", "--interval", "100ms",
         "-o", str(case)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(case.parent)},
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if case.exists() and of_kind(read(case)[0] if case.stat().st_size else [], StatusSeries):
            return capture
        time.sleep(0.1)
    capture.kill()
    capture.wait()
    raise AssertionError("the capture did not start")
