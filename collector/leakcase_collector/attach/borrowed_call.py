"""Functions of the target called in one of its own threads, which then goes on as if never held.

The thread gets a stack of its own for them; its memory, registers and signal mask are as before
afterwards. Whatever happens, it finds back: by us, or by the code that it runs (`machine_code`)
should we have gone. All other threads stand still meanwhile, and are let go first where a call
takes longer than it may.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Callable, Optional

from leakcase_collector.errors import CollectorError, NotSupported, OverBudget, TargetGone
from leakcase_collector.system import ptrace
from leakcase_collector.system.clock import NS_PER_SECOND, monotonic_ns
from leakcase_collector.system.target_memory import write_memory

from .machine_code import (
    AREA_BYTES,
    CODE_BYTES,
    GETPID,
    RT_SIGPROCMASK,
    Area,
    Step,
    area_at,
    as_restarted,
    assemble,
    was_waiting,
)
from .return_frame import Gadgets, return_frame
from .stopping import StoppedProcess

_MMAP, _MUNMAP = 9, 11
_SYSCALL_BYTES = 2
_READ_WRITE, _READ_EXECUTE = 3, 5
_PRIVATE_ANONYMOUS, _FIXED = 0x22, 0x10
_NO_SYSCALL = (1 << 64) - 1
_PLAIN_FLAGS = 0x202
#: All signals but those that the code itself may cause: the kernel resets the handler of one that
#: is blocked then (force_sig_info_to_task of kernel/signal.c).
_OWN_SIGNALS = (4, 5, 6, 7, 8, 11, 31)  # ILL TRAP ABRT BUS FPE SEGV SYS
_BLOCKED = ((1 << 64) - 1) & ~sum(1 << (number - 1) for number in _OWN_SIGNALS)
#: FXSAVE's bytes that the kernel fills with the mask of what is saved (arch/x86/kernel/fpu).
_VECTOR_MASK_AT = 464
#: Most stops come within microseconds; a nap takes fifty more.
_SPIN_NS, _NAP_SECONDS = 100_000, 20e-6
#: How long a call may go on when all other threads run again; a step of the kernel's; a stop.
_GRACE_NS = NS_PER_SECOND
_STEP_NS = NS_PER_SECOND


class CallFailed(CollectorError):
    """The function failed or crashed; the thread was taken back to where it was."""


class BorrowedCall:
    """`steps` run once in thread `thread_id` of a process all of whose threads stand still.

    `gadgets`: of its code. `has_room`: below its stack pointer lies nothing but unused stack.
    `locks`: words that were 0 before and are set to 0 again should a function crash while it holds
    one.
    """

    def __init__(
        self,
        stopped: StoppedProcess,
        thread_id: int,
        gadgets: Gadgets,
        *,
        has_room: bool,
        locks: Sequence[int] = (),
    ) -> None:
        self._stopped = stopped
        self._thread = thread_id
        self._gadgets = gadgets
        self._has_room = has_room
        self._locks = locks
        self._registers = dict(stopped.threads[thread_id].registers)
        self._vectors = ptrace.register_set(thread_id, ptrace.NT_X86_XSTATE)
        self._mask = ptrace.signal_mask(thread_id)
        self._area: Optional[Area] = None
        self._stack_pointer = self._registers["rsp"]

    def run(self, steps: Sequence[Step], look: Callable[[Area], None], deadline_ns: int) -> None:
        """Run them; `look` is called at each `Look`, while the thread stands there.

        OverBudget where they did not end by `deadline_ns`, CallFailed, NotSupported, TargetGone.
        """
        try:
            self._prepare(steps)
            self._advance(look, deadline_ns)
        except TargetGone:
            raise
        except BaseException:
            if self._area is not None:
                self._unlock()
                self._give_back()
            raise

    # --- the borrowed memory ----------------------------------------------------------------------

    def _prepare(self, steps: Sequence[Step]) -> None:
        if self._has_room and self._gadgets.signal_return is not None:
            self._stack_pointer, frame = return_frame(
                self._registers, self._mask, self._vectors, self._gadgets.signal_return
            )
            write_memory(self._stopped.pid, self._stack_pointer, frame)
        try:
            start = self._syscall(_MMAP, 0, AREA_BYTES, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
            area = self._area = area_at(start)
            self._syscall(
                _MMAP, start, CODE_BYTES, _READ_EXECUTE, _PRIVATE_ANONYMOUS | _FIXED, -1, 0
            )
            mask = struct.unpack_from("<Q", self._vectors, _VECTOR_MASK_AT)[0]
            code, texts = assemble(area, steps, self._registers, mask)
            for at, content in (
                (area.code, code),
                (area.texts, texts),
                (area.mask, struct.pack("<Q", self._mask)),
                (area.vectors, self._vectors),
                (area.flags, struct.pack("<Q", self._registers["eflags"])),
            ):
                write_memory(self._stopped.pid, at, content)
        except BaseException:
            if self._area is None:
                self._restore()
            raise
        self._set(rip=area.code, rsp=area.stack_top, rbp=0)
        ptrace.set_signal_mask(self._thread, _BLOCKED)

    def _syscall(self, number: int, *arguments: int) -> int:
        """Have the thread make one system call. NotSupported where the kernel refuses it.

        It stands where it could go on afterwards. Should we die during the call, it finds back by
        the frame on its stack; where there is no room for one, it would not.
        """
        names = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
        self._set(
            rip=self._gadgets.system_call,
            rsp=self._stack_pointer,
            rax=number,
            **dict(zip(names, arguments)),
        )
        ptrace.set_signal_mask(self._thread, _BLOCKED)
        for _ in range(2):
            ptrace.resume(self._thread, until_syscall=True)
            self._await_syscall()
        result = ptrace.registers(self._thread)["rax"]
        self._restore()
        if result > _NO_SYSCALL - 4095:
            raise NotSupported(
                "no function is run in the process: it was not given memory to do so "
                f"(error {_NO_SYSCALL + 1 - result}). Do without this source."
            )
        return result

    def _set(self, **values: int) -> None:
        changed = {**self._registers, "orig_rax": _NO_SYSCALL, "eflags": _PLAIN_FLAGS, **values}
        ptrace.set_registers(self._thread, changed)

    def _await_syscall(self) -> None:
        """Until it stands at a system call; a stop that was still due, or a signal, comes first."""
        deadline_ns = monotonic_ns() + _STEP_NS
        while True:
            found = self._poll(deadline_ns)
            if found is None or (found.kind == "signal" and found.number in _OWN_SIGNALS):
                raise CallFailed("a thread of the target did not stop where it should. Try again.")
            if found.kind == "syscall":
                return
            self._keep_for_later(found)
            ptrace.resume(self._thread, until_syscall=True)

    def _keep_for_later(self, found: ptrace.Stop) -> None:
        """A signal that cannot be blocked, or was on its way: it has its turn when all is over."""
        if found.kind == "signal" and found.number not in _OWN_SIGNALS:
            self._stopped.threads[self._thread].signal = found.number

    def _poll(self, deadline_ns: int) -> Optional[ptrace.Stop]:
        spin_until_ns = monotonic_ns() + _SPIN_NS
        while True:
            found = ptrace.poll(self._thread)
            if found is not None:
                if found.kind == "gone":
                    raise TargetGone("the process has ended. What was recorded so far is kept.")
                return found
            now = monotonic_ns()
            if now > deadline_ns:
                return None
            if now > spin_until_ns:
                time.sleep(_NAP_SECONDS)

    # --- on its way -------------------------------------------------------------------------------

    def _advance(self, look: Callable[[Area], None], deadline_ns: int) -> None:
        assert self._area is not None
        is_entry = True
        while True:
            ptrace.resume(self._thread, until_syscall=True)
            found = self._poll(deadline_ns)
            if found is None:
                self._overdue(deadline_ns)
                return
            if found.kind == "signal" and found.number in _OWN_SIGNALS:
                raise CallFailed(
                    f"the function was ended by signal {found.number}, and undone: the heap is "
                    "damaged, or not of the kind that it looks like. Do without this source."
                )
            if found.kind != "syscall":
                self._keep_for_later(found)
                continue
            if is_entry:
                registers = ptrace.registers(self._thread)
                if self._is_ours(registers["rip"]):
                    if registers["orig_rax"] == RT_SIGPROCMASK:
                        self._give_back(at_entry=True)
                        return
                    if registers["orig_rax"] == GETPID:
                        look(self._area)
            is_entry = not is_entry

    def _is_ours(self, address: int) -> bool:
        return self._area is not None and 0 <= address - self._area.code < CODE_BYTES

    def _overdue(self, deadline_ns: int) -> None:
        """The others first. Then what waits is taken back; what works is left to end by itself."""
        self._locks = ()
        self._stopped.release(but=self._thread)
        ended = self._poll(monotonic_ns() + _GRACE_NS)
        while ended is not None and ended.kind == "syscall":
            registers = ptrace.registers(self._thread)
            if self._is_ours(registers["rip"]) and registers["orig_rax"] == RT_SIGPROCMASK:
                break
            ptrace.resume(self._thread, until_syscall=True)
            ended = self._poll(monotonic_ns() + _GRACE_NS)
        if ended is None:
            ptrace.interrupt(self._thread)
            ended = self._poll(monotonic_ns() + _STEP_NS)
            if ended is None or not was_waiting(ptrace.registers(self._thread)):
                with suppress(CollectorError):
                    ptrace.detach(self._thread)
                self._stopped.threads.pop(self._thread, None)
                self._area = None
                raise _overdue(deadline_ns, "ends by itself")
        self._give_back(at_entry=ended.kind == "syscall")
        raise _overdue(deadline_ns, "was taken back")

    # --- the way back -----------------------------------------------------------------------------

    def _give_back(self, at_entry: bool = False) -> None:
        """Free the borrowed memory, then restore. At the entry of a call of its own, that call
        becomes the one that frees."""
        area, self._area = self._area, None
        if area is None:
            return
        ptrace.set_register_set(self._thread, ptrace.NT_X86_XSTATE, self._vectors)
        arguments = {"rdi": area.code, "rsi": area.size_bytes}
        if at_entry:
            # On with the stack of its own, and the return that follows the other call.
            way_back = {
                "rsp": self._stack_pointer,
                "rip": self._gadgets.system_call + _SYSCALL_BYTES,
            }
            values = {**ptrace.registers(self._thread), **way_back, **arguments}
            ptrace.set_registers(self._thread, {**values, "orig_rax": _MUNMAP})
            ptrace.resume(self._thread, until_syscall=True)
            self._await_syscall()
        else:
            with suppress(NotSupported):
                self._syscall(_MUNMAP, *arguments.values())
        self._restore()

    def _restore(self) -> None:
        """General registers and signal mask as it goes on with them: what it waited for is waited
        for again. The kernel itself would see to that only on its way from another kind of stop."""
        ptrace.set_signal_mask(self._thread, self._mask)
        ptrace.set_registers(self._thread, as_restarted(self._registers))

    def _unlock(self) -> None:
        """They were free, and nobody else has run since."""
        for address in self._locks:
            with suppress(CollectorError):
                write_memory(self._stopped.pid, address, bytes(4))


def _overdue(deadline_ns: int, what: str) -> OverBudget:
    late_ms = (monotonic_ns() - deadline_ns) // 1_000_000
    return OverBudget(
        f"the function took longer than it may ({late_ms} ms): all other threads were let go, and "
        f"it {what}. Raise --max-pause, or do without this source."
    )
