"""Where a jump through the procedure linkage table ends, if that is in the same file.

Formats: System V ABI, AMD64 supplement, 5.2 "Procedure Linkage Table" and 4.4 "Relocation".
"""

from __future__ import annotations

from leakcase_collector.system.elf import DT_SYMTAB, ElfError, ElfFile
from leakcase_collector.trace.instructions import JUMP
from leakcase_collector.trace.x86_64 import decode

_DT_PLTRELSZ, _DT_PLTREL, _DT_JMPREL, _DT_RELA = 2, 20, 23, 7
_RELOCATIONS_MAX = 16_384
_RELOCATION_BYTES, _SYMBOL_BYTES = 24, 24
_LANDING = b"\xf3\x0f\x1e\xfa"  # endbr64
_STUB_BYTES = 16


def tail_jump(elf: ElfFile, address: int) -> int | None:
    """The function of the same file that the one at `address` does nothing but jump to.

    None if it does anything else, and on other machines than x86-64. A jump through the linkage
    table is taken to reach the file's own definition, as it does unless another module
    defines the name before.
    """
    if elf.machine != "x86_64":
        return None
    code = elf.read(elf.offset_of(address), _STUB_BYTES)
    skipped = len(_LANDING) if code.startswith(_LANDING) else 0
    jump = decode(code, skipped, address + skipped)
    if jump is None or jump.flow != JUMP or jump.target is None:
        return None
    return _through_table(elf, jump.target) or jump.target


def _through_table(elf: ElfFile, address: int) -> int | None:
    """The own definition that the linkage table's entry at `address` stands for."""
    try:
        slot = _slot(elf.read(elf.offset_of(address), _STUB_BYTES), address)
        return _definition(elf, slot) if slot is not None else None
    except ElfError:
        return None


def _slot(code: bytes, address: int) -> int | None:
    """The word that an entry jumps through: ``[endbr64] [bnd] jmp *n(%rip)``."""
    at = 4 if code.startswith(_LANDING) else 0
    at += 1 if code[at : at + 1] == b"\xf2" else 0
    if code[at : at + 2] != b"\xff\x25":
        return None
    return address + at + 6 + int.from_bytes(code[at + 2 : at + 6], "little", signed=True)


def _definition(elf: ElfFile, slot: int) -> int | None:
    tags = elf.dynamic
    if tags.get(_DT_PLTREL) != [_DT_RELA] or not (tags.get(_DT_JMPREL) and tags.get(DT_SYMTAB)):
        return None
    size = min(tags.get(_DT_PLTRELSZ, [0])[0], _RELOCATIONS_MAX * _RELOCATION_BYTES)
    table = elf.read(elf.offset_of(tags[_DT_JMPREL][0]), size)
    for place, information, _ in elf.iter_unpack("QQq", table):
        if place == slot:
            at = elf.offset_of(tags[DT_SYMTAB][0]) + (information >> 32) * _SYMBOL_BYTES
            section, value = _symbol(elf, at)
            return value if section else None
    return None


def _symbol(elf: ElfFile, at: int) -> tuple[int, int]:
    """Section index (0: undefined here) and value of the dynamic symbol at a file offset."""
    _, _, _, section, value, _ = elf.unpack("IBBHQQ", at)
    return section, value
