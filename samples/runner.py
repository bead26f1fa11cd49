"""Builds and runs the sample programs, and reads what is to be expected of them.

    build()
    with start("small-block-leak", seconds=90) as running:
        ...  # look at running.pid
        truth = running.stop()

Needs Python 3.11 and, for the samples in C and C++, make and a compiler.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypedDict

import tomllib

SAMPLES_DIR = Path(__file__).resolve().parent
BUILD_DIR = SAMPLES_DIR / "build"
BUILD_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 5
# Where a sample may keep a file named leakcase-sample-PID while it runs.
FILE_FOLDERS = (Path("/dev/shm"), Path("/var/tmp"))

Status = Literal["leak", "retention", "bounded", "stable", "undecided"]
Kind = Literal[
    "heap",
    "managed-heap",
    "mmap",
    "threads",
    "fds",
    "shared-memory",
    "file-mapping",
    "other",
    "none",
]
Trigger = Literal["active", "idle", "constant", "unknown"]


class SampleError(Exception):
    """A sample cannot be built, started or read; one sentence for a person."""


class Truth(TypedDict):
    """What a sample says at its end about itself.

    leaked_bytes are resident bytes, 0 where what leaks is not memory; leaked_count counts blocks,
    threads or descriptors. ended: "time", "signal" (SIGTERM) or "limit" (of memory or
    descriptors).
    """

    sample: str
    leaked_bytes: int
    leaked_count: int
    elapsed_seconds: float
    ended: str


@dataclasses.dataclass(frozen=True)
class WhatIsLeaked:
    """The place that leaks.

    file: relative to the samples' folder. block_bytes: as the program asked for it;
    resident_bytes: what a block costs, the allocator's overhead included. Both are None where
    what leaks is not memory.
    """

    symbol: str
    file: str
    line: int
    blocks_per_second: float
    block_bytes: int | None = None
    resident_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Expected:
    """A sample's EXPECTED.toml: the true answer about it.

    status_also, kind_also, trigger_also: answers that are right too for one who sees only /proc;
    never: statuses that would be wrong. rate_bytes_per_hour: growth of resident memory in the
    long run (None: not memory); rate_per_hour: of `unit`. rate_tolerance: a share of the rate.
    trigger: None where nothing leaks. capture_seconds: how long to watch for this answer.
    limit_bytes: the program's RLIMIT_AS.
    """

    name: str
    language: Literal["c", "c++", "python"]
    summary: str
    status: Status
    status_also: tuple[Status, ...]
    never: tuple[Status, ...]
    kind: Kind
    kind_also: tuple[Kind, ...]
    rate_tolerance: float
    capture_seconds: int
    limit_bytes: int
    rate_bytes_per_hour: int | None = None
    rate_per_hour: float | None = None
    unit: Literal["threads", "fds"] | None = None
    trigger: Trigger | None = None
    trigger_also: tuple[Trigger, ...] = ()
    what_is_leaked: WhatIsLeaked | None = None


def load_expected() -> list[Expected]:
    """Every sample's EXPECTED.toml, by name. Raises SampleError for one that cannot be used."""
    return [_read_expected(path) for path in sorted(SAMPLES_DIR.glob("*/EXPECTED.toml"))]


def _read_expected(path: Path) -> Expected:
    try:
        fields: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        for name in ("status_also", "never", "kind_also", "trigger_also"):
            if name in fields:
                fields[name] = tuple(fields[name])
        if "what_is_leaked" in fields:
            fields["what_is_leaked"] = WhatIsLeaked(**fields["what_is_leaked"])
        return Expected(**fields)
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise SampleError(f"cannot use {path}: {error}. Compare it with a neighbour's.") from error


def build() -> None:
    """Builds the native samples that are out of date. Raises SampleError."""
    for program in ("make", "cc", "c++"):
        if shutil.which(program) is None:
            raise SampleError(
                f"cannot build the samples: there is no `{program}` here. "
                "Install a C and C++ compiler and make, or run the Python samples, which need none."
            )
    try:
        result = subprocess.run(
            ["make", "--silent", "--jobs=2", f"--directory={SAMPLES_DIR}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SampleError(
            f"cannot build the samples within {BUILD_TIMEOUT_SECONDS} s: the machine is too busy. "
            f"Run `make -C {SAMPLES_DIR}` and try again."
        ) from None
    if result.returncode != 0:
        last_lines = "\n".join(result.stdout.splitlines()[-20:])
        raise SampleError(f"cannot build the samples, make says:\n{last_lines}")


def command(expected: Expected, seconds: float) -> list[str]:
    """The command that runs a sample for so many seconds. Raises SampleError if it is not built."""
    if expected.language == "python":
        program = [sys.executable, str(SAMPLES_DIR / expected.name / "main.py")]
    else:
        program = [str(BUILD_DIR / expected.name)]
        if not Path(program[0]).exists():
            raise SampleError(f"sample {expected.name} is not built: run `make -C {SAMPLES_DIR}`.")
    return [*program, "--seconds", str(seconds)]


class Running:
    """A sample that runs; leaving the `with` block ends it."""

    def __init__(self, expected: Expected, process: subprocess.Popen[str]) -> None:
        self.expected = expected
        self.pid = process.pid
        self._process = process
        self._truth: Truth | None = None

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._truth is None:
            with contextlib.suppress(SampleError):
                self.stop()

    def stop(self) -> Truth:
        """Ends the sample, if it has not ended by itself, and returns what it says it leaked.

        Raises SampleError when it crashed, hung or said anything else.
        """
        if self._truth is None:
            self._process.terminate()
            self._truth = self._read_truth()
        return self._truth

    def ask(self, question: signal.Signals) -> dict[str, Any]:
        """Sends a signal that a sample answers by a line, and returns that.

        Raises SampleError where it ends instead.
        """
        assert self._process.stdout is not None
        self._process.send_signal(question)
        line = self._process.stdout.readline()
        if not line:
            raise SampleError(f"sample {self.expected.name} ended instead of answering.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read_truth(self) -> Truth:
        name = self.expected.name
        try:
            output, errors = self._process.communicate(timeout=STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            for folder in FILE_FOLDERS:
                (folder / f"leakcase-sample-{self.pid}").unlink(missing_ok=True)
            raise SampleError(f"sample {name} hung and was killed.") from None
        if self._process.returncode != 0 or errors:
            raise SampleError(f"sample {name} failed ({self._process.returncode}): {errors}")
        truth: Truth = json.loads(output.splitlines()[-1])
        return truth


def start(name: str, seconds: float) -> Running:
    """Starts a sample that ends by itself after so many seconds; returns when it is at work.

    Raises SampleError when there is no such sample, it is not built, or it does not start.
    """
    path = SAMPLES_DIR / name / "EXPECTED.toml"
    if not path.exists():
        raise SampleError(f"there is no sample {name!r}; README.md beside {__file__} lists them.")
    expected = _read_expected(path)
    process = subprocess.Popen(
        command(expected, seconds),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Not permitted: this process's own limit is lower already, and its child has inherited it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        limit = (expected.limit_bytes, expected.limit_bytes)
        resource.prlimit(process.pid, resource.RLIMIT_AS, limit)
    assert process.stdout is not None
    running = Running(expected, process)
    if not process.stdout.readline():
        running.stop()
    return running
