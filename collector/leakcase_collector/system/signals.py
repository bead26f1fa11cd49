"""Signals: the user's wish to stop, as a flag and as a descriptor that wakes a sleeper.

The only place that sends a signal, too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Optional, Union

_Handler = Union[Callable[[int, Optional[FrameType]], Any], int, None]

#: Ctrl-C, a polite kill, and the terminal or ssh connection that went away.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_entered: list[StopRequest] = []


def stop_is_requested() -> bool:
    """Whether a wish to stop was noted by whoever listens now: for what takes long in one go."""
    return any(request.is_requested for request in _entered)


class StopRequest:
    """While entered, `STOP_SIGNALS` end nothing: they are noted, and `wake_fd` becomes readable.

    A signal that was ignored stays ignored (``nohup`` sets SIGHUP so). Enter it in the main
    thread only (signal.signal demands it); the former handlers come back on exit.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.count = 0
        self.wake_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._former: dict[int, _Handler] = {}

    @property
    def is_requested(self) -> bool:
        return self.signal_number is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
            os.write(self._write_fd, b"\0")
        self.count += 1

    def __enter__(self) -> StopRequest:
        _entered.append(self)
        for number in STOP_SIGNALS:
            former = signal.getsignal(number)
            if former is signal.SIG_IGN:
                continue
            self._former[number] = former
            signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _entered.remove(self)
        for number, former in self._former.items():
            # None means "installed by C code": it cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if former is None else former)
        self._former.clear()
        os.close(self.wake_fd)
        os.close(self._write_fd)


def process_exists(pid: int) -> bool:
    """Whether the kernel knows a process or zombie `pid`, seen or hidden (signal 0, kill(2))."""
    if pid <= 0:  # 0 and below address groups, never a process
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def kill_group(group_id: int) -> None:
    """SIGKILL to a process group that we created; one that is already empty is fine."""
    try:
        os.killpg(group_id, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # EPERM: every member left is a program that changed its user; it outlives us.
        return
