"""Registers of x86-64 and aarch64 by their DWARF numbers, and how frames look without any table.

System V ABI, AMD64 supplement, 3.4.1 and figure 3.36; DWARF for the Arm 64-bit Architecture, 4.1;
Procedure Call Standard for the Arm 64-bit Architecture, 6.4.6 (the frame record).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from leakcase_collector.unwind.rows import AT_EXPRESSION, AT_OFFSET, UNDEFINED, Row, Rule


class Machine(NamedTuple):
    """What differs from machine to machine.

    `frame_row` holds where a function keeps a frame pointer, `signal_row` where a signal handler
    returns to, which is `signal_code`. `pointer_mask` keeps what is an address of a pointer to
    code: on aarch64 the bits above hold a signature of return addresses (PAC) or are zero.
    `core_order` are the DWARF numbers in the order of a core file's registers (user_regs_struct
    of sys/user.h), -1 where there is none.
    """

    name: str
    stack_pointer: int
    frame_pointer: int
    program_counter: int
    pointer_mask: int
    frame_row: Row
    signal_row: Row
    signal_code: bytes
    ends_with_call: Callable[[bytes], bool]
    core_order: tuple[int, ...]


def registers_of_core(machine: Machine, words: Sequence[int]) -> dict[int, int]:
    """By DWARF number, from a thread's registers as a core file has them."""
    return {number: word for number, word in zip(machine.core_order, words) if number >= 0}


def _frame_row(frame: int, program_counter: int, unknown: tuple[int, ...] = ()) -> Row:
    """The caller's frame pointer and the return address lie where the frame pointer points."""
    rules = {frame: Rule(AT_OFFSET, -16), program_counter: Rule(AT_OFFSET, -8)}
    rules.update({register: Rule(UNDEFINED) for register in unknown})
    return Row(frame, 16, None, rules, program_counter, False)


def _sleb128(value: int) -> bytes:
    """Of a number from 64 to 8191, in two bytes."""
    return bytes([value & 0x7F | 0x80, value >> 7])


def _signal_row(stack: int, places: dict[int, int], program_counter: int) -> Row:
    """All registers were saved by the kernel, so far above the stack pointer."""
    rules = {
        register: Rule(AT_EXPRESSION, bytes([0x70 + stack]) + _sleb128(place))
        for register, place in places.items()
    }
    address = rules[stack].value
    assert isinstance(address, bytes)
    return Row(-1, 0, address + b"\x06", rules, program_counter, True)


def _x86_ends_with_call(code: bytes) -> bool:
    """call rel32 (e8), or call through register or memory (ff /2), which has 2 to 7 bytes."""
    if code[-5] == 0xE8:
        return True
    return any(code[-size] == 0xFF and code[1 - size] & 0x38 == 0x10 for size in (2, 3, 4, 6, 7))


def _arm_ends_with_call(code: bytes) -> bool:
    """bl, blr, or one of blraa, blrab, blraaz, blrabz, which check a signature."""
    word = int.from_bytes(code[-4:], "little")
    return word & 0xFC000000 == 0x94000000 or word & 0xFEFFF000 == 0xD63F0000


#: struct ucontext at the stack pointer (arch/x86/include/uapi/asm/sigcontext.h of Linux): r8..r15,
#: rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
_X86_SAVED = {
    register: 40 + 8 * index
    for index, register in enumerate((8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16))
}
#: struct rt_sigframe there: siginfo of 128 bytes, then ucontext, whose registers x0..x30, sp, pc
#: follow 184 bytes (arch/arm64/kernel/signal.c).
_ARM_SAVED = {register: 312 + 8 * register for register in range(33)}

X86_64 = Machine(
    "x86_64", 7, 6, 16, (1 << 64) - 1,
    _frame_row(6, 16),
    _signal_row(7, _X86_SAVED, 16),
    bytes.fromhex("48c7c00f0000000f05"),  # mov $15, %rax; syscall
    _x86_ends_with_call,
    (15, 14, 13, 12, 6, 3, 11, 10, 9, 8, 0, 2, 1, 4, 5, -1, 16, -1, -1, 7),
)  # fmt: skip
AARCH64 = Machine(
    "aarch64", 31, 29, 32, (1 << 48) - 1,
    # The frame record may lie anywhere in the frame: where that ends is not known by it.
    _frame_row(29, 30, unknown=(31,)),
    _signal_row(31, _ARM_SAVED, 32),
    bytes.fromhex("681180d2010000d4"),  # mov x8, #139; svc #0
    _arm_ends_with_call,
    tuple(range(33)),
)  # fmt: skip
MACHINES = {machine.name: machine for machine in (X86_64, AARCH64)}
