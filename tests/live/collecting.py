"""Running the collector as its users do: as a program, on a process of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leakcase_bundle import Reader

COLLECT = [sys.executable, "-m", "leakcase_collector"]
ANALYZE = [sys.executable, "-m", "leakcase_analyzer"]


def collect(
    *arguments: str | int | Path, timeout: float = 60, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``leakcase-collect`` to its end, with no terminal."""
    return subprocess.run(
        [*COLLECT, *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, env=env,
    )  # fmt: skip


def analyze(case: Path, timeout: float = 60) -> dict[str, Any]:
    """The analyzer's answer about a case."""
    done = subprocess.run(
        [*ANALYZE, "analyze", str(case), "--json"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextmanager
def child(
    arguments: Sequence[str], *, wait_for: str | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process of ours, ended by pid on the way out; `wait_for`: a line it prints when ready."""
    process = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )
    try:
        if wait_for is not None:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == wait_for
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def python_child(
    code: str, *, wait: bool = True, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `code`, then prints "ready" and sleeps."""
    tail = "\nimport time\nprint('ready', flush=True)\ntime.sleep(1800)\n" if wait else ""
    arguments = [sys.executable, "-I", "-c", code + tail]
    with child(arguments, wait_for="ready" if wait else None, **options) as process:
        yield process


def read(case: Path) -> tuple[list[Any], Reader]:
    """All records of a case and the reader, which knows what was wrong."""
    with case.open("rb") as file:
        reader = Reader(file)
        return list(reader), reader


def of_kind(records: Sequence[Any], kind: type[Any]) -> list[Any]:
    """The records of one class."""
    return [record for record in records if isinstance(record, kind)]


def sentences(text: str) -> list[str]:
    """What a program said, line by line; a traceback fails the test that asks."""
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if line.strip()]


def is_root() -> bool:
    return os.geteuid() == 0
