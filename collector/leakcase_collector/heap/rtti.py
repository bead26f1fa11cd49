"""C++ classes by their tables of virtual functions, in stripped programs as well.

An object of a class with virtual functions begins with the address of a table. In front of the
table's first function stand the distance to the whole object, 0 for a table of the class itself,
and the address of the class's type information: which begins with the address of another table, of
one of the three kinds of class type information, and goes on with the address of the class's
mangled name (Itanium C++ ABI, 2.5.2 and 2.9.5). The runtime's three kinds are told by *their*
names, so that nothing depends on which library has them, or on symbols.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Sequence
from typing import Callable, Optional

from leakcase_collector.system.memory import Memory, MemoryMapping

from .pages import ResidentPages

#: Of abi::__class_type_info, which has no bases, one base, or several.
_KINDS = frozenset(
    (
        b"N10__cxxabiv117__class_type_infoE",
        b"N10__cxxabiv120__si_class_type_infoE",
        b"N10__cxxabiv121__vmi_class_type_infoE",
    )
)
#: A class is a source name, a nested or local one, or one of std; a star in front says that the
#: name's address is its identity (type_info::operator== of libstdc++).
_CLASS_NAME = re.compile(rb"\*?((?:[NZ]|S[tabsiod]|[0-9])[A-Za-z0-9_.$]*)\0")
_NAME_LIMIT_BYTES = 4096
_WORD_BYTES = 8
#: Files that are mapped as data may be huge; no program's or library's mapping is.
_MODULE_LIMIT_BYTES = 1 << 30

#: (mapping, offset in its file, size) -> bytes of the file itself; None where it cannot be had.
ReadFile = Callable[[MemoryMapping, int, int], Optional[bytes]]


def module_ranges(mappings: Sequence[MemoryMapping]) -> list[tuple[int, int]]:
    """Where programs and libraries are, with their .bss (a non-PIE program copies tables there);
    ascending, joined where they touch."""
    programs = {(m.device, m.inode) for m in mappings if m.executable and m.path.startswith(b"/")}
    ranges: list[tuple[int, int]] = []
    is_after = False
    for mapping in mappings:
        is_file = mapping.path.startswith(b"/") and (mapping.device, mapping.inode) in programs
        is_bss = is_after and not mapping.path and bool(ranges) and ranges[-1][1] == mapping.start
        is_after = is_file
        size = mapping.end - mapping.start
        if not (is_file or is_bss) or not mapping.readable or size > _MODULE_LIMIT_BYTES:
            continue
        if ranges and ranges[-1][1] == mapping.start:
            ranges[-1] = (ranges[-1][0], mapping.end)
        else:
            ranges.append((mapping.start, mapping.end))
    return ranges


class ClassNames:
    """The classes of tables of virtual functions, by address; each is looked at once."""

    def __init__(
        self, memory: Memory, mappings: Sequence[MemoryMapping], read_file: ReadFile
    ) -> None:
        self.ranges = module_ranges(mappings)
        self._mappings = [m for m in mappings if m.path.startswith(b"/") and m.readable]
        self._mapping_starts = [m.start for m in self._mappings]
        self._starts = [start for start, _ in self.ranges]
        self._pages = ResidentPages(memory)
        self._read_file = read_file
        self._names: dict[int, Optional[str]] = {}
        self._kinds: dict[int, bool] = {}

    def name_of(self, table: int) -> Optional[str]:
        """The mangled name of the class whose objects begin with `table`; None: it is none."""
        if table not in self._names:
            self._names[table] = self._look_up(table)
        return self._names[table]

    def _look_up(self, table: int) -> Optional[str]:
        front = self._words(table - 2 * _WORD_BYTES, 2)
        if front is None or front[0]:
            return None
        information = self._words(front[1], 2)
        if information is None or not self._is_class_information(information[0]):
            return None
        name = self._string(information[1])
        return None if name is None else name.decode("ascii")

    def _is_class_information(self, table: int) -> bool:
        if table not in self._kinds:
            front = self._words(table - _WORD_BYTES, 1)
            information = None if front is None else self._words(front[0], 2)
            name = None if information is None else self._string(information[1])
            self._kinds[table] = name in _KINDS
        return self._kinds[table]

    def _words(self, address: int, count: int) -> Optional[tuple[int, ...]]:
        if address % _WORD_BYTES or not self._is_in_module(address):
            return None
        content = self._read(address, count * _WORD_BYTES)
        return None if content is None else struct.unpack(f"={count}Q", content)

    def _string(self, address: int) -> Optional[bytes]:
        """The class name at `address`, its star left out."""
        content = b""
        while self._is_in_module(address) and len(content) < _NAME_LIMIT_BYTES:
            more = self._read(address, 128 - address % 128)
            if more is None:
                return None
            content += more
            address += len(more)
            if b"\0" in more:
                found = _CLASS_NAME.match(content)
                return found.group(1) if found else None
        return None

    def _is_in_module(self, address: int) -> bool:
        at = bisect_right(self._starts, address) - 1
        return at >= 0 and address < self.ranges[at][1]

    def _read(self, address: int, size: int) -> Optional[bytes]:
        """From memory where it is in RAM, else from the file: no page is brought in for it."""
        content = self._pages.read(address, size)
        if content is not None:
            return content
        at = bisect_right(self._mapping_starts, address) - 1
        if at < 0 or address + size > self._mappings[at].end:
            return None
        mapping = self._mappings[at]
        content = self._read_file(mapping, mapping.offset + address - mapping.start, size)
        return content if content is not None and len(content) == size else None
