"""Processes of servers and of their clients: started, asked, and ended by pid."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

HERE = Path(__file__).resolve().parent
NOBODY = 65534
START_SECONDS = 30
STOP_SECONDS = 10

T = TypeVar("T")


class CannotServe(Exception):
    """A server is not on this machine; one sentence with the reason."""


@dataclass(frozen=True)
class Serving:
    """A server that is up; `answering_pid` asks it which process answers now."""

    pid: int
    started_ticks: int
    answering_pid: Callable[[], int]
    load: subprocess.Popen[bytes]

    def still_serves(self) -> bool:
        """Whether the very same process answers, and its load has found no fault."""
        return (
            self.answering_pid() == self.pid
            and start_ticks(self.pid) == self.started_ticks
            and self.load.poll() in (None, 0)
        )


def serving(pid: int, answering_pid: Callable[[], int], load: subprocess.Popen[bytes]) -> Serving:
    """`pid` as it is now: with the time of its start."""
    return Serving(pid, start_ticks(pid), answering_pid, load)


def start_ticks(pid: int) -> int:
    """Field 22 of proc_pid_stat(5): with the pid it names one process."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return int(stat.rsplit(")", 1)[1].split()[19])


def find_program(name: str, path: str | None = None) -> str:
    """Where a program is, /usr/sbin included. Raises CannotServe."""
    found = shutil.which(name, path=path) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise CannotServe(f"there is no {name} here; install it, or the package that has it")
    return found


def _as_nobody() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def run(command: Sequence[Any], folder: Path) -> str:
    """A step of preparation, as the servers' user; its output. Raises OSError when it fails."""
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(part) for part in command],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=START_SECONDS, **_as_nobody(),
    )  # fmt: skip
    if done.returncode != 0:
        raise OSError(f"{command[0]} exits {done.returncode}: {done.stdout[-500:]}")
    return done.stdout


@contextmanager
def started(
    command: Sequence[Any],
    folder: Path,
    seconds: float,
    *,
    as_nobody: bool = True,
    end_by: signal.Signals = signal.SIGTERM,
) -> Iterator[int]:
    """A server's pid, ended on the way out, or by timeout(1) if this process cannot."""
    if os.geteuid() == 0 and as_nobody:
        os.chown(folder, NOBODY, NOBODY)
    limit = str(seconds + 2 * START_SECONDS)
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            ["timeout", "--foreground", "--kill-after=5", limit, *map(str, command)],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            **(_as_nobody() if as_nobody else {}),
        )  # fmt: skip
    try:
        (pid,) = wait_for(lambda: _only(children(process.pid)))
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError, UnboundLocalError):
            os.kill(pid, end_by)
        _wait(process)


@contextmanager
def load(command: Sequence[Any], seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """A program that keeps a server busy, and its children; ended on the way out."""
    process = subprocess.Popen(
        ["timeout", "--preserve-status", str(seconds + START_SECONDS), *map(str, command)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        _wait(process)


def client(
    what: str, port: int, rate: float, seconds: float
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A client of workloads_clients.py as the load."""
    return load(
        [
            sys.executable, "-I", HERE / "workloads_clients.py", what,
            "--port", port, "--rate", rate, "--seconds", seconds,
        ],
        seconds,
    )  # fmt: skip


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in (*children(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(timeout=STOP_SECONDS)


def children(pid: int) -> list[int]:
    """proc_pid_taskchildren(5); empty for a process that has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _only(pids: list[int]) -> list[int]:
    if len(pids) != 1:
        raise ProcessLookupError(f"{len(pids)} processes where one was expected")
    return pids


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(ask: Callable[[], T]) -> T:
    """What `ask` returns as soon as it can be asked."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            return ask()
        except (OSError, ValueError, http.client.HTTPException):
            if time.monotonic() > until:
                raise
        time.sleep(0.1)
