"""objects.cpp, compiled and stripped, started, and looked into."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import pytest

from leakcase_collector.probes.heap_labels import HeapLabelsProbe
from leakcase_collector.redact import Redactor
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from tests.collector.probes.context import RecordingContext
from tests.collector.system.started import started

#: Names as the ABI mangles them, and how many objects of each there are at first.
CLASSES = {
    "N4acme7SessionE": 2000,
    "N4acme4BothE": 301,
    "N4acme6SharedE": 53,
    "N4acme6HolderINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEEE": 71,
    "N4acme6HolderIlEE": 11,
    "N12_GLOBAL__N_16HiddenE": 41,
}
#: What each line that the program reads adds.
ADDED = {"N4acme7SessionE": 617, "N12_GLOBAL__N_16HiddenE": 13}
#: Class of size -> what all blocks of it are; None: of no one kind.
BLOCKS = {1200: "text", 1408: "zero", 1616: "entropy", 1808: "pointer", 2016: None}


def built(folder: Path, *flags: str, compiler: str = "g++") -> str:
    """The stripped program; skips the test where it cannot be built."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    program = folder / "objects"
    source = Path(__file__).with_name("objects.cpp")
    command = [
        compiler,
        "-std=c++17",
        "-O2",
        "-s",
        "-pthread",
        *flags,
        "-o",
        str(program),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"{compiler} {' '.join(flags)} does not build here")
    return str(program)


class Running:
    """The program at work."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self._ready()

    def add(self) -> None:
        """Let it add what `ADDED` says."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self._ready()

    def _ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"


@contextlib.contextmanager
def running(program: str, *arguments: str, **options: Any) -> Iterator[Running]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started([program, *arguments], **pipes, **options) as process:
        yield Running(process)


@contextlib.contextmanager
def context_of(pid: int, redactor: Optional[Redactor] = None) -> Iterator[RecordingContext]:
    with ProcessIdentity(System(), pid) as identity:
        yield RecordingContext(pid, identity=identity, redactor=redactor)


def looked(pid: int) -> RecordingContext:
    """One look by the probe; another where it gave up, as it may on a busy machine."""
    for _ in range(3):
        with context_of(pid) as context:
            HeapLabelsProbe().begin(context, 1)
        if not context.gaps:
            break
    return context


def counts(record: Any, names: Optional[Sequence[str]] = None) -> dict[str, int]:
    """Objects by class, of all classes of size together; of `names` only, if given."""
    found: dict[str, int] = {}
    for name, count in zip(record.names, record.counts):
        if names is None or name in names:
            found[str(name)] = found.get(str(name), 0) + count
    return found
