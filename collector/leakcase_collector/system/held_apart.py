"""Something that is set up and undone by a process of its own, so that our end does not cut it off.

Whoever makes or closes the last descriptor of a probe changes the target's code, and the kernel
gives up in the midst of that when a SIGKILL waits for it (faultin_page in mm/gup.c, "failed to
unregister, leaking uprobe" in kernel/events/uprobes.c): then a breakpoint stays in the target for
good. So both are done by a process that nobody has a reason to kill. It undoes all when we say so,
or when we are gone.
"""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import ExitStack, suppress
from typing import Any, Callable, NoReturn, Optional

from leakcase_collector import errors
from leakcase_collector.errors import CollectorError, LimitReached
from leakcase_collector.system.signals import STOP_SIGNALS

_CHUNK_BYTES = 4096


class HeldApart:
    """What `set_up` puts in place, in another process, until `release` or our end.

    `set_up` gets a stack to note on how to undo what it did. Its CollectorError is raised here, and
    then all is undone. LimitReached where no process can be had. After `most_seconds` it is undone
    in any case: we may have been stopped, or hang.
    """

    def __init__(
        self, set_up: Callable[[ExitStack], None], most_seconds: Optional[float] = None
    ) -> None:
        said_fd, say_fd = os.pipe2(os.O_CLOEXEC)
        wait_fd, self._release_fd = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = os.fork()
        except OSError as error:
            for fd in (said_fd, say_fd, wait_fd, self._release_fd):
                os.close(fd)
            raise LimitReached(
                f"cannot start a process: {error.strerror}. Raise the limit on processes (ulimit "
                "-u), or do without tracing."
            ) from error
        if self._pid == 0:
            _hold(set_up, say_fd, wait_fd, (said_fd, self._release_fd), most_seconds)
        os.close(say_fd)
        os.close(wait_fd)
        answer = _read_all(said_fd)
        if answer != {}:
            self.release()
            raise _error(answer)

    @property
    def pid(self) -> int:
        """Of the process that holds it."""
        return self._pid

    @property
    def has_ended(self) -> bool:
        """Whether it is being undone without our asking: its time is up, or it was killed."""
        poll = select.poll()
        poll.register(self._release_fd, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))

    def release(self) -> None:
        """Returns when all is undone; a second call does nothing."""
        if self._release_fd < 0:
            return
        # Its end of the pipe would do, were there not others who may have forked off with a copy.
        with suppress(BrokenPipeError):
            os.write(self._release_fd, b"\0")
        os.close(self._release_fd)
        self._release_fd = -1
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _read_all(fd: int) -> dict[str, Any] | None:
    """The child's answer; None where it ended without one."""
    content = b""
    while chunk := os.read(fd, _CHUNK_BYTES):
        content += chunk
    os.close(fd)
    answer: dict[str, Any] | None = json.loads(content) if content else None
    return answer


def _error(answer: dict[str, Any] | None) -> CollectorError:
    if answer is None:
        return CollectorError("the process that holds the probes ended at once. Try again.")
    made: CollectorError = getattr(errors, answer["error"])(answer["sentence"])
    made.gap_detail = answer["detail"]
    return made


def _hold(
    set_up: Callable[[ExitStack], None],
    say_fd: int,
    wait_fd: int,
    theirs: tuple[int, ...],
    most_seconds: Optional[float],
) -> NoReturn:
    """In the child: never returns, and never runs what the parent would run at its end."""
    try:
        for fd in theirs:
            os.close(fd)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.setsid()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        inherited = _descriptors()
        with suppress(CollectorError), ExitStack() as undo:
            answer = _try(set_up, undo)
            os.write(say_fd, json.dumps(answer).encode())
            # Another holder waits for the end of a pipe that we have as well; and what is ours
            # to hold is only what was set up.
            for fd in inherited - {wait_fd}:
                with suppress(OSError):
                    os.close(fd)
            select.select([wait_fd], [], [], most_seconds)
            os.close(wait_fd)  # tells that it is being undone
    finally:
        os._exit(0)


def _descriptors() -> set[int]:
    """Those that are open, without the one by which the directory was read."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            os.fstat(int(name))
            found.add(int(name))
    return found


def _try(set_up: Callable[[ExitStack], None], undo: ExitStack) -> dict[str, Any]:
    try:
        set_up(undo)
    except CollectorError as error:
        undo.close()
        return {
            "error": type(error).__name__, "sentence": str(error), "detail": error.gap_detail,
        }  # fmt: skip
    return {}
