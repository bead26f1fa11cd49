"""The collector and the format on every CPython from 3.9 on that this machine has."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leakcase_bundle.records import CaseHeader, StatusSeries
from tests.live.collecting import analyze, of_kind, python_child, read
from tests.packaging import built
from tests.packaging.pythons import interpreters, others

NEEDED_BY_TESTS = ("pytest>=7.4", "hypothesis>=6.90")
SUITES = ("tests/bundle", "tests/collector")
# They watch programs for minutes in all; what is seen of these is the same from every Python, and
# what the code needs of the language is checked by the others and by vermin.
ONCE_IS_ENOUGH = (
    "attach", "trace", "unwind", "heap/test_busy.py", "heap/test_reachability.py",
    "heap/test_managed.py", "heap/test_sampling.py", "heap/test_cpython_frames.py",
)  # fmt: skip


def environment(version: str) -> Path:
    """The interpreter of a virtual environment with the lean wheel and pytest in it.

    Kept from run to run; only the wheel is put in anew when it has changed.
    """
    folder = built.CACHE / f"python{version}"
    python = folder / "bin" / "python"
    with built.only_one_at_a_time(folder.name):
        wheel = built.lean_wheel()
        state = hashlib.sha256(wheel.read_bytes()).hexdigest()
        stamp = folder / "wheel"
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        if not stamp.exists():
            shutil.rmtree(folder, ignore_errors=True)
            built.run([interpreters()[version], "-m", "venv", str(folder)], timeout=120)
            built.run([*pip, str(wheel), *NEEDED_BY_TESTS], timeout=300)
        elif stamp.read_text() != state:
            built.run([*pip, "--force-reinstall", "--no-deps", str(wheel)], timeout=120)
        stamp.write_text(state)
    return python


@pytest.mark.parametrize("version", others())
def test_the_collectors_and_the_formats_tests_pass_on(version: str) -> None:
    python = environment(version)
    # What differs between Pythons differs most between the oldest and the newest.
    suites = SUITES if version in (others()[0], others()[-1]) else SUITES[:1]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON"))}
    done = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not live and not slow",
         *(f"--ignore=tests/collector/{name}" for name in ONCE_IS_ENOUGH), *suites],
        cwd=built.ROOT, env={**inherited, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.live
@pytest.mark.parametrize("version", interpreters())
def test_the_zipapp_captures_with_nothing_installed_on(version: str, tmp_path: Path) -> None:
    # -I -S: neither the user's modules nor site-packages are seen.
    zipapp = [interpreters()[version], "-I", "-S", str(built.pyz())]
    for arguments, expected in ((["--help"], "capture"), (["probes"], "status")):
        done = subprocess.run([*zipapp, *arguments], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout
    case = tmp_path / "x.leakcase"
    with python_child("") as target:
        done = subprocess.run(
            [*zipapp, "capture", str(target.pid), "--duration", "3s", "--interval", "200ms",
             "-o", str(case)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records, reader = read(case)
    assert reader.complete
    (header,) = of_kind(records, CaseHeader)
    assert header.collector_build == "pyz"
    assert header.python_version.startswith(f"{version}.")
    assert sum(len(series.taken_ns) for series in of_kind(records, StatusSeries)) >= 8
    assert analyze(case)["window_seconds"] == pytest.approx(3, abs=1.5)


def test_this_interpreter_is_one_of_them() -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in interpreters()
