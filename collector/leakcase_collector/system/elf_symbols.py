"""Which of some given names an ELF file defines, without reading its whole symbol table.

Dynamic symbols are looked up as the loader does, through .gnu.hash or .hash; .symtab, which has no
index, is searched in bounded pieces.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import NamedTuple

from leakcase_collector.system.elf import (
    DT_GNU_HASH,
    DT_HASH,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMTAB,
    SHT_DYNSYM,
    SHT_SYMTAB,
    ElfError,
    ElfFile,
    Section,
)

_CHUNK_BYTES = 256 * 1024
TABLE_LIMIT_BYTES = 48 * 1024 * 1024
_CHAIN_MAX = 1024
_BLOOM_LIMIT_BYTES = 4 * 1024 * 1024
_NAME_OFFSETS_MAX = 20_000
_NAME_MAX = 256
_STT_FUNC = 2  # elf(5)


class Symbol(NamedTuple):
    """A defined symbol: its virtual address and size."""

    address: int
    size_bytes: int


class SymbolScan(NamedTuple):
    """What a search of .symtab found; `is_complete` is False where a limit cut it short.

    Of several symbols of one name a global one is kept, else the first.
    """

    symbols: dict[str, Symbol]
    is_complete: bool

    @property
    def found(self) -> frozenset[str]:
        return frozenset(self.symbols)


class _Layout(NamedTuple):
    """One entry of a symbol table: elf(5), Elf32_Sym and Elf64_Sym differ in order too."""

    entry: str
    name_only: str
    entry_bytes: int


_LAYOUTS = {32: _Layout("IIIBBH", "I12x", 16), 64: _Layout("IBBHQQ", "I20x", 24)}


def defined_dynamic_symbols(elf: ElfFile, names: Collection[str]) -> frozenset[str]:
    """Those of `names` that the file defines for others (not those that it only imports)."""
    return frozenset(name for name in names if dynamic_symbol(elf, name) is not None)


def dynamic_symbol(elf: ElfFile, name: str) -> Symbol | None:
    """The definition of `name` in the dynamic symbol table, or None."""
    if not all(elf.dynamic.get(tag) for tag in (DT_SYMTAB, DT_STRTAB, DT_STRSZ)):
        return None
    wanted = name.encode()
    if elf.dynamic.get(DT_GNU_HASH):
        return _by_gnu_hash(elf, wanted)
    if elf.dynamic.get(DT_HASH):
        return _by_hash(elf, wanted)
    table = _section_of_kind(elf, SHT_DYNSYM)
    return _scan(elf, table, {name}).symbols.get(name) if table is not None else None


def dynamic_functions(elf: ElfFile) -> list[tuple[int, str]]:
    """Address and name of every function that it defines for others, by address.

    ElfError where it has no section headers, or more symbols than are read.
    """
    table = _section_of_kind(elf, SHT_DYNSYM)
    if table is None or table.link >= len(elf.sections) or table.size_bytes > TABLE_LIMIT_BYTES:
        raise ElfError("its dynamic symbols cannot be listed")
    strings = elf.sections[table.link]
    names = elf.read(strings.offset, min(strings.size_bytes, TABLE_LIMIT_BYTES))
    found = []
    for entry in elf.iter_unpack(
        _LAYOUTS[elf.bits].entry, elf.read(table.offset, table.size_bytes)
    ):
        info, address = (entry[3], entry[1]) if elf.bits == 32 else (entry[1], entry[4])
        if info & 15 == _STT_FUNC and _is_defined(elf, entry):
            name = names[entry[0] : entry[0] + _NAME_MAX].partition(b"\0")[0]
            found.append((address, name.decode("utf-8", "surrogateescape")))
    return sorted(found)


def defined_static_symbols(elf: ElfFile, names: Collection[str]) -> SymbolScan:
    """Those of `names` that .symtab defines, local ones included; nothing in a stripped file."""
    table = _section_of_kind(elf, SHT_SYMTAB)
    if table is None:
        return SymbolScan({}, True)
    return _scan(elf, table, names)


def imported_symbols(elf: ElfFile, names: Collection[str]) -> frozenset[str]:
    """Those of `names` that the file wants from others (undefined in its dynamic symbols)."""
    table = _section_of_kind(elf, SHT_DYNSYM)
    if table is None:
        return frozenset()
    return _scan(elf, table, names, wants_defined=False).found


def gnu_hash(name: bytes) -> int:
    """The hash of .gnu.hash: Bernstein's, h * 33 + c from 5381, in 32 bits."""
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


def sysv_hash(name: bytes) -> int:
    """The hash of .hash: elf_hash of the System V gABI."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value


def _by_gnu_hash(elf: ElfFile, name: bytes) -> Symbol | None:
    # Layout: header of four words, Bloom filter, buckets, chain (binutils bfd/elflink.c,
    # glibc elf/dl-lookup.c do_lookup_x).
    start = elf.offset_of(elf.dynamic[DT_GNU_HASH][0])
    bucket_count, first_index, bloom_words, bloom_shift = elf.unpack("IIII", start)
    word_bytes = elf.bits // 8
    if not bucket_count or not bloom_words or bloom_words * word_bytes > _BLOOM_LIMIT_BYTES:
        raise ElfError("its symbol hash table has impossible sizes")
    value = gnu_hash(name)
    word_at = start + 16 + (value // elf.bits) % bloom_words * word_bytes
    word = elf.unpack("I" if elf.bits == 32 else "Q", word_at)[0]
    # The C code shifts 32-bit values, so that a shift of 32 and more leaves nothing.
    bits = (1 << value % elf.bits) | (1 << (value >> min(bloom_shift, 32)) % elf.bits)
    if word & bits != bits:
        return None
    buckets = start + 16 + bloom_words * word_bytes
    index = elf.unpack("I", buckets + value % bucket_count * 4)[0]
    chain = buckets + bucket_count * 4
    for step in range(_CHAIN_MAX if index >= first_index else 0):
        hashed = elf.unpack("I", chain + (index + step - first_index) * 4)[0]
        if hashed | 1 == value | 1:
            symbol = _definition(elf, index + step, name)
            if symbol is not None:
                return symbol
        if hashed & 1:
            break
    return None


def _by_hash(elf: ElfFile, name: bytes) -> Symbol | None:
    start = elf.offset_of(elf.dynamic[DT_HASH][0])
    bucket_count, chain_count = elf.unpack("II", start)
    if not bucket_count:
        return None
    index = elf.unpack("I", start + 8 + sysv_hash(name) % bucket_count * 4)[0]
    for _ in range(min(chain_count, _CHAIN_MAX)):
        if index == 0 or index >= chain_count:
            break
        symbol = _definition(elf, index, name)
        if symbol is not None:
            return symbol
        index = elf.unpack("I", start + 8 + (bucket_count + index) * 4)[0]
    return None


def _definition(elf: ElfFile, index: int, name: bytes) -> Symbol | None:
    """Dynamic symbol `index`, if it has this name and is defined here."""
    layout = _LAYOUTS[elf.bits]
    start = elf.offset_of(elf.dynamic[DT_SYMTAB][0])
    entry = elf.unpack(layout.entry, start + index * layout.entry_bytes)
    if entry[0] + len(name) + 1 > elf.dynamic[DT_STRSZ][0] or not _is_defined(elf, entry):
        return None
    strings = elf.offset_of(elf.dynamic[DT_STRTAB][0])
    if elf.read(strings + entry[0], len(name) + 1) != name + b"\0":
        return None
    return _symbol(elf, entry)


def _symbol(elf: ElfFile, entry: tuple[int, ...]) -> Symbol:
    return Symbol(entry[1], entry[2]) if elf.bits == 32 else Symbol(entry[4], entry[5])


def _is_global(elf: ElfFile, entry: tuple[int, ...]) -> bool:
    return (entry[3] if elf.bits == 32 else entry[1]) >> 4 != 0  # STB_LOCAL, in st_info


def _is_defined(elf: ElfFile, entry: tuple[int, ...]) -> bool:
    return (entry[5] if elf.bits == 32 else entry[3]) != 0  # SHN_UNDEF


def _section_of_kind(elf: ElfFile, kind: int) -> Section | None:
    for section in elf.sections:
        if section.kind == kind:
            return section
    return None


def _scan(
    elf: ElfFile, table: Section, names: Collection[str], wants_defined: bool = True
) -> SymbolScan:
    """Search a symbol table that has no index: first its strings, then the entries using them."""
    if table.link >= len(elf.sections):
        raise ElfError("its symbol table has no string table")
    strings = elf.sections[table.link]
    places = _name_places(elf, strings, [name.encode() for name in names])
    is_complete = (
        max(table.size_bytes, strings.size_bytes) <= TABLE_LIMIT_BYTES
        and len(places) < _NAME_OFFSETS_MAX
    )
    found: dict[str, Symbol] = {}
    layout = _LAYOUTS[elf.bits]
    step = _CHUNK_BYTES - _CHUNK_BYTES % layout.entry_bytes
    size = min(table.size_bytes, TABLE_LIMIT_BYTES) if places else 0
    for at in range(0, size, step):
        content = elf.read(table.offset + at, min(step, size - at))
        for number, (place,) in enumerate(elf.iter_unpack(layout.name_only, content)):
            if place in places:
                entry = struct.unpack_from(
                    elf.struct_order + layout.entry, content, number * layout.entry_bytes
                )
                name = places[place]
                if _is_defined(elf, entry) != wants_defined:
                    continue
                if name not in found or _is_global(elf, entry):
                    found[name] = _symbol(elf, entry)
    return SymbolScan(found, is_complete)


def _name_places(elf: ElfFile, strings: Section, names: list[bytes]) -> dict[int, str]:
    """Where in a string table each name ends a string (linkers share tails: "a" within "ba")."""
    places: dict[int, str] = {}
    overlap = max(map(len, names), default=0)
    size = min(strings.size_bytes, TABLE_LIMIT_BYTES)
    for at in range(0, size, _CHUNK_BYTES):
        content = elf.read(strings.offset + at, min(_CHUNK_BYTES + overlap, size - at))
        for name in names:
            place = content.find(name + b"\0")
            while place >= 0 and len(places) < _NAME_OFFSETS_MAX:
                places[at + place] = name.decode()
                place = content.find(name + b"\0", place + 1)
    return places
