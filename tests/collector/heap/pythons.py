"""Python programs of each version that this machine has, held at a known state."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leakcase_collector.heap.cpython import Census, count_objects
from leakcase_collector.probes.python_types import find_python
from leakcase_collector.probes.subject import LiveSubject
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory
from tests.collector.heap.fetch_python import pythons as fetched
from tests.collector.system.started import started

_PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"


def pythons(*releases: str) -> list[str]:
    """Interpreters of these releases, such as "3.9": the pyenv's, those of other distributions that
    were fetched, and this one's."""
    found = [str(p) for r in releases for p in sorted(_PYENV.glob(f"{r}.*/bin/python"))]
    if "3.14" in releases:
        found += fetched()
    system = "/usr/bin/python3"
    release = os.path.realpath(system).rpartition("python")[2]
    return found + [system] * (release in releases and os.path.exists(system))


COVERED = pythons("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14") or [sys.executable]


class Program:
    """A running program that answers a line with a line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        #: What it told at first, when it had come to the state that it holds.
        self.first = self.hear()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self.hear()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def program(python: str, code: str) -> Iterator[Program]:
    """`code` begins with `tell` defined, which prints a value, and must tell one at first."""
    prelude = "import gc, json, os, sys\ndef tell(value): print(json.dumps(value), flush=True)\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started([python, "-S", "-c", prelude + code], **pipes) as process:
        yield Program(process)


def census(pid: int, **limits: int) -> Census:
    """One census of a Python process."""
    with ProcessIdentity(System(), pid) as identity, ProcessMemory(System(), identity) as memory:
        image = find_python(LiveSubject(System(), pid, identity))
        assert image is not None
        return count_objects(memory, image, **limits)


def counts(found: Census, *sources: str) -> dict[str, int]:
    """Objects by the type's own name."""
    out: dict[str, int] = {}
    for entry in found.types:
        if not sources or entry.source in sources:
            name = entry.name.rpartition(".")[2]
            out[name] = out.get(name, 0) + entry.objects
    return out
