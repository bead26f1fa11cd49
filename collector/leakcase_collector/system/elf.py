"""What an ELF file says about itself: headers, segments, sections, dynamic section, notes.

Read with a few small reads at checked offsets, never as a whole, for files may have a gigabyte and
may come from someone hostile: every count and size is bounded, and what does not fit raises
`ElfError`. Formats: elf(5), the System V gABI, and where cited the GNU extensions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple, Protocol

from leakcase_collector.errors import NotSupported

_SEGMENTS_MAX = 512
_SECTIONS_MAX = 8192
_DYNAMIC_MAX = 4096
_NEEDED_MAX = 1024
_NOTES_LIMIT_BYTES = 64 * 1024
_NOTE_PLACES_MAX = 16
_STRING_LIMIT_BYTES = 4096
_NAMES_LIMIT_BYTES = 4 * 1024 * 1024
_SECTION_NAME_MAX = 64

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
SHT_SYMTAB, SHT_NOTE, SHT_NOBITS, SHT_DYNSYM = 2, 7, 8, 11
PF_X, PF_W = 1, 2
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SONAME = 1, 4, 5, 6, 10, 14
DT_GNU_HASH, DT_FLAGS_1 = 0x6FFFFEF5, 0x6FFFFFFB
_DF_1_PIE = 0x08000000
_NT_GNU_BUILD_ID = 3
_PN_XNUM = 0xFFFF

_KINDS = {1: "relocatable", 2: "executable", 3: "shared-object", 4: "core"}
#: By e_machine, bits and byte order.
_MACHINES = {
    (3, 32, "little"): "i386",
    (21, 64, "little"): "ppc64le",
    (22, 64, "big"): "s390x",
    (40, 32, "little"): "arm",
    (62, 64, "little"): "x86_64",
    (183, 64, "little"): "aarch64",
    (243, 64, "little"): "riscv64",
    (258, 64, "little"): "loongarch64",
}


class ElfError(NotSupported):
    """The file is no ELF file, is damaged, or goes beyond what we are willing to read."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"cannot read the program file as ELF: {problem}. "
            "What it would tell stays unseen; the rest of the capture is not affected."
        )


class Reader(Protocol):
    """Random access to a file's bytes; `files.TargetFile` is one."""

    size_bytes: int

    def read_at(self, offset: int, size: int) -> bytes: ...


class Segment(NamedTuple):
    kind: int
    flags: int
    offset: int
    address: int
    file_bytes: int
    align: int
    memory_bytes: int


class Section(NamedTuple):
    name: str
    kind: int
    address: int
    offset: int
    size_bytes: int
    link: int


class ElfFile:
    """One ELF file, read piece by piece on demand."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        ident = reader.read_at(0, 16)
        if ident[:4] != b"\x7fELF" or len(ident) < 16:
            raise ElfError("it does not start with an ELF header")
        if ident[4] not in (1, 2) or ident[5] not in (1, 2):
            raise ElfError("its class or byte order is neither of the known two")
        self.bits = 32 * ident[4]
        self.byte_order = "little" if ident[5] == 1 else "big"
        self.struct_order = "<" if ident[5] == 1 else ">"
        word = "I" if self.bits == 32 else "Q"
        header = self.unpack(f"HHI{word}{word}{word}IHHHHHH", 16)
        self.kind = _KINDS.get(header[0], "other")
        self.machine = _MACHINES.get((header[1], self.bits, self.byte_order), "other")
        self.entry, self._segments_at, self._sections_at = header[3:6]
        self._segment_bytes, self._segment_count = header[8], header[9]
        self._section_bytes, self._section_count, self._names_index = header[10:13]

    # Bounded reading

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of the file from `offset`; ElfError if it has fewer."""
        if offset < 0 or size < 0 or offset + size > self._reader.size_bytes:
            raise ElfError("an offset or a size in it points beyond its end")
        content = self._reader.read_at(offset, size)
        if len(content) != size:
            raise ElfError("it became shorter while it was read")
        return content

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        """struct.unpack at `offset`, in the file's byte order."""
        layout = self.struct_order + layout
        return struct.unpack(layout, self.read(offset, struct.calcsize(layout)))

    def iter_unpack(self, layout: str, content: bytes) -> Iterator[tuple[int, ...]]:
        """As many whole items of `layout` as `content` holds."""
        layout = self.struct_order + layout
        whole = len(content) - len(content) % struct.calcsize(layout)
        return struct.iter_unpack(layout, content[:whole])

    def string(self, offset: int, end: int) -> str:
        """The NUL-terminated string at a file offset, looked for up to `end` and 4 KB."""
        size = min(end, self._reader.size_bytes, offset + _STRING_LIMIT_BYTES) - offset
        found, nul, _ = self.read(offset, max(size, 0)).partition(b"\0")
        if not nul:
            raise ElfError("a string in it does not end")
        return found.decode("utf-8", "surrogateescape")

    def offset_of(self, address: int) -> int:
        """The file offset of a virtual address; ElfError where no segment holds it."""
        for segment in self.segments:
            if segment.kind == PT_LOAD and 0 <= address - segment.address < segment.file_bytes:
                return address - segment.address + segment.offset
        raise ElfError("an address in it belongs to no loaded segment")

    # Tables

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        count = self._segment_count
        if count == _PN_XNUM and self._sections_at:
            # More than fits: the count is in section 0's sh_info (elf(5), PN_XNUM).
            count = self.unpack("I", self._sections_at + (28 if self.bits == 32 else 44))[0]
        if count > _SEGMENTS_MAX:
            raise ElfError("it has more segments than any program")
        layout = "IIIIIIII" if self.bits == 32 else "IIQQQQQQ"
        rows = self._table(self._segments_at, self._segment_bytes, count, layout)
        if self.bits == 32:
            return tuple(Segment(r[0], r[6], r[1], r[2], r[4], r[7], r[5]) for r in rows)
        return tuple(Segment(r[0], r[1], r[2], r[3], r[5], r[7], r[6]) for r in rows)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The section headers; none where they were stripped away altogether."""
        if not self._sections_at:
            return ()
        layout = "IIIIIIIIII" if self.bits == 32 else "IIQQQQIIQQ"
        count, names_index = self._section_count, self._names_index
        if count == 0 or names_index == 0xFFFF:
            first = self._table(self._sections_at, self._section_bytes, 1, layout)[0]
            count, names_index = count or first[5], first[6]
        if count > _SECTIONS_MAX:
            raise ElfError("it has more sections than any program")
        rows = self._table(self._sections_at, self._section_bytes, count, layout)
        names = b""
        if names_index < len(rows):
            offset, size = rows[names_index][4:6]
            names = self.read(offset, min(size, _NAMES_LIMIT_BYTES))
        return tuple(Section(_name(names, r[0]), r[1], r[3], r[4], r[5], r[6]) for r in rows)

    def _table(
        self, offset: int, item_bytes: int, count: int, layout: str
    ) -> list[tuple[int, ...]]:
        if not count:
            return []
        if item_bytes != struct.calcsize(self.struct_order + layout):
            raise ElfError("its header names an unknown table layout")
        return list(self.iter_unpack(layout, self.read(offset, item_bytes * count)))

    def section(self, name: str) -> Section | None:
        """The section of that name that has bytes in the file."""
        for section in self.sections:
            if section.name == name and section.kind != SHT_NOBITS:
                return section
        return None

    @cached_property
    def dynamic(self) -> dict[int, list[int]]:
        """The dynamic section: each tag with its values, in order; empty if there is none."""
        tags: dict[int, list[int]] = {}
        for segment in self.segments:
            if segment.kind != PT_DYNAMIC:
                continue
            word, word_bytes = ("I", 4) if self.bits == 32 else ("Q", 8)
            size = min(segment.file_bytes, _DYNAMIC_MAX * 2 * word_bytes)
            for tag, value in self.iter_unpack(word * 2, self.read(segment.offset, size)):
                if tag == 0:
                    break
                tags.setdefault(tag, []).append(value)
            break
        return tags

    def dynamic_string(self, index: int) -> str:
        """The string at `index` of the dynamic string table."""
        if not self.dynamic.get(DT_STRTAB) or not self.dynamic.get(DT_STRSZ):
            raise ElfError("its dynamic section has no string table")
        start = self.offset_of(self.dynamic[DT_STRTAB][0])
        return self.string(start + index, start + self.dynamic[DT_STRSZ][0])

    # What it says

    @cached_property
    def interpreter(self) -> str | None:
        for segment in self.segments:
            if segment.kind == PT_INTERP:
                return self.string(segment.offset, segment.offset + segment.file_bytes)
        return None

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """The libraries it asks for (DT_NEEDED), in its order, which is the search order."""
        indexes = self.dynamic.get(DT_NEEDED, [])[:_NEEDED_MAX]
        return tuple(self.dynamic_string(index) for index in indexes)

    @cached_property
    def soname(self) -> str | None:
        index = self.dynamic.get(DT_SONAME)
        return self.dynamic_string(index[0]) if index else None

    @property
    def is_pie(self) -> bool:
        """A position-independent executable, the static kind included.

        DF_1_PIE says so since binutils 2.26; before, only "has an interpreter and no soname".
        """
        if self.kind != "shared-object":
            return False
        flagged = bool(self.dynamic.get(DT_FLAGS_1, [0])[0] & _DF_1_PIE)
        return flagged or (self.interpreter is not None and self.soname is None)

    @property
    def is_static(self) -> bool:
        """A program that loads no library."""
        is_program = self.kind == "executable" or self.is_pie
        return is_program and self.interpreter is None and not self.needed

    @property
    def is_stripped(self) -> bool:
        """Without .symtab: function names must come from elsewhere."""
        return not any(section.kind == SHT_SYMTAB for section in self.sections)

    @property
    def has_debug_info(self) -> bool:
        """With DWARF of its own (not in a separate file)."""
        return bool(self.section(".debug_info") or self.section(".zdebug_info"))

    @property
    def has_dynamic_symbols(self) -> bool:
        return DT_SYMTAB in self.dynamic

    @property
    def lowest_load_address(self) -> int | None:
        """The lowest PT_LOAD address: what symbolizers count a module's offsets from."""
        loads = [segment.address for segment in self.segments if segment.kind == PT_LOAD]
        return min(loads) if loads else None

    @cached_property
    def build_id(self) -> str | None:
        """The GNU build-id in hex, from the program headers, else from the sections."""
        note = self.note("GNU", _NT_GNU_BUILD_ID)
        return note.hex() if note else None

    @property
    def debuglink(self) -> tuple[str, int] | None:
        """.gnu_debuglink: name and CRC-32 of the separate debug file (gdb manual)."""
        section = self.section(".gnu_debuglink")
        if section is None or section.size_bytes < 8:
            return None
        name = self.string(section.offset, section.offset + section.size_bytes - 4)
        return name, self.unpack("I", section.offset + section.size_bytes - 4)[0]

    def note(self, owner: str, kind: int) -> bytes | None:
        """The descriptor of the first note of that owner and type."""
        places = [(s.offset, s.file_bytes, s.align) for s in self.segments if s.kind == PT_NOTE]
        places += [(s.offset, s.size_bytes, 4) for s in self.sections if s.kind == SHT_NOTE]
        for offset, size, align in places[:_NOTE_PLACES_MAX]:
            content = self.read(offset, min(size, _NOTES_LIMIT_BYTES))
            for found_owner, found_kind, descriptor in self._notes(content, align):
                if (found_owner, found_kind) == (owner.encode(), kind):
                    return descriptor
        return None

    def _notes(self, content: bytes, align: int) -> list[tuple[bytes, int, bytes]]:
        notes = []
        # Notes are padded to 4 bytes, but to 8 in a segment aligned so (gABI on x86-64).
        pad = 8 if align == 8 else 4
        at = 0
        while at + 12 <= len(content):
            name_bytes, size, kind = struct.unpack_from(self.struct_order + "III", content, at)
            start = at + 12 + name_bytes
            start += -start % pad
            if start + size > len(content):
                break
            name = content[at + 12 : at + 12 + name_bytes].rstrip(b"\0")
            notes.append((name, kind, content[start : start + size]))
            at = start + size
            at += -at % pad
        return notes


def _name(names: bytes, index: int) -> str:
    name = names[index : index + _SECTION_NAME_MAX].partition(b"\0")[0]
    return name.decode("utf-8", "surrogateescape")
