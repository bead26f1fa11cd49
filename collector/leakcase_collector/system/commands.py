"""The only place where a program is run.

A list, never a shell; an absolute path from the system's own directories; a minimal environment;
a time-out and an output limit; and nothing of it survives us.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple

from leakcase_collector.errors import CollectorError, LimitReached, NotPermitted, NotSupported
from leakcase_collector.system.signals import kill_group

if TYPE_CHECKING:
    import subprocess

DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
# Nothing of the caller's: LD_LIBRARY_PATH (a one-file build sets its own), PYTHON*, BASH_ENV.
ENVIRONMENT = {"LC_ALL": "C", "PATH": ":".join(DIRECTORIES)}
OUTPUT_LIMIT_BYTES = 1024 * 1024
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
# How often to look whether it has exited while its pipes are open (others may hold them), or shut.
_CHECK_OPEN_MS = 50
_CHECK_CLOSED_MS = 2
_CHUNK_BYTES = 64 * 1024
# What a program that was asked to stop may take to undo what it did and to print what it has.
_STOP_SECONDS = 10


class CommandResult(NamedTuple):
    """What a program left. `exit_status` is negative for the signal that ended it."""

    stdout: bytes
    stderr: bytes
    exit_status: int
    wall_ns: int
    cpu_ns: int


def find_program(name: str) -> str | None:
    """The absolute path of a program of this host, or None.

    Only the system's own directories count: never PATH, the working directory, or the target.
    """
    if "/" in name:
        return None
    for directory in DIRECTORIES:
        path = f"{directory}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def run(
    arguments: Sequence[str],
    timeout_seconds: float,
    output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
    environment: Mapping[str, str] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> CommandResult:
    """Run a program of this host by name and wait for it.

    NotSupported when it is not installed; LimitReached when it outlives `timeout_seconds` or
    writes more than `output_limit_bytes`: then it was killed, with its process group. A non-zero
    exit is a result, not an error. What it leaves in the background is killed as well.
    `environment` is added to what every program gets; when `is_stopped` turns true, it is sent
    SIGINT and has ten seconds to end by itself.
    """
    path = find_program(arguments[0])
    if path is None:
        raise NotSupported(
            f"cannot run {arguments[0]}: it is not in {', '.join(DIRECTORIES)}. "
            "Install it, or do without this source."
        )
    started_ns = time.monotonic_ns()
    process = _start([path, *arguments[1:]], {**ENVIRONMENT, **(environment or {})})
    try:
        output = _Output(process, output_limit_bytes, is_stopped)
        output.collect(started_ns + int(timeout_seconds * 1e9), arguments[0])
    finally:
        # The leader is not reaped yet, so the group's number cannot belong to others.
        kill_group(process.pid)
        _, wait_status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(wait_status)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return CommandResult(
        output.stdout,
        output.stderr,
        process.returncode,
        time.monotonic_ns() - started_ns,
        int((usage.ru_utime + usage.ru_stime) * 1e9),
    )


def _start(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # Imported late: 5 ms and 1 MB that a capture which runs no program does not pay.
    import ctypes
    import subprocess

    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def die_with_us() -> None:
        # Our SIGKILL must leave nothing behind (PR_SET_PDEATHSIG(2const)); the second look closes
        # the window between fork and prctl.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=environment,
            start_new_session=True,
            preexec_fn=die_with_us,
        )
    except (OSError, subprocess.SubprocessError) as error:
        number = getattr(error, "errno", None)
        kind = {errno.EACCES: NotPermitted, errno.EPERM: NotPermitted, errno.ENOEXEC: NotSupported}
        raise kind.get(number or 0, CollectorError)(
            f"cannot run {command[0]}: {error}. Try it by hand, or do without this source."
        ) from error


class _Output:
    """What a running program writes, gathered until it exits, by the deadline and the limit."""

    def __init__(
        self, process: subprocess.Popen[bytes], limit_bytes: int, is_stopped: Callable[[], bool]
    ) -> None:
        self._pid = process.pid
        self._is_stopped = is_stopped
        self._limit_bytes = limit_bytes
        self._written: dict[int, bytearray] = {}
        self._poll = select.poll()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                self._written[pipe.fileno()] = bytearray()
                self._poll.register(pipe.fileno(), select.POLLIN)
        self._fds = tuple(self._written)
        self._open_count = len(self._fds)

    @property
    def stdout(self) -> bytes:
        return bytes(self._written[self._fds[0]])

    @property
    def stderr(self) -> bytes:
        return bytes(self._written[self._fds[1]])

    def collect(self, deadline_ns: int, name: str) -> None:
        """Read until the program has exited, even if a child of its keeps the pipes open."""
        was_asked = False
        while True:
            if not was_asked and self._is_stopped():
                was_asked = True
                os.kill(self._pid, signal.SIGINT)
                deadline_ns = min(deadline_ns, time.monotonic_ns() + int(_STOP_SECONDS * 1e9))
            left_ms = (deadline_ns - time.monotonic_ns()) // 1_000_000
            if left_ms <= 0:
                raise LimitReached(
                    f"{name} did not end in time and was killed. "
                    "Allow it more time, or do without this source."
                )
            tick_ms = _CHECK_OPEN_MS if self._open_count else _CHECK_CLOSED_MS
            ready = self._poll.poll(min(left_ms, tick_ms))
            for fd, _ in ready:
                self._take(fd, name)
            if (not ready or not self._open_count) and self._has_exited():
                return

    def _take(self, fd: int, name: str) -> None:
        chunk = os.read(fd, _CHUNK_BYTES)
        if not chunk:
            self._poll.unregister(fd)
            self._open_count -= 1
        self._written[fd] += chunk
        if sum(map(len, self._written.values())) > self._limit_bytes:
            raise LimitReached(
                f"{name} wrote more than {self._limit_bytes} bytes and was killed. "
                "Do without this source."
            )

    def _has_exited(self) -> bool:
        # WNOWAIT leaves it a zombie, so that its process group can still be named safely.
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._pid, options) is not None
