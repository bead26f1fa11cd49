"""Programs whose blocks are known."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory
from tests.collector.system.started import started

HERE = Path(__file__).resolve().parent


class Blocks:
    """blocks.c, running."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def ask(self, command: str) -> list[int]:
        """The addresses that a command answers with."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        return [int(word, 16) for word in self._process.stdout.readline().split()]

    @contextmanager
    def memory(self) -> Iterator[ProcessMemory]:
        system = System()
        with ProcessIdentity(system, self.pid) as held, ProcessMemory(system, held) as memory:
            yield memory


@pytest.fixture(scope="session")
def blocks_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("trace") / "blocks"
    command = ["gcc", "-std=gnu11", "-O1", "-Wall", "-o", str(target), str(HERE / "blocks.c")]
    subprocess.run(command, check=True, timeout=60)
    return target


@pytest.fixture
def blocks(blocks_program: Path) -> Iterator[Blocks]:
    with started([str(blocks_program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        made = Blocks(process)
        made.ask("free 1")  # It answers: it is up.
        yield made
