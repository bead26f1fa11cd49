"""Instructions of aarch64, as far as the beginnings of functions need them.

Encodings: Arm Architecture Reference Manual for A-profile, C4.1. What a probe costs:
arch/arm64/kernel/probes/decode-insn.c (branches and address formation are simulated; nop since
Linux 6.13; what loads a literal, exclusive accesses and most hints but no-operations are refused).
"""

from __future__ import annotations

from leakcase_collector.trace.instructions import (
    ALWAYS,
    BRANCH,
    CALL,
    EVERY_REGISTER,
    JUMP,
    RETURN,
    Instruction,
)

#: Where a function finds its first arguments (Procedure Call Standard, 6.8.2).
ARGUMENTS = (0, 1, 2, 3)
LINK, STACK = 30, 31

_NOP = 0xD503201F
_NOP_EMULATED_FROM = (6, 13)
#: paciasp and pacibsp sign the return address in x30 (C6.2, PACIA and PACIB).
_SIGN_RETURN = (0xD503233F, 0xD503237F)
_HINT_MASK, _HINT = 0xFFFFF01F, 0xD503201F
#: bti and its kinds: landing pads without another effect.
_LANDING = (0xD503241F, 0xD503245F, 0xD503249F, 0xD50324DF)


def decode(code: bytes, at: int, address: int) -> Instruction | None:
    """The instruction at `code[at]`, which lies at `address`; None beyond the end."""
    if at + 4 > len(code) or address % 4:
        return None
    word = int.from_bytes(code[at : at + 4], "little")
    plain = Instruction(address, 4, changes=EVERY_REGISTER)
    kind = word >> 25 & 0xF
    if kind in (8, 9):
        return _immediate(word, plain)
    if kind in (10, 11):
        return _branch_or_system(word, plain)
    if kind & 5 == 4:
        return _load_or_store(word, plain)
    if kind & 7 == 5:
        return _registers(word, plain)
    if kind & 7 == 7:
        # Floating point and vectors: a few of them write a general register, at the same place.
        return plain._replace(changes=1 << (word & 31))
    return plain._replace(can_probe=False)


def _immediate(word: int, plain: Instruction) -> Instruction:
    to = word & 31
    if word & 0x1F000000 == 0x10000000:  # adr, adrp
        return plain._replace(changes=1 << to, emulated_from=ALWAYS)
    sets_flags = word & 0x20000000 and word & 0x1F000000 == 0x11000000
    if to == 31 and (sets_flags or word & 0x7F800000 == 0x72000000):  # cmp, cmn, tst
        return plain._replace(changes=0)
    return plain._replace(changes=1 << to)


def _registers(word: int, plain: Instruction) -> Instruction:
    to = word & 31
    if word & 0xFFE0FFE0 == 0xAA0003E0:  # mov xd, xm
        return plain._replace(changes=1 << to, copies=(to, word >> 16 & 31))
    # Register 31 is the zero register in all of these but "extended" additions.
    is_extended = word & 0x1FE00000 == 0x0B200000
    return plain._replace(changes=1 << to if to != 31 or is_extended else 0)


def _branch_or_system(word: int, plain: Instruction) -> Instruction:
    if word & 0x7C000000 == 0x14000000:  # b, bl
        target = plain.address + 4 * _signed(word, 0, 26)
        if word >> 31:
            return plain._replace(flow=CALL, target=target, emulated_from=ALWAYS)
        return plain._replace(flow=JUMP, target=target, changes=0, emulated_from=ALWAYS)
    if word & 0xFF000010 == 0x54000000:  # b.cond
        return _conditional(plain, _signed(word, 5, 19))
    if word & 0x7E000000 == 0x34000000:  # cbz, cbnz
        branch = _conditional(plain, _signed(word, 5, 19))
        is_null_test = word & 0xFF000000 == 0xB4000000  # cbz of a whole register
        return branch._replace(tests=word & 31, skips_null=True) if is_null_test else branch
    if word & 0x7E000000 == 0x36000000:  # tbz, tbnz
        return _conditional(plain, _signed(word, 5, 14))
    if word & 0xFF9FFC1F == 0xD61F0000:  # br, blr, ret
        flow = {0: JUMP, 1: CALL, 2: RETURN}[min(word >> 21 & 3, 2)]
        return plain._replace(flow=flow, emulated_from=ALWAYS)
    if word == _NOP:
        return plain._replace(changes=0, emulated_from=_NOP_EMULATED_FROM)
    if word in _SIGN_RETURN:
        return plain._replace(changes=1 << LINK)
    if word in _LANDING:
        return plain._replace(changes=0)
    if word & 0xFFF00000 == 0xD5300000:  # mrs: refused, as it may read something else when moved
        return plain._replace(changes=1 << (word & 31), can_probe=False)
    return plain._replace(can_probe=False)


def _load_or_store(word: int, plain: Instruction) -> Instruction:
    first, base = word & 31, word >> 5 & 31
    is_vector = bool(word >> 26 & 1)
    if word & 0x3B000000 == 0x18000000:  # of a literal
        return plain._replace(changes=0 if is_vector else 1 << first, can_probe=False)
    if word & 0x3A000000 == 0x28000000:  # pairs
        second, is_load = word >> 10 & 31, bool(word >> 22 & 1)
        writes_base = bool(word >> 23 & 1)
        return _access(plain, (first, second), base, is_load, writes_base, is_vector)
    if word & 0x3A000000 == 0x38000000:  # one register
        is_load = bool(word >> 22 & 3)
        has_offset = bool(word >> 24 & 1)
        if not has_offset and word >> 21 & 1 and word >> 10 & 3 != 2:
            return plain._replace(can_probe=False)  # atomic, or with pointer authentication
        writes_base = not has_offset and not word >> 21 & 1 and bool(word >> 10 & 1)
        return _access(plain, (first,), base, is_load, writes_base, is_vector)
    return plain._replace(can_probe=False)


def _access(
    plain: Instruction,
    registers: tuple[int, ...],
    base: int,
    is_load: bool,
    writes_base: bool,
    is_vector: bool,
) -> Instruction:
    changes = 1 << base if writes_base else 0
    if is_load and not is_vector:
        for register in registers:
            changes |= 0 if register == 31 else 1 << register
    saves = not is_load and not is_vector and LINK in registers
    return plain._replace(changes=changes, saves_return=saves)


def _conditional(plain: Instruction, words: int) -> Instruction:
    target = plain.address + 4 * words
    return plain._replace(flow=BRANCH, target=target, changes=0, emulated_from=ALWAYS)


def _signed(word: int, low: int, bits: int) -> int:
    value = word >> low & ((1 << bits) - 1)
    return value - (1 << bits) if value >> (bits - 1) else value
