"""A signal frame that no handler has: with it a thread finds back from a system call of ours.

While a thread makes a system call for us, its registers are not its own. The call is therefore made
by a `syscall; ret` of the program's code, with a stack on which the return leads to rt_sigreturn(2)
and that to a frame with all that the thread had. Watched, it never comes to that; unwatched, it
heals itself. Layout: struct rt_sigframe and ucontext of arch/x86/include/asm/sigframe.h and
uapi/asm/ucontext.h, struct _xstate of uapi/asm/sigcontext.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from leakcase_collector.system.memory import Memory, MemoryMapping

from .machine_code import INTERRUPTED, RESTART_SYSCALL, as_restarted

_SYSCALL_RETURN = b"\x0f\x05\xc3"
#: mov $15, %rax; syscall: what a C library gives the kernel as sa_restorer.
_SIGNAL_RETURN = b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05"
_CODE_LIMIT_BYTES = 4 << 20
_ORDER = "r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags".split()
_FLAGS = 1 | 2 | 4  # UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
_CONTEXT_BYTES = 304
_MAGIC_1, _MAGIC_2, _MAGIC_AT = 0x46505853, 0x46505845, 464
_VECTOR_ALIGNMENT = 64
_RED_ZONE_BYTES = 128
#: Room that a stack must have below: for the frame, its vectors (AMX: 11 KB), and some to spare.
_ROOM_BYTES = 32 * 1024


class Gadgets(NamedTuple):
    """Code of the program's own: a system call that returns, and a return from a signal (None:
    there is none)."""

    system_call: int
    signal_return: Optional[int]


def find_gadgets(memory: Memory, spans: Sequence[tuple[int, int]]) -> Optional[Gadgets]:
    """In executable memory; None where no system call is made at all."""
    plain: Optional[int] = None
    for start, end in spans:
        view = bytearray(min(end - start, _CODE_LIMIT_BYTES))
        content = view[: memory.read_into(start, memoryview(view))]
        call, back = content.find(_SYSCALL_RETURN), content.find(_SIGNAL_RETURN)
        if call >= 0 and back >= 0:
            return Gadgets(start + call, start + back)
        if plain is None and (found := content.find(_SYSCALL_RETURN[:2])) >= 0:
            plain = start + found
    return None if plain is None else Gadgets(plain, None)


def has_room(mappings: Sequence[MemoryMapping], stack_pointer: int) -> bool:
    """Whether below lies nothing but unused stack: the main one, or one with a guard in front."""
    for before, mapping in zip([None, *mappings], mappings):
        if mapping.start + _ROOM_BYTES <= stack_pointer < mapping.end:
            if mapping.path == b"[stack]":
                return True
            return before is not None and before.end == mapping.start and not before.readable
    return False


def return_frame(
    registers: Mapping[str, int], mask: int, vectors: bytes, signal_return: int
) -> tuple[int, bytes]:
    """Where the stack pointer is to be, and what is there."""
    image = bytearray(vectors)
    (saved,) = struct.unpack_from("<Q", image, _MAGIC_AT)
    sizes = (_MAGIC_1, len(image) + 4, saved, len(image))
    struct.pack_into("<IIQI", image, _MAGIC_AT, *sizes)
    image += struct.pack("<I", _MAGIC_2)
    top = registers["rsp"] - _RED_ZONE_BYTES
    vectors_at = (top - len(image)) // _VECTOR_ALIGNMENT * _VECTOR_ALIGNMENT
    start = (vectors_at - 8 - _CONTEXT_BYTES) // 16 * 16
    values = _as_interrupted(registers)
    content = struct.pack("<Q", signal_return)
    content += struct.pack("<QQQQQ", _FLAGS, 0, 0, 0, 0)  # no other signal stack: it stays
    content += struct.pack(f"<{len(_ORDER)}Q", *(values[name] for name in _ORDER))
    content += struct.pack("<HHHH", values["cs"], 0, 0, values["ss"])
    content += struct.pack("<QQQQQ", 0, 0, 0, 0, vectors_at) + bytes(64)
    content += struct.pack("<Q", mask)
    content += bytes(vectors_at - start - len(content))
    return start, content + bytes(image)


def _as_interrupted(registers: Mapping[str, int]) -> dict[str, int]:
    """rt_sigreturn forgets how a call with a time-out is continued (restart_block). It is made from
    its beginning then, which waits for longer; one that was continued already ends with EINTR."""
    values = as_restarted(registers)
    if values["rip"] == registers["rip"] or values["rax"] != RESTART_SYSCALL:
        return values
    if registers["orig_rax"] == RESTART_SYSCALL:
        return {**registers, "rax": INTERRUPTED[-1] & (1 << 64) - 1}
    return {**values, "rax": registers["orig_rax"]}
