"""subject.c, built for each glibc that is here, started, asked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, Optional

from leakcase_collector.heap.census import Budget, take_census
from leakcase_collector.heap.counts import Census
from leakcase_collector.heap.steps import best_step
from leakcase_collector.heap.walk_state import Step
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory
from tests.collector.heap.fetch_glibc import ROOT, libraries
from tests.collector.system.started import is_running, started, wait_until

_SOURCE = Path(__file__).with_name("subject.c")
_FOLDER = ROOT / "build" / "subjects"
_LIMIT_NS = 60_000_000_000
#: This machine's own, by what it is called in a test's name.
HERE = "here"
VERSIONS = (HERE, "2.31", "2.41", "2.43")


@cache
def program(version: str = HERE) -> Optional[Path]:
    """The program for a version of glibc; None where that could not be fetched."""
    folder = None if version == HERE else libraries().get(version)
    if version != HERE and folder is None:
        return None
    _FOLDER.mkdir(parents=True, exist_ok=True)
    target = _FOLDER / f"subject-{version}"
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists() or target.stat().st_mtime < _SOURCE.stat().st_mtime:
            _build(target, folder)
    return target


def _build(target: Path, folder: Optional[Path]) -> None:
    compiler = ["gcc", "-std=gnu11", "-O1", "-Wall", "-pthread"]
    if folder is None:
        subprocess.run([*compiler, "-o", str(target), str(_SOURCE)], check=True, timeout=60)
        return
    # Linked with that very library, so that no symbol of a newer one is asked for.
    compiled = target.with_suffix(".o")
    subprocess.run([*compiler, "-c", "-o", str(compiled), str(_SOURCE)], check=True, timeout=60)
    start = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("crt1.o", "crti.o", "crtn.o")
    ]
    parts = [str(folder / name) for name in ("libc.so.6", "libpthread.so.0")]
    loader = folder / "ld-linux-x86-64.so.2"
    command = ["gcc", "-nostdlib", "-no-pie", "-o", str(target), *start[:2], str(compiled), *parts]
    command += [start[2], f"-Wl,--dynamic-linker,{loader}", f"-Wl,-rpath,{folder}"]
    subprocess.run(command, check=True, timeout=60)


class Subject:
    """A running one."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self._answer()

    def ask(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def figures(self, command: str) -> dict[str, int]:
        """An answer of lines, each a word and a number."""
        lines = (line.split() for line in self.ask(command).splitlines())
        return {word: int(number) for word, number in lines}

    def _answer(self) -> str:
        assert self._process.stdout is not None
        lines = []
        while (line := self._process.stdout.readline()) != b".\n":
            assert line, "the program ended"
            lines.append(line.decode())
        return "".join(lines)

    def kill(self) -> None:
        """End it and wait until its memory is gone; it stays a zombie."""
        self._process.kill()
        wait_until(lambda: not is_running(self.pid))

    def census(self, step: Optional[Step] = None) -> Census:
        with self.memory() as memory:
            budget = Budget(1 << 40, _LIMIT_NS)
            return take_census(memory, budget, best_step()[1] if step is None else step)

    @contextlib.contextmanager
    def memory(self) -> Iterator[ProcessMemory]:
        system = System()
        with ProcessIdentity(system, self.pid) as held, ProcessMemory(system, held) as memory:
            yield memory


@contextlib.contextmanager
def subject(mode: str, *arguments: int, version: str = HERE, **settings: str) -> Iterator[Subject]:
    """Started and set up. `settings` are environment variables of the allocator."""
    path = program(version)
    assert path is not None
    with started(
        [str(path), mode, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **settings},
    ) as process:
        yield Subject(process)


class ArenaInfo(NamedTuple):
    """One <heap> of malloc_info(3). `rest` counts the bins and the top."""

    fast: tuple[int, int]
    rest: tuple[int, int]
    system_bytes: int


@dataclass(frozen=True)
class Info:
    """What malloc_info(3) says."""

    arenas: list[ArenaInfo]
    mapped: tuple[int, int]


def parse_info(text: str) -> Info:
    arenas = []
    for part in re.findall(r"<heap nr.*?</heap>", text, re.DOTALL):
        system = re.search(r'<system type="current" size="(\d+)"', part)
        assert system is not None
        arenas.append(ArenaInfo(_total(part, "fast"), _total(part, "rest"), int(system.group(1))))
    return Info(arenas, _total(text, "mmap"))


def _total(text: str, kind: str) -> tuple[int, int]:
    """Since 2.43 there are no fastbins, and no line of them."""
    found = re.search(rf'<total type="{kind}" count="(\d+)" size="(\d+)"', text)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)
