"""Numbers and pointers as DWARF and the unwind tables of ELF files write them.

Sources: DWARF 5, 7.6 (LEB128); Linux Standard Base Core 5.0, 10.5 (DW_EH_PE pointer encodings).
"""

from __future__ import annotations

import struct
from typing import Optional

from leakcase_collector.system.elf import ElfError

#: A longer LEB128 holds no 64-bit number.
_LEB128_MAX_BYTES = 10
_WORD = (1 << 64) - 1

OMITTED = 0xFF
_FIXED = {0x0: "<Q", 0x2: "<H", 0x3: "<I", 0x4: "<Q", 0xA: "<h", 0xB: "<i", 0xC: "<q"}
_ULEB128, _SLEB128 = 0x1, 0x9
_RELATIVE_TO_ITSELF, _RELATIVE_TO_TABLE = 0x10, 0x30


class Cursor:
    """A place in some bytes that moves on as numbers are read; `address` is that of the first.

    ElfError where the bytes end too early or hold no such number.
    """

    def __init__(self, content: bytes, address: int = 0, at: int = 0, end: int = -1) -> None:
        self.content = content
        self.address = address
        self.at = at
        self.end = len(content) if end < 0 else min(end, len(content))

    def byte(self) -> int:
        if self.at >= self.end:
            raise damaged()
        value = self.content[self.at]
        self.at += 1
        return value

    def take(self, size: int) -> bytes:
        if not 0 <= size <= self.end - self.at:
            raise damaged()
        self.at += size
        return self.content[self.at - size : self.at]

    def fixed(self, layout: str) -> int:
        size = struct.calcsize(layout)
        value: int = struct.unpack(layout, self.take(size))[0]
        return value

    def uleb128(self) -> int:
        value = self.byte()
        if value < 0x80:
            return value
        value &= 0x7F
        for place in range(1, _LEB128_MAX_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value
        raise damaged()

    def sleb128(self) -> int:
        start = self.at
        value = self.uleb128()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) else value

    def string(self) -> bytes:
        found = self.content.find(b"\0", self.at, self.end)
        if found < 0:
            raise damaged()
        text = self.content[self.at : found]
        self.at = found + 1
        return text

    def pointer(self, encoding: int, table_address: Optional[int] = None) -> int:
        """An address written with one of the DW_EH_PE encodings, modulo 2**64.

        Indirect ones, and those relative to text or function, which no compiler writes where this
        is used, are refused. `table_address` is what "datarel" counts from.
        """
        here = self.address + self.at
        kind, relation = encoding & 0x0F, encoding & 0xF0
        if kind in _FIXED:
            value = self.fixed(_FIXED[kind])
        elif kind == _ULEB128:
            value = self.uleb128()
        elif kind == _SLEB128:
            value = self.sleb128()
        else:
            raise damaged()
        if relation == _RELATIVE_TO_ITSELF:
            value += here
        elif relation == _RELATIVE_TO_TABLE and table_address is not None:
            value += table_address
        elif relation:
            raise damaged()
        return value & _WORD

    def skip_pointer(self, encoding: int) -> None:
        """Pass over a pointer whose value is of no interest."""
        kind = encoding & 0x0F
        if encoding == OMITTED:
            return
        if kind in _FIXED:
            self.take(struct.calcsize(_FIXED[kind]))
        elif kind in (_ULEB128, _SLEB128):
            self.uleb128()
        else:
            raise damaged()


def damaged() -> ElfError:
    """What to raise where the tables are not as they must be."""
    return ElfError("its unwind tables are damaged, or changed while they were read")
