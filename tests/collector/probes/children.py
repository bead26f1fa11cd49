"""Processes of our own with properties known beforehand. They end with us, whatever happens."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

#: A child that waits for this ends when its parent does: the pipe closes then.
_UNTIL_PARENT_ENDS = "\nprint('ready', flush=True)\nimport sys; sys.stdin.read()\n"


class Child:
    """A running Python program; `tell` lets it go on to what stands after its first wait."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process

    def tell(self) -> None:
        """Send one line and wait for the one it answers with."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline()

    def kill_without_reaping(self) -> None:
        """Leave a zombie behind, until the end of the test reaps it."""
        self._process.kill()
        deadline = time.monotonic() + 5
        while b") Z " not in _stat(self.pid) and time.monotonic() < deadline:
            time.sleep(0.005)


@contextlib.contextmanager
def python(
    code: str, environment: dict[str, str] | None = None, arguments: Sequence[str] = ()
) -> Iterator[Child]:
    """A child that has run `code` and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", code + _UNTIL_PARENT_ENDS, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=None if environment is None else {**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Child(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _stat(pid: int) -> bytes:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read()
