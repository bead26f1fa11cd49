"""Instructions of x86-64: every length, and the effects of those that functions begin with.

Encodings: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapter 2 and
appendix A. What a probe costs: arch/x86/kernel/uprobes.c (push_setup_xol_ops, branch_setup_xol_ops;
no-operations of several bytes since Linux 6.16, push since 4.16).
"""

from __future__ import annotations

from typing import NamedTuple

from leakcase_collector.trace.instructions import (
    ALWAYS,
    BRANCH,
    CALL,
    EVERY_REGISTER,
    JUMP,
    NEVER,
    RETURN,
    Instruction,
)

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
#: Where a function finds its first arguments (System V ABI, AMD64 supplement, 3.2.3).
ARGUMENTS = (RDI, RSI, RDX, RCX)

_MOST_BYTES = 15
_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
#: With one of these the kernel refuses a probe (is_prefix_bad): es, cs, ss, ds, lock.
_REFUSED_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\xf0")
_PUSH_EMULATED_FROM, _NOP_EMULATED_FROM = (4, 16), (6, 16)


def _opcodes(text: str) -> frozenset[int]:
    """A set from hexadecimal numbers and ranges, as "00-03 63"."""
    found: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        found.update(range(int(first, 16), int(last or first, 16) + 1))
    return frozenset(found)


_INVALID = _opcodes("06 07 0e 16 17 1e 1f 27 2f 37 3f 60-61 82 9a ce d4-d6 ea")
_MODRM = _opcodes(
    "00-03 08-0b 10-13 18-1b 20-23 28-2b 30-33 38-3b 63 69 6b 80-8f c0-c1 c6-c7 d0-d3 d8-df "
    "f6-f7 fe-ff"
)
_BYTE_OPERAND = _opcodes("04 0c 14 1c 24 2c 34 3c 6a 6b 70-7f 80 83 a8 b0-b7 c0-c1 c6 cd e0-e7 eb")
_WIDE_OPERAND = _opcodes("05 0d 15 1d 25 2d 35 3d 68 69 81 a9 b8-bf c7")
_NO_MODRM_0F = _opcodes("05-09 0b 0e 30-37 77 80-8f a0-a2 a8-aa c8-cf")
_BYTE_OPERAND_0F = _opcodes("0f 70-73 a4 ac ba c2 c4-c6")
#: Two-byte instructions that change vector registers, memory or flags only.
_NO_REGISTER_0F = _opcodes(
    "0d 10-17 18-1f 28-29 2e-2f 51-6f 70-76 7f a3 c6 d1-d6 d8-e7 e8-ef f1-f6 f8-fe"
)


class _Encoding(NamedTuple):
    """What was found of one instruction before its meaning is asked."""

    map: int  # 0 one byte, 1 after 0F, 2 after 0F 38, 3 after 0F 3A; 4 and up: VEX and the like
    opcode: int
    mod: int
    reg: int
    rm: int
    rex: int
    prefixes: bytes
    operand: int | None
    size_bytes: int


def decode(code: bytes, at: int, address: int) -> Instruction | None:
    """The instruction at `code[at]`, which lies at `address`; None where it is not a whole one."""
    found = _encoding(code, at)
    if found is None:
        return None
    instruction = Instruction(address, found.size_bytes, changes=EVERY_REGISTER)
    meaning = {0: _one_byte, 1: _two_bytes}.get(found.map)
    if meaning is not None:
        instruction = meaning(found, instruction)
    if any(prefix in _REFUSED_PREFIXES for prefix in found.prefixes):
        return instruction._replace(can_probe=False, emulated_from=NEVER)
    if found.map > 1:
        return instruction._replace(can_probe=False)
    return instruction


# Lengths


def _encoding(code: bytes, at: int) -> _Encoding | None:
    window = code[at : at + _MOST_BYTES]
    try:
        return _read(window)
    except IndexError:
        return None


def _read(window: bytes) -> _Encoding | None:
    here = 0
    while window[here] in _PREFIXES:
        here += 1
    prefixes = window[:here]
    rex = 0
    if window[here] & 0xF0 == 0x40:
        rex = window[here]
        here += 1
    opcode = window[here]
    here += 1
    table = 0
    if opcode in (0xC4, 0xC5, 0x62) or (opcode == 0x8F and window[here] & 0x1F >= 8):
        table, here = _vector_map(opcode, window, here)
        opcode = window[here]
        here += 1
    elif opcode == 0x0F:
        opcode = window[here]
        here += 1
        table = 1
        if opcode in (0x38, 0x3A):
            table = 2 if opcode == 0x38 else 3
            opcode = window[here]
            here += 1
    elif opcode in _INVALID:
        return None
    mod = reg = rm = 0
    if _has_modrm(table, opcode):
        here, mod, reg, rm = _operands(window, here, rex)
    size = _immediate_bytes(table, opcode, reg & 7, prefixes, rex)
    if here + size > len(window):
        return None
    operand = int.from_bytes(window[here : here + size], "little", signed=True) if size else None
    return _Encoding(table, opcode, mod, reg, rm, rex, prefixes, operand, here + size)


def _vector_map(opcode: int, window: bytes, here: int) -> tuple[int, int]:
    """VEX, EVEX and XOP: the opcode map (offset by 4) and where the opcode is."""
    if opcode == 0xC5:
        return 5, here + 1
    return 4 + (window[here] & (0x7 if opcode == 0x62 else 0x1F)), here + {0x62: 3}.get(opcode, 2)


def _has_modrm(table: int, opcode: int) -> bool:
    if table == 0:
        return opcode in _MODRM
    if table == 1:
        return opcode not in _NO_MODRM_0F
    return not (table == 5 and opcode == 0x77)  # vzeroupper


def _operands(window: bytes, here: int, rex: int) -> tuple[int, int, int, int]:
    """ModRM, SIB and displacement: where they end, then mod, reg and rm with REX's bits."""
    modrm = window[here]
    here += 1
    mod, reg, rm = modrm >> 6, modrm >> 3 & 7, modrm & 7
    base = rm
    if mod != 3 and rm == 4:
        base = window[here] & 7
        here += 1
    if mod == 1:
        here += 1
    elif mod == 2 or (mod == 0 and base == 5):
        here += 4
    return here, mod, reg | (rex & 4) << 1, rm | (rex & 1) << 3


def _immediate_bytes(table: int, opcode: int, extension: int, prefixes: bytes, rex: int) -> int:
    wide = 2 if 0x66 in prefixes and not rex & 8 else 4
    if table == 0:
        return _immediate_of_one_byte(opcode, extension, prefixes, rex, wide)
    if table in (1, 5):
        return 4 if table == 1 and 0x80 <= opcode <= 0x8F else int(opcode in _BYTE_OPERAND_0F)
    if table == 14:  # XOP map 10
        return 4
    return int(table in (3, 7, 12))  # 0F 3A, its VEX twin, XOP map 8


def _immediate_of_one_byte(
    opcode: int, extension: int, prefixes: bytes, rex: int, wide: int
) -> int:
    if opcode in (0xE8, 0xE9):
        return 4
    if opcode in (0xF6, 0xF7):
        return (1 if opcode == 0xF6 else wide) if extension < 2 else 0
    if 0xB8 <= opcode <= 0xBF and rex & 8:
        return 8
    if 0xA0 <= opcode <= 0xA3:
        return 4 if 0x67 in prefixes else 8
    if opcode in (0xC2, 0xCA):
        return 2
    if opcode == 0xC8:
        return 3
    return 1 if opcode in _BYTE_OPERAND else wide if opcode in _WIDE_OPERAND else 0


# Meanings


def _one_byte(found: _Encoding, plain: Instruction) -> Instruction:
    opcode, extension = found.opcode, found.reg & 7
    in_opcode = (opcode & 7) | (found.rex & 1) << 3
    end = plain.address + plain.size_bytes
    if 0x50 <= opcode <= 0x57:
        since = _PUSH_EMULATED_FROM if found.size_bytes == 1 + bool(found.rex & 1) else NEVER
        return plain._replace(changes=1 << RSP, emulated_from=since)
    if opcode == 0x90 and not found.rex & 1:
        return plain._replace(changes=0, emulated_from=_nop_from(found))
    if opcode in (0xEB, 0xE9, 0xE8):
        flow = CALL if opcode == 0xE8 else JUMP
        return _go(plain, flow, end + (found.operand or 0), found)
    if 0x70 <= opcode <= 0x7F:
        branch = _go(plain, BRANCH, end + (found.operand or 0), found)
        return branch._replace(skips_null=opcode == 0x74)
    if 0xE0 <= opcode <= 0xE3:
        return plain._replace(flow=BRANCH, target=end + (found.operand or 0))
    if opcode in (0xC2, 0xC3):
        return plain._replace(flow=RETURN)
    if opcode == 0xFF:
        flow = {2: CALL, 3: CALL, 4: JUMP, 5: JUMP}.get(extension, plain.flow)
        changed = {0: _rm(found), 1: _rm(found), 6: 1 << RSP}.get(extension, EVERY_REGISTER)
        return plain._replace(flow=flow, changes=changed)
    if opcode in (0x84, 0x85):
        is_same = found.mod == 3 and found.reg == found.rm and opcode == 0x85
        # Only as a whole register: %edi may be null where %rdi is not.
        tested = found.reg if is_same and found.rex & 8 else None
        return plain._replace(changes=0, tests=tested)
    if opcode in (0x89, 0x8B) and found.mod == 3 and found.rex & 8:
        to, source = (found.rm, found.reg) if opcode == 0x89 else (found.reg, found.rm)
        return plain._replace(changes=1 << to, copies=(to, source))
    return plain._replace(changes=_changes(found, extension, in_opcode))


def _changes(found: _Encoding, extension: int, in_opcode: int) -> int:
    """Which registers the commonest plain one-byte instructions change."""
    opcode = found.opcode
    if opcode < 0x40:
        if opcode & 0x38 == 0x38:  # cmp
            return 0
        form = opcode & 7
        return _rm(found) if form < 2 else _register(found.reg, found) if form < 4 else 1 << RAX
    if 0x58 <= opcode <= 0x5F:
        return 1 << RSP | 1 << in_opcode
    if opcode in (0x80, 0x81, 0x83):
        return 0 if extension == 7 else _rm(found)
    if opcode in (0x86, 0x87):
        return _rm(found) | _register(found.reg, found)
    if opcode in (0xF6, 0xF7):
        one = 0 if extension < 2 else _rm(found)
        return one if extension < 4 else 1 << RAX | 1 << RDX
    if opcode in (0x63, 0x69, 0x6B, 0x8A, 0x8B, 0x8D):
        return _register(found.reg, found)
    if opcode in (0x88, 0x89, 0xC0, 0xC1, 0xC6, 0xC7, 0xD0, 0xD1, 0xD2, 0xD3):
        return _rm(found)
    if opcode == 0xFE and extension < 2:
        return _rm(found)
    if 0xB0 <= opcode <= 0xBF:
        return _register(in_opcode, found)
    if opcode in (0xA8, 0xA9):
        return 0
    if opcode in (0x68, 0x6A):
        return 1 << RSP
    return {0x98: 1 << RAX, 0x99: 1 << RDX, 0xC9: 1 << RSP | 1 << RBP}.get(opcode, EVERY_REGISTER)


def _two_bytes(found: _Encoding, plain: Instruction) -> Instruction:
    opcode = found.opcode
    if 0x80 <= opcode <= 0x8F:
        branch = _go(plain, BRANCH, plain.end + (found.operand or 0), found)
        return branch._replace(skips_null=opcode == 0x84)
    if opcode == 0x1F:
        return plain._replace(changes=0, emulated_from=_nop_from(found))
    if opcode in _NO_REGISTER_0F:
        return plain._replace(changes=0)
    if 0x40 <= opcode <= 0x4F or opcode in (0xAF, 0xB6, 0xB7, 0xBC, 0xBD, 0xBE, 0xBF):
        return plain._replace(changes=_register(found.reg, found))
    if 0x90 <= opcode <= 0x9F or opcode in (0xAB, 0xB3, 0xBB):
        return plain._replace(changes=_rm(found))
    if opcode == 0xBA:
        return plain._replace(changes=0 if found.reg & 7 == 4 else _rm(found))
    if opcode == 0x0B:  # ud2: nothing comes after it
        return plain._replace(flow=RETURN, can_probe=False)
    if opcode == 0x05:  # syscall: not in the kernel's table of good instructions
        return plain._replace(can_probe=False)
    return plain


def _nop_from(found: _Encoding) -> tuple[int, int]:
    """0x90 was emulated from the first, after operand-size prefixes too; f3 90 is pause."""
    if found.opcode == 0x90:
        return ALWAYS if set(found.prefixes) <= {0x66} else NEVER
    return _NOP_EMULATED_FROM if not found.prefixes else NEVER


def _go(plain: Instruction, flow: str, target: int, found: _Encoding) -> Instruction:
    """A direct jump, branch or call; with an operand-size prefix the kernel refuses a probe."""
    allowed = 0x66 not in found.prefixes
    return plain._replace(
        flow=flow,
        target=target,
        changes=0 if flow != CALL else EVERY_REGISTER,
        emulated_from=ALWAYS if allowed else NEVER,
        can_probe=allowed,
    )


def _rm(found: _Encoding) -> int:
    """The register that the r/m operand names; nothing where it is memory."""
    return _register(found.rm, found) if found.mod == 3 else 0


def _register(number: int, found: _Encoding) -> int:
    # Without REX the byte registers 4 to 7 are ah, ch, dh and bh: parts of 0 to 3.
    return 1 << number | (1 << (number & 3) if not found.rex and 4 <= number < 8 else 0)
