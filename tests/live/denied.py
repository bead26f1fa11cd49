"""Runs a command under a seccomp filter that refuses some system calls, as containers' profiles do.

python denied.py EPERM|ENOSYS CALL[,CALL...] COMMAND...
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

#: Numbers of the calls: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
NUMBERS = {
    "x86_64": {"bpf": 321, "perf_event_open": 298, "process_vm_readv": 310},
    "aarch64": {"bpf": 280, "perf_event_open": 241, "process_vm_readv": 270},
}
# prctl(2), seccomp(2), and the classic BPF of include/uapi/linux/filter.h.
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_REFUSE, _ALLOW = 0x00050000, 0x7FFF0000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def deny(calls: list[str], number: int) -> None:
    """From now on `calls` fail with the errno `number`, here and in whatever is executed."""
    numbers = NUMBERS[platform.machine()]
    steps = [_step(_LOAD, 0)]
    for call in calls:
        steps += [_step(_JUMP_IF_EQUAL, numbers[call], 0, 1), _step(_RETURN, _REFUSE | number)]
    steps.append(_step(_RETURN, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(steps))
    program = _Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(
        _SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    deny(sys.argv[2].split(","), getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[3], sys.argv[3:])
