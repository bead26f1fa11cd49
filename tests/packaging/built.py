"""What `make dist` makes, made for the tests once for each state of the sources."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "tests"
_INPUTS = (
    "bundle_spec/leakcase_bundle",
    "collector",
    "packaging",
    "man",
    "pyproject.toml",
    "hatch_build.py",
)
_ENVIRONMENT = {**os.environ, "SOURCE_DATE_EPOCH": "1704067200"}


def pyz() -> Path:
    """The zipapp."""
    return _built("leakcase-collect.pyz", [sys.executable, "packaging/pyz.py"])


def elf() -> Path:
    """The ELF file."""
    return _built("leakcase-collect", [sys.executable, "packaging/elf.py"])


def lean_wheel() -> Path:
    """The wheel of the collector alone."""
    return _wheel("lean", "collector")


def full_wheel() -> Path:
    """The wheel of everything."""
    return _wheel("full", ".")


@contextmanager
def only_one_at_a_time(name: str) -> Iterator[None]:
    """Keeps parallel test processes from making the same thing twice."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str], timeout: float) -> str:
    """Run a step of building from the root; its output. Fails the test with what it said."""
    done = subprocess.run(
        command, cwd=ROOT, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}"
    return done.stdout


def build_wheel(project: str, folder: Path) -> Path:
    """Build a wheel of a folder of the repository."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder)]
    run([*command, project], timeout=120)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _built(name: str, command: Sequence[str]) -> Path:
    with only_one_at_a_time(name):
        target = CACHE / _state() / name
        if not target.exists():
            made = target.with_suffix(".new")
            run([*command, str(made)], timeout=300)
            made.rename(target)
    return target


def _wheel(name: str, project: str) -> Path:
    with only_one_at_a_time(name):
        folder = CACHE / _state(analyzer=project == ".") / name
        if not folder.exists():
            made = folder.with_suffix(".new")
            shutil.rmtree(made, ignore_errors=True)
            build_wheel(project, made)
            made.rename(folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _state(analyzer: bool = False) -> str:
    """A name for what the sources hold now."""
    digest = hashlib.sha256(sys.version.encode())
    for name in (*_INPUTS, *(["analyzer"] if analyzer else [])):
        top = ROOT / name
        paths = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in paths:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
