"""The code that a borrowed thread runs: calls in a row, then back to where it was, by itself.

It ends with all registers, flags, vector registers and the signal mask as they were and a jump to
the interrupted instruction, so that the thread finds back even when nobody watches it any more.
x86-64, System V ABI: arguments in rdi, rsi, rdx, rcx, r8, r9, the result in rax; the stack pointer
a multiple of 16 at each call. Encodings: Intel's Software Developer's Manual, volume 2.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional, Union

_WORD_BYTES = 8
#: mov reg, imm64, and mov reg, [r11], for the registers of the six arguments.
_LOAD_NUMBER = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x48\xb9", b"\x49\xb8", b"\x49\xb9")
_LOAD_SLOT = (b"\x49\x8b\x3b", b"\x49\x8b\x33", b"\x49\x8b\x13", b"\x49\x8b\x0b", b"\x4d\x8b\x03",
              b"\x4d\x8b\x0b")  # fmt: skip
_TO_R11, _TO_RAX, _TO_RSP = b"\x49\xbb", b"\x48\xb8", b"\x48\xbc"
_CALL_RAX, _STORE_RAX = b"\xff\xd0", b"\x48\xa3"
_PUSH_RAX, _ADD_TO_RSP = b"\x50", b"\x48\x83\xc4"
_TEST_RAX, _JUMP_IF_ZERO = b"\x48\x85\xc0", b"\x0f\x84"
_SYSCALL = b"\x0f\x05"
_XRSTOR_R11, _POP_FLAGS, _JUMP_TO_NEXT_WORD = b"\x49\x0f\xae\x2b", b"\x9d", b"\xff\x25\0\0\0\0"
#: mov reg, imm64 for every other register, which the last instructions set.
_RESTORED = {
    "rax": b"\x48\xb8", "rcx": b"\x48\xb9", "rdx": b"\x48\xba", "rbx": b"\x48\xbb",
    "rbp": b"\x48\xbd", "rsi": b"\x48\xbe", "rdi": b"\x48\xbf", "r8": b"\x49\xb8",
    "r9": b"\x49\xb9", "r10": b"\x49\xba", "r11": b"\x49\xbb", "r12": b"\x49\xbc",
    "r13": b"\x49\xbd", "r14": b"\x49\xbe", "r15": b"\x49\xbf",
}  # fmt: skip
# arch/x86/entry/syscalls/syscall_64.tbl
GETPID, RT_SIGPROCMASK, RESTART_SYSCALL = 39, 14, 219
_SIG_SETMASK = 2
# include/linux/errno.h of the kernel: a call that was interrupted and is to be made again.
RESTART_AS_IT_WAS = (-512, -513, -514)
RESTART_BY_BLOCK = -516
INTERRUPTED = (*RESTART_AS_IT_WAS, RESTART_BY_BLOCK, -4)


class Slot(NamedTuple):
    """A word of the data area, by its number. As an argument: what it holds."""

    number: int


class SlotAddress(NamedTuple):
    """The address of a slot, for functions that write into it."""

    number: int


class Text(NamedTuple):
    """The address of a constant string in the data area."""

    content: bytes


Argument = Union[int, Slot, SlotAddress, Text]


@dataclass(frozen=True)
class Call:
    """One call of a function by its address; with `ends_if_zero` the rest is left out on 0."""

    function: int
    arguments: tuple[Argument, ...] = ()
    result: Optional[Slot] = None
    ends_if_zero: bool = False


class Look(NamedTuple):
    """Here the code makes a call (getpid(2)) at which its keeper may look at what there is."""


Step = Union[Call, Look]


class Area(NamedTuple):
    """Where things are in the borrowed memory. `size_bytes` is from `code` on, all of it."""

    code: int
    slots: int
    texts: int
    mask: int
    vectors: int
    flags: int
    stack_top: int
    size_bytes: int


PAGE = 4096
SLOTS = 256
_TEXTS_AT = SLOTS * _WORD_BYTES
_MASK_AT, _FLAGS_AT, _VECTORS_AT = 3 * PAGE, 3 * PAGE + 64, 4 * PAGE
_VECTORS_BYTES = 16 * PAGE
_STACK_BYTES = 256 * 1024
CODE_BYTES = 4 * PAGE
AREA_BYTES = CODE_BYTES + _VECTORS_AT + _VECTORS_BYTES + _STACK_BYTES


def area_at(start: int) -> Area:
    data = start + CODE_BYTES
    return Area(
        start,
        data,
        data + _TEXTS_AT,
        data + _MASK_AT,
        data + _VECTORS_AT,
        data + _FLAGS_AT,
        start + AREA_BYTES - 64,
        AREA_BYTES,
    )


def assemble(
    area: Area, steps: Sequence[Step], registers: Mapping[str, int], vector_mask: int
) -> tuple[bytes, bytes]:
    """The code, and the constant strings for `Area.texts`; `registers` are those to go back to."""
    code, texts = bytearray(), bytearray()
    to_end: list[int] = []
    for step in steps:
        if isinstance(step, Look):
            code += b"\xb8" + struct.pack("<I", GETPID) + _SYSCALL
            continue
        on_stack = step.arguments[len(_LOAD_NUMBER) :]
        assert len(on_stack) % 2 == 0  # or the stack pointer would not be aligned
        for argument in reversed(on_stack):
            code += _TO_RAX + _word(_value(area, argument, texts)) + _PUSH_RAX
        for index, argument in enumerate(step.arguments[: len(_LOAD_NUMBER)]):
            code += _load(area, index, argument, texts)
        code += _TO_RAX + _word(step.function) + _CALL_RAX
        if on_stack:
            code += _ADD_TO_RSP + bytes([len(on_stack) * _WORD_BYTES])
        if step.result is not None:
            code += _STORE_RAX + _word(area.slots + step.result.number * _WORD_BYTES)
        if step.ends_if_zero:
            code += _TEST_RAX + _JUMP_IF_ZERO + b"\0\0\0\0"
            to_end.append(len(code))
    for at in to_end:
        struct.pack_into("<i", code, at - 4, len(code) - at)
    code += _way_back(area, registers, vector_mask)
    assert len(code) <= CODE_BYTES and len(texts) <= _MASK_AT - _TEXTS_AT
    return bytes(code), bytes(texts)


def _load(area: Area, index: int, argument: Argument, texts: bytearray) -> bytes:
    if isinstance(argument, Slot):
        at = area.slots + argument.number * _WORD_BYTES
        return _TO_R11 + _word(at) + _LOAD_SLOT[index]
    return _LOAD_NUMBER[index] + _word(_value(area, argument, texts))


def _value(area: Area, argument: Argument, texts: bytearray) -> int:
    if isinstance(argument, SlotAddress):
        return area.slots + argument.number * _WORD_BYTES
    if isinstance(argument, Text):
        at = area.texts + len(texts)
        texts += argument.content + b"\0"
        return at
    assert not isinstance(argument, Slot)
    return argument


def _way_back(area: Area, registers: Mapping[str, int], vector_mask: int) -> bytes:
    code = b"\xb8" + struct.pack("<I", RT_SIGPROCMASK)
    code += b"\xbf" + struct.pack("<I", _SIG_SETMASK)
    code += b"\x48\xbe" + _word(area.mask)
    code += b"\x31\xd2" + b"\x41\xba" + struct.pack("<I", _WORD_BYTES) + _SYSCALL
    code += b"\xb8" + struct.pack("<I", vector_mask & 0xFFFFFFFF)
    code += b"\xba" + struct.pack("<I", vector_mask >> 32)
    code += _TO_R11 + _word(area.vectors) + _XRSTOR_R11
    code += _TO_RSP + _word(area.flags) + _POP_FLAGS
    values = as_restarted(registers)
    for name, opcode in _RESTORED.items():
        code += opcode + _word(values[name])
    code += _TO_RSP + _word(values["rsp"])
    return code + _JUMP_TO_NEXT_WORD + _word(values["rip"])


def as_restarted(registers: Mapping[str, int]) -> dict[str, int]:
    """The registers with which an interrupted system call is made again.

    As the kernel itself does it where no handler runs: arch_do_signal_or_restart of
    arch/x86/kernel/signal.c.
    """
    values = dict(registers)
    if _signed(values["orig_rax"]) < 0:
        return values
    result = _signed(values["rax"])
    if result in RESTART_AS_IT_WAS:
        values["rax"] = values["orig_rax"]
        values["rip"] -= len(_SYSCALL)
    elif result == RESTART_BY_BLOCK:
        values["rax"] = RESTART_SYSCALL
        values["rip"] -= len(_SYSCALL)
    return values


def was_waiting(registers: Mapping[str, int]) -> bool:
    """Whether a stop found the thread asleep within a system call."""
    return _signed(registers["orig_rax"]) >= 0 and _signed(registers["rax"]) in INTERRUPTED


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _word(value: int) -> bytes:
    return struct.pack("<Q", value & (1 << 64) - 1)
