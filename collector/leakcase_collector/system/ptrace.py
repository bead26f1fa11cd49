"""ptrace(2), as far as it is needed: stop threads, read and set registers, let them go.

PTRACE_SEIZE sends no signal, and a tracer that dies leaves its tracees running: the kernel lets go
of them (ptrace(2), "Attaching and detaching"). Requests must come from the thread that seized.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
from typing import NamedTuple, Optional

from leakcase_collector.errors import CollectorError, NotPermitted, NotSupported, TargetGone

# include/uapi/linux/ptrace.h
CONT, DETACH, SYSCALL = 7, 17, 24
_GETREGSET, _SETREGSET, _SEIZE, _INTERRUPT = 0x4204, 0x4205, 0x4206, 0x4207
_GETSIGMASK, _SETSIGMASK, _GET_RSEQ = 0x420A, 0x420B, 0x420F
_TRACESYSGOOD = 1
_EVENT_STOP = 128
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_WAIT_ALL = 0x40000000  # __WALL of waitpid(2): threads, too
# include/uapi/linux/elf.h
NT_PRSTATUS, NT_FPREGSET, NT_X86_XSTATE = 1, 2, 0x202
_SIGNAL_SET_BYTES = 8
_AREA_BYTES = 64 * 1024
_STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

#: struct user_regs_struct of x86-64 (sys/user.h), in its order.
REGISTERS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs"
).split()
_LAYOUT = struct.Struct(f"={len(REGISTERS)}Q")


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class Stop(NamedTuple):
    """Why a thread stands still: `kind` is ``interrupt``, ``group`` (a stop signal holds the whole
    process), ``syscall``, ``signal`` (`number` is to be delivered) or ``gone``."""

    kind: str
    number: int = 0


_libc: Optional[ctypes.CDLL] = None


def _request(request: int, thread: int, address: int = 0, data: int = 0) -> int:
    """One call. TargetGone where the thread has ended (or does not stand still)."""
    global _libc
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
        _libc.ptrace.restype = ctypes.c_long
        _libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    ctypes.set_errno(0)
    result = int(_libc.ptrace(request, thread, address, data))
    number = ctypes.get_errno()
    if result != -1 or not number:
        return result
    if number == errno.ESRCH:
        raise TargetGone(f"thread {thread} has ended. What was recorded so far is kept.")
    if number in (errno.EPERM, errno.EACCES):
        raise NotPermitted(
            f"cannot stop thread {thread}: the kernel refused ptrace. Another tracer holds it, or "
            "it takes root or the target's user where kernel.yama.ptrace_scope is 0."
        )
    if number in (errno.EIO, errno.EINVAL, errno.ENOSYS, errno.ENODEV):
        raise NotSupported(
            f"cannot stop or set thread {thread}: {os.strerror(number)}. Do without this source."
        )
    raise CollectorError(f"cannot stop or set thread {thread}: {os.strerror(number)}. Try again.")


def require_machine() -> None:
    """NotSupported where registers are not those that are covered."""
    if platform.machine() != "x86_64" or struct.calcsize("P") != 8:
        raise NotSupported(
            f"cannot stop a process on {platform.machine()}: only x86-64 is covered. "
            "Do without this source; heap-census does not stop anything."
        )


def seize(thread: int) -> None:
    """Become its tracer; it goes on running. NotPermitted where the kernel refuses."""
    _request(_SEIZE, thread, 0, _TRACESYSGOOD)


def interrupt(thread: int) -> None:
    """Have it stop, wherever it is; `wait` says when it has."""
    _request(_INTERRUPT, thread)


def resume(thread: int, signal_number: int = 0, until_syscall: bool = False) -> None:
    """Let it run, with a signal that it was about to get."""
    _request(SYSCALL if until_syscall else CONT, thread, 0, signal_number)


def detach(thread: int, signal_number: int = 0) -> None:
    """Let it run and be its tracer no more. A process that was stopped stays so."""
    _request(DETACH, thread, 0, signal_number)


def poll(thread: int) -> Optional[Stop]:
    """How it stands still now; None: it still runs."""
    try:
        found, status = os.waitpid(thread, _WAIT_ALL | os.WNOHANG)
    except ChildProcessError:
        return Stop("gone")
    if not found:
        return None
    if not os.WIFSTOPPED(status):
        return Stop("gone")
    number, event = os.WSTOPSIG(status), status >> 16
    if number == _SYSCALL_STOP:
        return Stop("syscall")
    if event == _EVENT_STOP:
        return Stop("group", number) if number in _STOPPING else Stop("interrupt")
    return Stop("signal", number)


def registers(thread: int) -> dict[str, int]:
    """The general registers, by name."""
    values = _LAYOUT.unpack(register_set(thread, NT_PRSTATUS)[: _LAYOUT.size])
    return dict(zip(REGISTERS, values))


def pack_registers(values: dict[str, int]) -> bytes:
    """As the kernel has them: struct user_regs_struct."""
    return _LAYOUT.pack(*(values[name] & (1 << 64) - 1 for name in REGISTERS))


def set_registers(thread: int, values: dict[str, int]) -> None:
    set_register_set(thread, NT_PRSTATUS, pack_registers(values))


def register_set(thread: int, kind: int) -> bytes:
    """A set of registers by its note type (NT_*), as a core file would hold it.

    NotSupported also for a 32-bit program's general registers.
    """
    area = ctypes.create_string_buffer(_AREA_BYTES)
    vector = _IoVec(ctypes.addressof(area), _AREA_BYTES)
    _request(_GETREGSET, thread, kind, ctypes.addressof(vector))
    if kind == NT_PRSTATUS and vector.size != _LAYOUT.size:
        raise NotSupported(f"thread {thread} runs 32-bit code, which is not covered.")
    return area.raw[: vector.size]


def set_register_set(thread: int, kind: int, content: bytes) -> None:
    area = ctypes.create_string_buffer(content, len(content))
    vector = _IoVec(ctypes.addressof(area), len(content))
    _request(_SETREGSET, thread, kind, ctypes.addressof(vector))


def signal_mask(thread: int) -> int:
    """The signals that it blocks, a bit each."""
    area = ctypes.c_uint64()
    _request(_GETSIGMASK, thread, _SIGNAL_SET_BYTES, ctypes.addressof(area))
    return int(area.value)


def set_signal_mask(thread: int, mask: int) -> None:
    area = ctypes.c_uint64(mask)
    _request(_SETSIGMASK, thread, _SIGNAL_SET_BYTES, ctypes.addressof(area))


def rseq_address(thread: int) -> int:
    """Where its struct rseq is (rseq(2)); 0: it has none, or the kernel (before 5.13) tells not."""
    area = ctypes.create_string_buffer(24)
    try:
        _request(_GET_RSEQ, thread, 24, ctypes.addressof(area))
    except NotSupported:
        return 0
    return int(struct.unpack_from("=Q", area.raw)[0])
