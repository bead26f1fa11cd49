"""Programs that gdb stepped through, and what it found at each stop."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from leakcase_collector.system.door import System
from leakcase_collector.system.files import TargetFile
from leakcase_collector.system.memory import Memory, MemoryMapping, parse_mappings
from leakcase_collector.system.modules import MappedModule, parse_modules

_HERE = Path(__file__).parent
#: DWARF numbers in the order in which the script writes them.
_NUMBERS = range(17)


class Stop(NamedTuple):
    """`frames` are gdb's: the address and the function's name, innermost first."""

    registers: dict[int, int]
    start: int
    stack: bytes
    frames: list[tuple[int, str]]

    @property
    def pcs(self) -> tuple[int, ...]:
        return tuple(pc for pc, _ in self.frames)


class RecordedTarget:
    """The mappings of a process as they were; its files are still there."""

    pointer_bytes = 8

    def __init__(self, maps: str, vdso: bytes) -> None:
        self._lines = maps.encode().splitlines()
        self._vdso = vdso

    def mappings(self) -> list[MemoryMapping]:
        return parse_mappings(self._lines)

    def program_files(self) -> list[MappedModule]:
        return parse_modules(self._lines)

    def open_program_file(self, module: MappedModule) -> TargetFile:
        return System().open_target_file(os.getpid(), module.path)

    @contextlib.contextmanager
    def memory(self) -> Iterator[Memory]:
        yield self

    def read(self, address: int, size: int) -> bytes:
        """Of the vdso; nothing else was kept."""
        (start,) = [m.start for m in self.mappings() if m.path == b"[vdso]"]
        content = self._vdso[address - start :][:size]
        assert len(content) == size
        return content

    def read_into(self, address: int, view: memoryview) -> int:
        raise NotImplementedError

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        raise NotImplementedError


def build(source: str, folder: Path, *options: str) -> Path:
    """A program of this folder, compiled as distributions do: no frame pointers."""
    compiler = "g++" if source.endswith(".cc") else "gcc"
    program = folder / f"{source.partition('.')[0]}{abs(hash(options)) % 1000}"
    command = [compiler, "-O2", "-fomit-frame-pointer", *options, "-o", str(program)]
    subprocess.run([*command, str(_HERE / "programs" / source)], check=True, timeout=60)
    return program


def step_through(
    program: Sequence[str], folder: Path, stops: int, stride: int
) -> tuple[RecordedTarget, list[Stop]]:
    """What gdb saw at each of `stops` stops, `stride` instructions apart, from main on."""
    out = folder / "stops.jsonl"
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "LEAKCASE_OUT": str(out),
        "LEAKCASE_STOPS": str(stops),
        "LEAKCASE_STRIDE": str(stride),
    }
    script = str(_HERE / "stepping.gdb.py")
    command = ["prlimit", "--as=4294967296", "gdb", "-batch", "-nx", "-x", script, "--args"]
    done = subprocess.run(
        [*command, *program], env=environment, capture_output=True, text=True, timeout=120
    )
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == stops + 1, done.stderr[-2000:]
    found = [
        Stop(
            dict(zip(_NUMBERS, line["registers"])),
            line["start"],
            bytes.fromhex(line["stack"]),
            [(pc, name) for pc, name in line["pcs"]],
        )
        for line in lines[:-1]
    ]
    return RecordedTarget(lines[-1]["maps"], bytes.fromhex(lines[-1]["vdso"])), found
