"""A program executed one instruction at a time (ptrace(2)), with its registers in between."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from typing import NamedTuple

_TRACEME, _SINGLESTEP, _GETREGS = 0, 9, 12
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long
#: struct user_regs_struct of x86-64 (<sys/user.h>), by the machine's own numbers 0 to 15.
_ORDER = (10, 11, 12, 5, 19, 4, 13, 14, 9, 8, 7, 6, 3, 2, 1, 0)
_RIP = 16


class Step(NamedTuple):
    """Registers before an instruction, by number, and where it is."""

    address: int
    registers: tuple[int, ...]


def steps(program: str, count: int, skipped: int = 0) -> Iterator[tuple[Step, bytes]]:
    """Up to `count` steps of `program`, each with the code that is about to be executed."""
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        _LIBC.ptrace(_TRACEME, 0, None, None)
        os.execv(program, [program])
    try:
        os.waitpid(pid, 0)  # stopped by the exec
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for number in range(skipped + count):
                if number >= skipped:
                    yield _look(pid, memory.fileno())
                _LIBC.ptrace(_SINGLESTEP, pid, None, None)
                _, status = os.waitpid(pid, 0)
                if not os.WIFSTOPPED(status):
                    pid = 0
                    return
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _look(pid: int, memory: int) -> tuple[Step, bytes]:
    raw = ctypes.create_string_buffer(27 * 8)
    assert _LIBC.ptrace(_GETREGS, pid, None, raw) == 0
    words = struct.unpack("27Q", raw.raw)
    address = words[_RIP]
    try:
        code = os.pread(memory, 15, address)
    except OSError:
        code = b""
    return Step(address, tuple(words[place] for place in _ORDER)), code
