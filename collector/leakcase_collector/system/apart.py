"""Work that must not die with us: done in a process of its own, awaited with a time limit.

Whoever stops a process must live to let it go. A Ctrl-C at the terminal, a kill of the collector
and its low priority do not reach this process; it ends by itself, or by the time limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from typing import Any, Callable, NoReturn

from leakcase_collector.errors import (
    CollectorError,
    LimitReached,
    NotPermitted,
    NotSupported,
    OutputError,
    OverBudget,
    TargetGone,
)
from leakcase_collector.system.priority import volunteer_no_more
from leakcase_collector.system.signals import STOP_SIGNALS, stop_is_requested

_ERRORS = {
    kind.__name__: kind
    for kind in (
        CollectorError, LimitReached, NotPermitted, NotSupported, OutputError, OverBudget,
        TargetGone,
    )
}  # fmt: skip
_CHUNK_BYTES = 64 * 1024
_LOOK_SECONDS = 0.05
_RESULT_LIMIT_BYTES = 64 << 20


def run_apart(work: Callable[[], Any], limit_seconds: float, *, obeys_stop: bool = False) -> Any:
    """The result of `work`, which must be plain data (what JSON can hold), from another process.

    Its CollectorError is raised here, as a CollectorError where its class is not known here.
    LimitReached when it takes longer than `limit_seconds`, or when the user wishes to stop and it
    `obeys_stop`: then it was killed. Call it where no other thread runs (fork(2)).
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _work(work, write_fd, parent if obeys_stop else None)
    os.close(write_fd)
    try:
        content = _collect(read_fd, time.monotonic() + limit_seconds, obeys_stop)
    finally:
        os.close(read_fd)
        # It is our child and not reaped yet: the number is its own.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    answer = json.loads(content) if content else {}
    if "error" in answer:
        raise _ERRORS.get(answer["error"], CollectorError)(answer["sentence"])
    if "result" not in answer:
        raise CollectorError("the part that stops the target ended without an answer. Try again.")
    return answer["result"]


def _collect(fd: int, deadline: float, obeys_stop: bool) -> bytes:
    content = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or len(content) > _RESULT_LIMIT_BYTES:
            raise LimitReached("it was given up: it took longer than it may.")
        if obeys_stop and stop_is_requested():
            raise LimitReached("it was given up: the capture is to end.")
        if select.select([fd], [], [], min(left, _LOOK_SECONDS))[0]:
            chunk = os.read(fd, _CHUNK_BYTES)
            if not chunk:
                return bytes(content)
            content += chunk


def _work(work: Callable[[], Any], fd: int, dies_with: int | None) -> NoReturn:
    """In the child: never returns, and never runs what the parent would run at its end."""
    try:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.setsid()
        _be_important(is_short=dies_with is None)
        if dies_with is not None:
            _die_with(dies_with)
        try:
            answer = {"result": work()}
        except CollectorError as error:
            answer = {"error": type(error).__name__, "sentence": str(error)}
        content = json.dumps(answer).encode()
        while content:
            content = content[os.write(fd, content) :]
    finally:
        os._exit(0)


def _be_important(is_short: bool) -> None:
    """The collector gives way to its host; while a process stands still, that would prolong it."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError):
        if is_short:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        else:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    volunteer_no_more()


def _die_with(parent: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
