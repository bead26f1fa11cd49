"""Names of functions by address, from the symbols that a program's file has, in bounded memory.

Of each symbol only its address and its place in the table are kept, eight bytes, sorted; sizes and
names are read when they are asked for. Tables: .symtab, else .dynsym with .gnu_debugdata (gdb
manual, "MiniDebugInfo") or the separate debug file ("Separate Debug Files") of the same build-id.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections import OrderedDict
from typing import NamedTuple

from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.system.door import System
from leakcase_collector.system.elf import SHT_DYNSYM, SHT_SYMTAB, ElfError, ElfFile, Section

_SYMBOLS_MAX = 500_000
#: What all tables together may hold; the one longest unused goes first.
_TABLES_LIMIT_BYTES = 12 * 1024 * 1024
_DEBUGDATA_LIMIT_BYTES = 6 * 1024 * 1024
_PIECE_BYTES = 256 * 1024
_NAME_LIMIT_BYTES = 4096
#: How many symbols before an address are asked whether they reach it (they may overlap).
_LOOK_BACK = 8
#: A symbol of unknown size (assembly) is taken to end at the next one, or after this.
_UNSIZED_BYTES = 4096

# A packed entry: the address, which of the file's tables, the index in it.
_INDEX_BITS, _SOURCE_BITS = 22, 2
_ADDRESS_SHIFT = _INDEX_BITS + _SOURCE_BITS
_ADDRESS_LIMIT = 1 << (64 - _ADDRESS_SHIFT)

_STT_NOTYPE, _STT_FUNC, _STT_GNU_IFUNC = 0, 2, 10
_STB_LOCAL, _STB_GLOBAL = 0, 1
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1


class FunctionName(NamedTuple):
    """The symbol as the file has it, mangled where the language does so; bytes from its start."""

    name: str
    offset: int


class FunctionNames:
    """Names for the addresses of any number of files.

    With `system` and `pid` a separate debug file in the target's own root serves files that were
    stripped of their symbols.
    """

    def __init__(self, system: System | None = None, pid: int | None = None) -> None:
        self._system, self._pid = system, pid
        self._tables: OrderedDict[int, tuple[ElfFile, _Table]] = OrderedDict()

    def name_of(self, elf: ElfFile, address: int) -> FunctionName | None:
        """The function that holds a virtual address of the file, as its symbol table counts.

        None where no symbol covers it. The caller lowers return addresses by one.
        """
        key = id(elf)  # kept alive beside its table, so that the number stays its own
        if key not in self._tables:
            self._tables[key] = elf, _Table(self._sources(elf))
            self._shed()
        self._tables.move_to_end(key)
        return self._tables[key][1].name_of(address)

    def _shed(self) -> None:
        while len(self._tables) > 1:
            if sum(table.held_bytes for _, table in self._tables.values()) <= _TABLES_LIMIT_BYTES:
                break
            self._tables.popitem(last=False)

    def _sources(self, elf: ElfFile) -> list[_Source]:
        try:
            own = _source(elf, SHT_SYMTAB)
            if own is not None:
                return [own]
            more = self._debug_file(elf) or _debugdata(elf)
            return [found for found in (_source(elf, SHT_DYNSYM), more) if found is not None]
        except ElfError:
            return []

    def _debug_file(self, elf: ElfFile) -> _Source | None:
        if self._system is None or self._pid is None or not elf.build_id:
            return None
        name = f"/usr/lib/debug/.build-id/{elf.build_id[:2]}/{elf.build_id[2:]}.debug"
        try:
            other = ElfFile(self._system.open_target_file(self._pid, name))
            return _source(other, SHT_SYMTAB) if other.build_id == elf.build_id else None
        except (NotSupported, NotPermitted):
            return None


class _Source(NamedTuple):
    """One symbol table with its strings."""

    elf: ElfFile
    symbols: Section
    strings: Section
    held_bytes: int


def _source(elf: ElfFile, kind: int, held_bytes: int = 0) -> _Source | None:
    for section in elf.sections:
        if section.kind == kind and elf.bits == 64 and section.link < len(elf.sections):
            return _Source(elf, section, elf.sections[section.link], held_bytes)
    return None


class _InMemory:
    """A file that was unpacked."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]


def _debugdata(elf: ElfFile) -> _Source | None:
    section = elf.section(".gnu_debugdata")
    if section is None or section.size_bytes > _DEBUGDATA_LIMIT_BYTES:
        return None
    try:
        import lzma  # not every Python is built with it
    except ImportError:
        return None
    try:
        unpacker = lzma.LZMADecompressor(memlimit=64 * 1024 * 1024)
        content = unpacker.decompress(
            elf.read(section.offset, section.size_bytes), _DEBUGDATA_LIMIT_BYTES
        )
        whole = ElfFile(_InMemory(content)) if unpacker.eof else None
    except (lzma.LZMAError, EOFError, ElfError):
        return None
    return _source(whole, SHT_SYMTAB, len(content)) if whole is not None else None


class _Table:
    """The functions of one file, sorted by address."""

    def __init__(self, sources: list[_Source]) -> None:
        self._sources = sources[: 1 << _SOURCE_BITS]
        pieces: list[array[int]] = []
        for number, source in enumerate(self._sources):
            room = _SYMBOLS_MAX - sum(map(len, pieces))
            pieces += _pieces(source, number, room)
        self._packed = array("Q", heapq.merge(*pieces))
        # Where local functions or those beyond a limit are missing, a gap after a symbol may be
        # somebody else's.
        has_local = any(source.symbols.kind == SHT_SYMTAB for source in self._sources)
        self._is_complete = has_local and len(self._packed) < _SYMBOLS_MAX
        self.held_bytes = 8 * len(self._packed) + sum(source.held_bytes for source in sources)

    def name_of(self, address: int) -> FunctionName | None:
        if not 0 <= address < _ADDRESS_LIMIT:
            return None
        after = bisect_right(self._packed, (address + 1 << _ADDRESS_SHIFT) - 1)
        best: tuple[tuple[int, ...], FunctionName] | None = None
        for place in range(after - 1, max(after - 1 - _LOOK_BACK, -1), -1):
            start = self._packed[place] >> _ADDRESS_SHIFT
            if best is not None and address - best[1].offset != start:
                break  # others of the same address were compared; those before are outer ones
            try:
                found = self._covering(place, start, address, is_last=place == after - 1)
            except ElfError:
                continue
            if found is not None and (best is None or found[0] < best[0]):
                best = found
        return best[1] if best is not None else None

    def _covering(
        self, place: int, start: int, address: int, is_last: bool
    ) -> tuple[tuple[int, ...], FunctionName] | None:
        """How well the symbol names `address` (less is better), if it holds it at all."""
        packed = self._packed[place]
        source = self._sources[packed >> _INDEX_BITS & (1 << _SOURCE_BITS) - 1]
        index = packed & (1 << _INDEX_BITS) - 1
        name_at, information, _, _, _, size = source.elf.unpack(
            "IBBHQQ", source.symbols.offset + 24 * index
        )
        reach = size or (_UNSIZED_BYTES if is_last and self._is_complete else 0)
        if address >= start + reach:
            return None
        end = source.strings.offset + source.strings.size_bytes
        begin = source.strings.offset + name_at
        name = source.elf.string(begin, min(end, begin + _NAME_LIMIT_BYTES))
        name = name.partition("@")[0] or name  # "name@@VERSION", as debug files spell it
        underscores = len(name) - len(name.lstrip("_"))
        rank = (not size, information >> 4 == _STB_LOCAL, underscores, len(name))
        return rank, FunctionName(name, address - start)


def _pieces(source: _Source, number: int, room: int) -> list[array[int]]:
    """The table's functions packed and sorted, in pieces small enough to sort cheaply."""
    pieces = []
    elf, section = source.elf, source.symbols
    step = _PIECE_BYTES - _PIECE_BYTES % 24
    for at in range(0, min(section.size_bytes, 24 << _INDEX_BITS), step):
        if room <= 0:
            break
        try:
            content = elf.read(section.offset + at, min(step, section.size_bytes - at))
        except ElfError:
            break
        first = at // 24 | number << _INDEX_BITS
        found = [
            address << _ADDRESS_SHIFT | first + index
            for index, (_, information, _, where, address, _) in enumerate(
                elf.iter_unpack("IBBHQQ", content)
            )
            if where not in (_SHN_UNDEF, _SHN_ABS)
            and _is_function(information)
            and address < _ADDRESS_LIMIT
        ]
        pieces.append(array("Q", sorted(found)[:room]))
        room -= len(found)
    return pieces


def _is_function(information: int) -> bool:
    """By st_info; labels of assembly have no type, but those that others may use are global."""
    kind, binding = information & 15, information >> 4
    return kind in (_STT_FUNC, _STT_GNU_IFUNC) or (kind, binding) == (_STT_NOTYPE, _STB_GLOBAL)
