"""Programs that a measurement starts: each on its core, and all of them end with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

#: Until one that was asked to end is killed.
PATIENCE_SECONDS = 10


def share_cores() -> str:
    """Leave the first core to what is measured, and be on the others, with all that is started;
    what names the first core for taskset(1). With one core all share it."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])
    return str(cores[0])


def end_in_order() -> None:
    """Being told to end is an exception, so that what was started is ended on this way out too.

    Told a second time we go on: a tracer that is cut off in the midst of undoing its probes leaves
    them in place.
    """
    told = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def leave(number: int, _: FrameType | None) -> None:
        for one in told:
            signal.signal(one, signal.SIG_IGN)
        print("ending what was started", file=sys.stderr)
        raise SystemExit(128 + number)

    for one in told:
        signal.signal(one, leave)


def start(
    command: Sequence[str], core: str | None = None, last_word: str = "KILL", **settings: Any
) -> subprocess.Popen[str]:
    """A program in a session of its own; should we be killed, it gets the signal `last_word`
    (PR_SET_PDEATHSIG(2const)). `core`: where it runs, if not where we do."""
    where = ["taskset", "--cpu-list", core] if core is not None else []
    settings = {
        "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
        **settings,
    }  # fmt: skip
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", last_word, *where, *command],
        text=True, start_new_session=True, **settings,
    )  # fmt: skip


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> None:
    """Ask it to end, wait until it has; then nobody of its session is left either."""
    if process.returncode is None:
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running(
    command: Sequence[str], core: str | None = None, number: int = signal.SIGTERM, **settings: Any
) -> Iterator[subprocess.Popen[str]]:
    """A program until the block is left."""
    process = start(command, core, **settings)
    try:
        yield process
    finally:
        end(process, number)


def descendants(pid: int) -> list[int]:
    """A process that runs, and all that it has started: proc_pid_task(5), `children`."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found
