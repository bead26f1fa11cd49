"""What an ELF file says of itself (elf(5)): its build-id, and which tables of names and lines."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MOST_SECTIONS = 65_536
_MOST_BYTES = 4 << 20
_PT_LOAD, _PT_NOTE = 1, 4
_SHT_SYMTAB, _SHT_NOTE, _SHT_NOBITS = 2, 7, 8
_NT_GNU_BUILD_ID = 3
_LINE_TABLES = (b".debug_line", b".zdebug_line")


class ElfFacts(NamedTuple):
    """`build_id` in hexadecimal digits; `load_address` is the lowest that a segment asks for."""

    build_id: str | None
    has_lines: bool
    has_symbols: bool
    load_address: int


class _Section(NamedTuple):
    name: bytes
    kind: int
    offset: int
    size: int


def elf_facts(path: Path) -> ElfFacts | None:
    """None where it is no regular file, cannot be read, or is no ELF file or a damaged one."""
    try:
        # Asked before it is opened too: opening a device may do something.
        if not path.is_file():
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return _Elf(descriptor).facts()
    except (OSError, OverflowError, ValueError, struct.error):
        return None
    finally:
        os.close(descriptor)


class _Elf:
    """An open file's tables; raises ValueError or struct.error where they make no sense."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        ident = self._read(0, 16)
        if ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
            raise ValueError
        self._order = "<" if ident[5] == 1 else ">"
        self._is_wide = ident[4] == 2
        header = struct.Struct(
            self._order + ("HHIQQQIHHHHHH" if self._is_wide else "HHIIIIIHHHHHH")
        )
        (_, _, _, _, self._programs_at, self._sections_at, _, _, self._program_size,
         self._programs, self._section_size, self._sections, self._names) = header.unpack(
            self._read(16, header.size)
        )  # fmt: skip

    def facts(self) -> ElfFacts:
        sections = self._all_sections()
        segments = list(self._segments())
        notes = [(one.offset, one.size) for one in sections if one.kind == _SHT_NOTE]
        notes += [(offset, size) for kind, offset, _, size in segments if kind == _PT_NOTE]
        loads = [address for kind, _, address, _ in segments if kind == _PT_LOAD]
        return ElfFacts(
            build_id=next(filter(None, (self._build_id(*note) for note in notes)), None),
            has_lines=any(one.name in _LINE_TABLES and one.kind != _SHT_NOBITS for one in sections),
            has_symbols=any(one.kind == _SHT_SYMTAB for one in sections),
            load_address=min(loads, default=0),
        )

    def _read(self, offset: int, size: int) -> bytes:
        """Exactly so many bytes."""
        if size > _MOST_BYTES:
            raise ValueError
        found = os.pread(self._descriptor, size, offset)
        if len(found) != size:
            raise ValueError
        return found

    def _all_sections(self) -> list[_Section]:
        row = struct.Struct(self._order + ("IIQQQQIIQQ" if self._is_wide else "10I"))
        if not self._sections_at or self._section_size != row.size:
            return []
        # What does not fit into the header stands in the first, empty section.
        first = row.unpack(self._read(self._sections_at, row.size))
        count = self._sections or first[5]
        names = first[6] if self._names == 0xFFFF else self._names
        if not names < count <= _MOST_SECTIONS:
            raise ValueError
        rows = list(row.iter_unpack(self._read(self._sections_at, count * row.size)))
        texts = self._read(rows[names][4], rows[names][5])
        return [
            _Section(texts[one[0] : texts.find(b"\0", one[0])], one[1], one[4], one[5])
            for one in rows
        ]

    def _segments(self) -> Iterator[tuple[int, int, int, int]]:
        """Kind, offset, address and size in the file."""
        row = struct.Struct(self._order + ("IIQQQQQQ" if self._is_wide else "8I"))
        if not self._programs or self._program_size != row.size:
            return
        for one in row.iter_unpack(self._read(self._programs_at, self._programs * row.size)):
            if self._is_wide:
                kind, _, offset, address, _, size, _, _ = one
            else:
                kind, offset, address, _, size, _, _, _ = one
            yield kind, offset, address, size

    def _build_id(self, offset: int, size: int) -> str | None:
        """A debug file keeps headers of segments without their content: that is no notes."""
        try:
            notes = self._read(offset, size)
        except ValueError:
            return None
        at = 0
        while at + 12 <= len(notes):
            name_size, size, kind = struct.unpack_from(self._order + "III", notes, at)
            content = at + 12 + (name_size + 3 & ~3)
            if kind == _NT_GNU_BUILD_ID and notes[at + 12 : at + 12 + name_size] == b"GNU\0":
                return notes[content : content + size].hex() or None
            at = content + (size + 3 & ~3)
        return None
