"""Tiny ELF files, packed by hand: 32 and 64 bits, both byte orders, every table that is read.

The whole file is one PT_LOAD at `BASE`, so that address and offset differ by that constant.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from leakcase_collector.system.elf_symbols import gnu_hash, sysv_hash

BASE = 0x400000


class BytesReader:
    """A file in memory, with the reading interface of the real one."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size_bytes = len(content)

    def read_at(self, offset: int, size: int) -> bytes:
        return self.content[offset : offset + size]


@dataclass
class TinyElf:
    """What goes into the file; `build` packs it."""

    bits: int = 64
    order: str = "<"
    kind: int = 3
    machine: int = 62
    interpreter: str | None = None
    needed: tuple[str, ...] = ()
    soname: str | None = None
    flags_1: int = 0
    build_id: bytes | None = None
    defined: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()
    hash_style: str = "gnu"
    local: tuple[str, ...] = ()
    sections: dict[str, bytes] = field(default_factory=dict)
    with_section_headers: bool = True

    def build(self) -> bytes:
        self._word = "I" if self.bits == 32 else "Q"
        self._body = bytearray(self._header_bytes + 5 * self._segment_bytes)
        self._headers: list[tuple[str, int, int, int, int, int]] = []
        segments = [(1, 0, 0)]  # PT_LOAD; its size is filled in last
        if self.interpreter:
            segments.append((3, *self._put(".interp", self.interpreter.encode() + b"\0")))
        if self.build_id is not None:
            note = self._pack("III", 4, len(self.build_id), 3) + b"GNU\0" + self.build_id
            segments.append((4, *self._put(".note.gnu.build-id", note, kind=7)))
        dynamic = self._dynamic()
        if dynamic:
            segments.append((2, *self._put(".dynamic", dynamic, kind=6)))
        for name, content in self.sections.items():
            self._put(name, content)
        if self.local:
            self._symbol_table(".symtab", 2, ".strtab", self.local, ())
        names_index = len(self._headers) + 1
        sections_at = self._section_headers() if self.with_section_headers else 0
        count = names_index + 1 if self.with_section_headers else 0
        self._body[: self._header_bytes] = self._file_header(
            len(segments), sections_at, count, names_index if self.with_section_headers else 0
        )
        segments[0] = (1, 0, len(self._body))
        for number, (segment_kind, offset, size) in enumerate(segments):
            at = self._header_bytes + number * self._segment_bytes
            self._body[at : at + self._segment_bytes] = self._segment(segment_kind, offset, size)
        return bytes(self._body)

    # Pieces

    @property
    def _header_bytes(self) -> int:
        return 52 if self.bits == 32 else 64

    @property
    def _segment_bytes(self) -> int:
        return 32 if self.bits == 32 else 56

    def _pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(self.order + layout, *values)

    def _put(self, name: str, content: bytes, kind: int = 1, link: int = 0) -> tuple[int, int]:
        """Append a section; its offset and size."""
        self._body += bytes(-len(self._body) % 16)
        offset = len(self._body)
        self._body += content
        self._headers.append((name, kind, offset, len(content), link, 0))
        return offset, len(content)

    def _file_header(self, segments: int, sections_at: int, count: int, names: int) -> bytes:
        ident = b"\x7fELF" + bytes([self.bits // 32, 1 if self.order == "<" else 2, 1])
        sizes = (self._header_bytes, self._segment_bytes, segments)
        return ident.ljust(16, b"\0") + self._pack(
            f"HHI{self._word * 3}IHHHHHH",
            *(self.kind, self.machine, 1, BASE, self._header_bytes, sections_at, 0),
            *sizes,
            *(40 if self.bits == 32 else 64, count, names),
        )

    def _segment(self, kind: int, offset: int, size: int) -> bytes:
        address = BASE + offset
        if self.bits == 32:
            return self._pack("IIIIIIII", kind, offset, address, address, size, size, 6, 4)
        return self._pack("IIQQQQQQ", kind, 6, offset, address, address, size, size, 4)

    def _section_headers(self) -> int:
        names = b"\0" + b"".join(h[0].encode() + b"\0" for h in self._headers) + b".shstrtab\0"
        self._put(".shstrtab", names, kind=3)
        at = len(self._body) + -len(self._body) % 16
        self._body += bytes(at - len(self._body))
        layout = "IIIIIIIIII" if self.bits == 32 else "IIQQQQIIQQ"
        self._body += bytes(struct.calcsize(self.order + layout))
        place = 1
        for name, kind, offset, size, link, info in self._headers:
            self._body += self._pack(
                layout, place, kind, 0, BASE + offset, offset, size, link, info, 4, 0
            )
            place += len(name) + 1
        return at

    def _symbol_table(
        self,
        table: str,
        kind: int,
        strings: str,
        defined: tuple[str, ...],
        imported: tuple[str, ...],
    ) -> tuple[int, int, int]:
        """A symbol table and its strings: offset of both, and the size of the strings."""
        text = b"\0"
        entries = self._symbol(0, 0, 0)
        for number, name in enumerate(imported + defined):
            entries += self._symbol(len(text), BASE + number, int(name in defined))
            text += name.encode() + b"\0"
        text += b"".join(name.encode() + b"\0" for name in (*self.needed, self.soname or ""))
        strings_at, strings_bytes = self._put(strings, text, kind=3)
        table_at, _ = self._put(table, entries, kind=kind, link=len(self._headers))
        return table_at, strings_at, strings_bytes

    def _symbol(self, name: int, value: int, section: int) -> bytes:
        if self.bits == 32:
            return self._pack("IIIBBH", name, value, 8, 0x12, 0, section)
        return self._pack("IBBHQQ", name, 0x12, 0, section, value, 8)

    def _dynamic(self) -> bytes:
        if not (self.needed or self.soname or self.defined or self.imported or self.flags_1):
            return b""
        table, strings, strings_bytes = self._symbol_table(
            ".dynsym", 11, ".dynstr", self.defined, self.imported
        )
        text = bytes(self._body[strings : strings + strings_bytes])
        tags = [(1, text.index(b"\0" + name.encode() + b"\0") + 1) for name in self.needed]
        if self.soname:
            tags.append((14, text.index(b"\0" + self.soname.encode() + b"\0") + 1))
        tags += [(5, BASE + strings), (10, strings_bytes), (6, BASE + table)]
        if self.hash_style == "gnu":
            tags.append((0x6FFFFEF5, BASE + self._put(".gnu.hash", self._gnu_hash())[0]))
        elif self.hash_style == "sysv":
            tags.append((4, BASE + self._put(".hash", self._sysv_hash())[0]))
        if self.flags_1:
            tags.append((0x6FFFFFFB, self.flags_1))
        return b"".join(self._pack(self._word * 2, *tag) for tag in [*tags, (0, 0)])

    def _gnu_hash(self) -> bytes:
        """One bucket, a Bloom filter of one word that lets everything through."""
        first = 1 + len(self.imported)
        hashes = [gnu_hash(name.encode()) & ~1 for name in self.defined]
        if hashes:
            hashes[-1] |= 1
        return (
            self._pack("IIII", 1, first, 1, 5)
            + self._pack(self._word, 2**self.bits - 1)
            + self._pack("I", first if hashes else 0)
            + b"".join(self._pack("I", value) for value in hashes)
        )

    def _sysv_hash(self) -> bytes:
        names = self.imported + self.defined
        buckets = [0] * 3
        chains = [0] * (len(names) + 1)
        for index, name in enumerate(names, 1):
            bucket = sysv_hash(name.encode()) % 3
            chains[index], buckets[bucket] = buckets[bucket], index
        return self._pack(f"II{3 + len(chains)}I", 3, len(chains), *buckets, *chains)
