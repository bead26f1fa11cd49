"""Something that is set up and undone by a process of its own, so that our end does not cut it off.

Whoever makes or closes the last descriptor of a probe changes the target's code, and the kernel
gives up in the midst of that when a SIGKILL waits for it (faultin_page in mm/gup.c, "failed to
unregister, leaking uprobe" in kernel/events/uprobes.c): then a breakpoint stays in the target for
good. So both are done by a process that nobody has a reason to kill. It undoes all when we say so,
when we are gone, or when we stand still. Should somebody stop it, we let it go on, and so does
the kernel when we are gone; only who stops both of us keeps a probe where it is.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import ExitStack, suppress
from typing import Any, Callable, NamedTuple, NoReturn, Optional

from leakcase_collector import errors
from leakcase_collector.errors import CollectorError, LimitReached
from leakcase_collector.system.priority import volunteer_no_more
from leakcase_collector.system.signals import STOP_SIGNALS

_CHUNK_BYTES = 4096
#: How long we wait for the other process at a time; then it is made to go on if it was stopped.
_LOOK_SECONDS = 0.2
_END_LOOK_SECONDS = 0.002
_ALIVE, _RELEASE = b"+", b"-"
#: The other looks each second how we are: stopped (T, t) or deaf within the kernel (D), as
#: proc_pid_stat(5) has it, at so many looks in a row, we cannot end what we began.
_STATE_SECONDS, _STILL_LOOKS, _STILL = 1.0, 3, b"TtD"
_PR_SET_PDEATHSIG = 1


class Until(NamedTuple):
    """When what is held is undone though nobody asks."""

    #: After it was set up.
    most_seconds: Optional[float] = None
    #: After the last `give_sign`.
    silent_seconds: Optional[float] = None


class HeldApart:
    """What `set_up` puts in place, in another process, until `release`, our end, or `until`.

    `set_up` gets a stack to note on how to undo what it did. Its CollectorError is raised here, and
    then all is undone. LimitReached where no process can be had, or where it is not through with
    one of both after `patience_seconds`: it is left to itself then, and undoes all when it can. It
    does so as well within some seconds when we are stopped.
    """

    def __init__(
        self,
        set_up: Callable[[ExitStack], None],
        until: Until = Until(),  # noqa: B008  (immutable)
        patience_seconds: float = 30.0,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._said_fd, say_fd = os.pipe2(os.O_CLOEXEC)
        wait_fd, self._release_fd = os.pipe2(os.O_CLOEXEC)
        state_fd = _own_state()
        try:
            self._pid = os.fork()
        except OSError as error:
            for fd in (self._said_fd, say_fd, wait_fd, self._release_fd, state_fd):
                _close(fd)
            raise LimitReached(
                f"cannot start a process: {error.strerror}. Raise the limit on processes (ulimit "
                "-u), or do without tracing."
            ) from error
        if self._pid == 0:
            _hold(set_up, say_fd, wait_fd, state_fd, (self._said_fd, self._release_fd), until)
        for fd in (say_fd, wait_fd, state_fd):
            _close(fd)
        os.set_blocking(self._release_fd, False)
        answer = self._answer()
        if answer != {}:
            self.release()
            raise _error(answer)

    def _answer(self) -> Optional[dict[str, Any]]:
        """The other's; None where it ended without one."""
        content, deadline = b"", time.monotonic() + self._patience_seconds
        while not content.endswith(b"\n"):
            if not select.select([self._said_fd], [], [], _LOOK_SECONDS)[0]:
                if time.monotonic() > deadline:
                    self._abandon("set up")
                self._let_go_on()
                continue
            chunk = os.read(self._said_fd, _CHUNK_BYTES)
            if not chunk:
                return None
            content += chunk
        answer: dict[str, Any] = json.loads(content)
        return answer

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

    def give_sign(self) -> None:
        """We are alive. Should somebody have stopped the other, it goes on."""
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._release_fd, _ALIVE)
        self._let_go_on()

    def release(self) -> None:
        """Returns when all is undone; a second call does nothing."""
        if self._release_fd < 0:
            return
        self._say_release()
        deadline = time.monotonic() + self._patience_seconds
        # It ends right after the last descriptor that it has of ours is closed.
        while not select.select([self._said_fd], [], [], _LOOK_SECONDS)[0] or not _is_reaped(
            self._pid
        ):
            if time.monotonic() > deadline:
                self._abandon("undo")
            self._let_go_on()
            time.sleep(_END_LOOK_SECONDS)
        os.close(self._said_fd)

    def _say_release(self) -> None:
        # Its end of the pipe would do, were there not others who may have forked off with a copy.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._release_fd, _RELEASE)
        os.close(self._release_fd)
        self._release_fd = -1

    def _let_go_on(self) -> None:
        with suppress(OSError):
            os.kill(self._pid, signal.SIGCONT)

    def _abandon(self, what: str) -> NoReturn:
        if self._release_fd >= 0:
            self._say_release()
        os.close(self._said_fd)
        error = LimitReached(
            f"the process that puts probes in and takes them out (pid {self._pid}) could not "
            f"{what} them within {self._patience_seconds:g} s: the kernel, or this host, is too "
            "busy. It takes out what there is as soon as it can; wait until it is gone."
        )
        error.gap_detail = "uprobe"
        raise error


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _own_state() -> int:
    """A descriptor by which a child, too, reads how we are; -1 where there is none."""
    with suppress(OSError):
        return os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    return -1


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _error(answer: Optional[dict[str, Any]]) -> CollectorError:
    if answer is None:
        return CollectorError("the process that holds the probes ended at once. Try again.")
    made: CollectorError = getattr(errors, answer["error"])(answer["sentence"])
    made.gap_detail = answer["detail"]
    return made


# --- in the other process -------------------------------------------------------------------------


def _hold(
    set_up: Callable[[ExitStack], None],
    say_fd: int,
    wait_fd: int,
    state_fd: int,
    theirs: tuple[int, ...],
    until: Until,
) -> NoReturn:
    """Never returns, and never runs what the parent would run at its end."""
    try:
        for fd in theirs:
            os.close(fd)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.setsid()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        volunteer_no_more()
        _go_on_at_parents_end()
        inherited = _descriptors()
        with suppress(CollectorError), ExitStack() as undo:
            answer = _try(set_up, undo)
            os.write(say_fd, json.dumps(answer).encode() + b"\n")
            # Another holder waits for the end of a pipe that we have as well; and what is ours
            # to hold is only what was set up.
            for fd in inherited - {wait_fd, say_fd, state_fd}:
                with suppress(OSError):
                    os.close(fd)
            _wait(wait_fd, state_fd, until)
            os.close(wait_fd)  # tells that it is being undone
    finally:
        os._exit(0)


def _wait(wait_fd: int, state_fd: int, until: Until) -> None:
    """Until we are to undo it. Looks are counted and not timed: the host may have been paused."""
    end = None if until.most_seconds is None else time.monotonic() + until.most_seconds
    silent = still = 0
    while end is None or time.monotonic() < end:
        left = _STATE_SECONDS if end is None else max(end - time.monotonic(), 0)
        if select.select([wait_fd], [], [], min(left, _STATE_SECONDS))[0]:
            said = os.read(wait_fd, _CHUNK_BYTES)
            if not said or said.endswith(_RELEASE):
                return
            silent = still = 0
            continue
        silent += 1
        still = still + 1 if _stands_still(state_fd) else 0
        is_silent = until.silent_seconds is not None and (
            silent * _STATE_SECONDS >= until.silent_seconds
        )
        if is_silent or still >= _STILL_LOOKS:
            return


def _stands_still(state_fd: int) -> bool:
    with suppress(OSError):
        return os.pread(state_fd, _CHUNK_BYTES, 0).rpartition(b") ")[2][:1] in _STILL
    return False


def _go_on_at_parents_end() -> None:
    import ctypes

    with suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


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
