"""Whether a function of the allocator may be called now: no thread is at work in it.

A thread that stands in the allocator, or in a signal handler that interrupted it, holds its locks
or its half-changed lists. Proven of each thread, from its registers and its stack:

- it stands in a system call that the allocator never makes, and no signal frame is on its stack; or
- neither its program counter nor any word of its stack from the stack pointer up (return addresses
  among them) points into the allocator's code; or
- as words of frames that are gone may lie between live ones: by the unwind tables its stack leads
  to its first function, and no call on the way is in the allocator's code.

Where the allocator's lock words are known (glibc), all must be 0 as well.
"""

from __future__ import annotations

import platform
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Optional

from leakcase_collector.errors import CollectorError, NotSupported
from leakcase_collector.system import ptrace
from leakcase_collector.system.memory import Memory, MemoryMapping

from .call_chain import CallChain
from .machine_code import RESTART_SYSCALL, was_waiting
from .stopping import StoppedProcess, StoppedThread

Span = tuple[int, int]

# arch/x86/entry/syscalls/syscall_64.tbl. Calls that wait, and that no allocator makes.
#: rt_sigtimedwait rt_sigsuspend pselect6 ppoll epoll_pwait epoll_pwait2. They change the signal
#: mask while they wait: which one a tracer is told of differs between kernels (before 5.2).
_MASKED_CALLS = frozenset({128, 130, 270, 271, 281, 441})
#: poll select pause accept sendto recvfrom sendmsg recvmsg wait4 semop msgsnd msgrcv flock
#: io_getevents semtimedop epoll_wait waitid accept4 recvmmsg sendmmsg io_uring_enter
WAITING_CALLS = _MASKED_CALLS | {
    7, 23, 34, 43, 44, 45, 46, 47, 61, 65, 69, 70, 73, 208, 220, 232, 247, 288, 299, 307, 426,
}  # fmt: skip
#: glibc's malloc reads a file under an arena's lock only, or before the first arena has memory, and
#: never sleeps for a time: read pread64 readv nanosleep clock_nanosleep, and restart_syscall, which
#: is one of these two, poll or a futex with a time-out, made again after an earlier stop.
GLIBC_WAITING_CALLS = WAITING_CALLS | {0, 17, 19, 35, 230, RESTART_SYSCALL}
#: With it pthread_cond_wait and the like wait (glibc since 2.25); locks are waited for with
#: FUTEX_WAIT. Nothing in an allocator waits so but jemalloc's background thread, and that holds no
#: lock meanwhile (background_thread_sleep of its background_thread.c).
FUTEX, _FUTEX_COMMAND, _FUTEX_WAIT_BITSET = 202, 0x7F, 9

_RED_ZONE_BYTES = 128
_STACK_LIMIT_BYTES = 1 << 20
#: cs 0x33, gs 0, fs 0, ss 0x2b: a word of every signal frame, and hardly of anything else
#: (struct sigcontext of x86-64; ss is saved since Linux 4.7).
_FRAME_MARK = struct.pack("<HHHH", 0x33, 0, 0, 0x2B)
_FRAME_MARK_SINCE = (4, 7)
#: Of the general words before it, which are rsp and rip.
_MARK_WORD, _FRAME_RSP, _FRAME_RIP = 18, 15, 16
_RSEQ_CS_AT = 8


@dataclass(frozen=True)
class Territory:
    """An allocator's code, its lock words, the calls that it never makes, and data of its own.

    `data`: a futex in there may be a lock of the allocator's. None: any futex may be one.
    """

    code: tuple[Span, ...]
    locks: tuple[int, ...]
    foreign_calls: frozenset[int]
    data: Optional[tuple[Span, ...]] = None


class SafePoint:
    """The proof for one process and its allocator; `unsafe` is asked at each stop anew."""

    def __init__(
        self,
        memory: Memory,
        mappings: Sequence[MemoryMapping],
        territory: Territory,
        chain: Optional[CallChain] = None,
    ) -> None:
        if _kernel() < _FRAME_MARK_SINCE:
            raise NotSupported(
                "no function is run in the process: on Linux before 4.7 it cannot be proven that "
                "this is safe. heap-census reads the same without touching the process."
            )
        self._memory = memory
        self._territory = territory
        self._mappings = mappings
        self._starts = [mapping.start for mapping in mappings]
        self._chain = chain

    def locks_are_free(self) -> bool:
        return all(not any(self._memory.read(at, 4)) for at in self._territory.locks)

    def unsafe(self, stopped: StoppedProcess) -> list[int]:
        """The threads that are not proven to be outside."""
        return [
            thread.thread_id
            for thread in stopped.threads.values()
            if not self._is_outside(thread.registers)
        ]

    def _is_outside(self, registers: dict[str, int]) -> bool:
        if self._is_code(registers["rip"]):
            return False
        stack = self._stack(registers["rsp"])
        if stack is None:
            return False
        has_frame = any(True for _ in _frames(stack))
        if self._waits_elsewhere(registers) and not has_frame:
            return True
        if has_frame and self._interrupted_inside(stack):
            return False
        return not self._points_into_code(stack) or self._chain_is_outside(registers, stack)

    def _chain_is_outside(self, registers: dict[str, int], stack: bytes) -> bool:
        low = self._low(registers["rsp"])
        return (
            self._chain is not None
            and low is not None
            and self._chain.is_outside(registers, low, stack, self._territory.code)
        )

    def _waits_elsewhere(self, registers: dict[str, int]) -> bool:
        if not was_waiting(registers):
            return False
        number, data = registers["orig_rax"], self._territory.data
        waits_for_condition = registers["rsi"] & _FUTEX_COMMAND == _FUTEX_WAIT_BITSET
        if number == RESTART_SYSCALL and waits_for_condition:
            return True  # That futex, or a poll of as many descriptors: both will do.
        if number == FUTEX and waits_for_condition:
            return True
        if number == FUTEX:
            return data is not None and not any(
                start <= registers["rdi"] < end for start, end in data
            )
        return number in self._territory.foreign_calls

    def _is_code(self, address: int) -> bool:
        return any(start <= address < end for start, end in self._territory.code)

    def _stack(self, pointer: int) -> Optional[bytes]:
        """From the red zone up to the end of the mapping, or as far as is looked at."""
        low = self._low(pointer)
        if low is None:
            return None
        end = self._mappings[bisect_right(self._starts, pointer) - 1].end
        view = bytearray(min(end - low, _STACK_LIMIT_BYTES))
        with suppress(CollectorError):
            count = self._memory.read_into(low, memoryview(view))
            return bytes(view[:count])
        return None

    def _low(self, pointer: int) -> Optional[int]:
        """Where the red zone below a stack pointer begins; None where nothing is mapped."""
        index = bisect_right(self._starts, pointer) - 1
        if index < 0 or pointer >= self._mappings[index].end:
            return None
        return max(pointer - _RED_ZONE_BYTES, self._mappings[index].start) & ~7

    def _points_into_code(self, stack: bytes) -> bool:
        return any(_points_into(stack, span) for span in self._territory.code)

    def _interrupted_inside(self, stack: bytes) -> bool:
        """Whether a handler on a stack of its own interrupted the allocator: its frame says where
        the other stack is."""
        for words in _frames(stack):
            if self._is_code(words[_FRAME_RIP]):
                return True
            other = self._stack(words[_FRAME_RSP])
            if other is None or self._points_into_code(other):
                return True
        return False

    # --- whom to borrow ---------------------------------------------------------------------------

    def lender(self, stopped: StoppedProcess) -> Optional[int]:
        """The thread to call a function in, of those that were found safe; None: there is none.

        One that waits in a system call, the main thread first; else one that is not within a
        restartable sequence (rseq(2)), which a detour would break.
        """
        threads = sorted(stopped.threads.values(), key=lambda one: one.thread_id != stopped.pid)
        able = [one for one in threads if one.kind == "interrupt" and not one.signal]
        waiting = [
            one
            for one in able
            if was_waiting(one.registers) and one.registers["orig_rax"] not in _MASKED_CALLS
        ]
        running = [one for one in able if one.registers["orig_rax"] >> 63]
        for one in [*waiting, *running]:
            if one in waiting or not self._is_in_sequence(one):
                return one.thread_id
        return None

    def _is_in_sequence(self, thread: StoppedThread) -> bool:
        at = ptrace.rseq_address(thread.thread_id)
        try:
            return bool(at) and any(self._memory.read(at + _RSEQ_CS_AT, 8))
        except CollectorError:
            return True


def _kernel() -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _frames(stack: bytes) -> Iterator[tuple[int, ...]]:
    """The general registers of what looks like a signal frame, rsp and rip among them."""
    at = stack.find(_FRAME_MARK)
    while at >= 0:
        start = at - 8 * _MARK_WORD
        if at % 8 == 0 and start >= 0:
            yield struct.unpack_from(f"<{_MARK_WORD}Q", stack, start)
        at = stack.find(_FRAME_MARK, at + 1)


def _points_into(stack: bytes, span: Span) -> bool:
    """Whether an aligned word lies in `span`: looked for by the five bytes of its high end."""
    start, end = span
    for high in range(start >> 24, (end - 1 >> 24) + 1):
        mark = struct.pack("<Q", high << 24)[3:]
        at = stack.find(mark, 3)
        while at >= 0:
            if (at - 3) % 8 == 0:
                (word,) = struct.unpack_from("<Q", stack, at - 3)
                if start <= word < end:
                    return True
            at = stack.find(mark, at + 1)
    return False
