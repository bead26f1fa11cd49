"""Processes that tests start, hold and end: each bounded in time and memory, each ended by pid."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = 65534
_MEMORY_LIMIT_BYTES = 4 << 30


@contextlib.contextmanager
def started(arguments: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A running program; killed and reaped on exit, and by the kernel should we be killed."""
    # Both launchers execute what follows in their own process: the pid is the program's.
    launchers = ("setpriv", "prlimit")
    command = [launchers[0], "--pdeathsig", "KILL", "--"]
    command += [launchers[1], f"--as={_MEMORY_LIMIT_BYTES}", "--core=0", "--", *arguments]
    options.setdefault("stdin", subprocess.DEVNULL)
    with subprocess.Popen(command, **options) as process:
        try:
            wait_until(lambda: _executable_name(process.pid) not in launchers)
            yield process
        finally:
            process.kill()


def _executable_name(pid: int) -> str | None:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except FileNotFoundError:
        return None  # it ended already


@contextlib.contextmanager
def started_python(code: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """This Python running `code`, after it has printed a line: the code is loaded by then."""
    options.setdefault("stdout", subprocess.PIPE)
    with started([sys.executable, "-u", "-c", code], **options) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Poll until `condition` holds; fails the test when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether `pid` is a process other than a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def as_nobody(function: Callable[[], Any]) -> Any:
    """The result of `function` (or the exception it raised) in a forked child that is no root."""

    def run() -> Any:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return function()

    return in_fork(run)


def in_fork(function: Callable[[], Any]) -> Any:
    """The result of `function`, or the exception it raised, in a forked child."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            try:
                answer: Any = function()
            except Exception as error:  # noqa: BLE001  (it is handed to the parent)
                answer = error
            os.write(write_fd, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        content = file.read()
    os.waitpid(pid, 0)
    return pickle.loads(content)
