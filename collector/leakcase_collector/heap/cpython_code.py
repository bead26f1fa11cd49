"""What a code object of CPython is called, and which line an instruction of it stands for."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Optional

from .cpython_blocks import ResidentBlocks
from .cpython_layout import PythonLayout
from .cpython_types import TypeTable

#: Longer names and tables are cut: no compiler writes such, only damaged memory tells of them.
_NAME_MAX = 4096
_TABLE_MAX_BYTES = 1 << 20
_CODES_MAX = 20_000
_BYTES_DATA = 32
_CODINGS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}
#: Kinds of entries of the table of 3.11 and later (Objects/locations.md of CPython).
_NO_LOCATION, _LONG, _NO_COLUMNS, _ONE_LINE = 15, 14, 13, 10
_NO_LINE = -128


class PythonCode(NamedTuple):
    """A code object; `function` is the qualified name since 3.11, before that the bare one."""

    function: str
    file: str
    first_line: int
    line_table: bytes

    def line(self, instruction: int, minor: int) -> Optional[int]:
        """Of the instruction that begins at this offset (bytes); None where it is of no line."""
        if instruction < 0:
            return self.first_line  # It has not begun yet.
        entries = _lines_3_11 if minor >= 11 else _lines_3_10 if minor == 10 else _lines_3_9
        for end, line in entries(self.line_table, self.first_line):
            if instruction < end:
                return line
        return None


class CodeNames:
    """Code objects by address, each read once and known again as long as it is the same."""

    def __init__(self, layout: PythonLayout) -> None:
        self._layout = layout
        self._known: dict[int, tuple[bytes, PythonCode]] = {}

    def find(self, blocks: ResidentBlocks, types: TypeTable, address: int) -> Optional[PythonCode]:
        """The code object at `address` as it is now; None where there is none."""
        layout = self._layout.code
        head = blocks.read_now(address, layout.head_bytes)
        first_line, file, name, table = (
            int.from_bytes(head[at : at + size], "little")
            for at, size in ((layout.first_line, 4), (layout.file, 8), (layout.name, 8))
            + ((layout.line_table, 8),)
        )
        # Where an object was freed and another one came to its place these are others.
        mark = struct.pack("=4Q", first_line, file, name, table)
        known = self._known.get(address)
        if known is not None and known[0] == mark:
            return known[1]
        if first_line >> 31 or _type_name(types, head) != "code":
            return None
        found = (
            _text(blocks, types, name, self._layout),
            _text(blocks, types, file, self._layout),
            _bytes(blocks, types, table),
        )
        if found[0] is None or found[1] is None or found[2] is None:
            return None
        code = PythonCode(found[0], found[1], first_line, found[2])
        if len(self._known) >= _CODES_MAX:
            self._known.clear()
        self._known[address] = (mark, code)
        return code


def _type_name(types: TypeTable, head: bytes) -> Optional[str]:
    kind = types.find(int.from_bytes(head[8:16], "little"))
    return kind.name if kind is not None else None


def _text(
    blocks: ResidentBlocks, types: TypeTable, address: int, layout: PythonLayout
) -> Optional[str]:
    """A string object (PyASCIIObject, PyCompactUnicodeObject); half pairs of UTF-16 as "?"."""
    head = blocks.read_now(address, layout.ascii_data)
    if _type_name(types, head) != "str":
        return None
    length = int.from_bytes(head[16:24], "little")
    kind, is_compact, is_ascii = head[32] >> 2 & 7, head[32] >> 5 & 1, head[32] >> 6 & 1
    if not is_compact or kind not in _CODINGS or not length < 1 << 32:
        return None
    at = address + (layout.ascii_data if is_ascii else layout.unicode_data)
    content = blocks.read_now(at, min(length, _NAME_MAX) * kind)
    try:
        text = content.decode(_CODINGS[kind], "surrogatepass")
    except UnicodeDecodeError:
        return None
    return text.encode("utf-8", "replace").decode("utf-8")


def _bytes(blocks: ResidentBlocks, types: TypeTable, address: int) -> Optional[bytes]:
    head = blocks.read_now(address, _BYTES_DATA)
    length = int.from_bytes(head[16:24], "little")
    if _type_name(types, head) != "bytes" or length > _TABLE_MAX_BYTES:
        return None
    return blocks.read_now(address + _BYTES_DATA, length)


def _lines_3_9(table: bytes, line: int) -> Iterator[tuple[int, Optional[int]]]:
    """co_lnotab: pairs of how far the next one is in bytes and in lines (lnotab_notes.txt)."""
    end = 0
    for step, lines in zip(table[::2], table[1::2]):
        if step:
            end += step
            yield end, line
        line += lines - 256 if lines > 127 else lines
    yield 1 << 32, line


def _lines_3_10(table: bytes, line: int) -> Iterator[tuple[int, Optional[int]]]:
    """co_linetable of 3.10: pairs of length in bytes and lines gone on (PEP 626)."""
    end = 0
    for step, lines in zip(table[::2], table[1::2]):
        delta = lines - 256 if lines > 127 else lines
        end += step
        if delta == _NO_LINE:
            yield end, None
        else:
            line += delta
            yield end, line


def _lines_3_11(table: bytes, line: int) -> Iterator[tuple[int, Optional[int]]]:
    """co_linetable since 3.11: entries that begin with a byte whose highest bit is set."""
    end = at = 0
    while at < len(table):
        kind = table[at] >> 3 & 15
        end += 2 * ((table[at] & 7) + 1)
        at += 1
        if kind in (_LONG, _NO_COLUMNS):
            line += _signed(table, at)
        elif kind >= _ONE_LINE and kind != _NO_LOCATION:
            line += kind - _ONE_LINE
        yield end, None if kind == _NO_LOCATION else line
        while at < len(table) and not table[at] & 0x80:
            at += 1


def _signed(table: bytes, at: int) -> int:
    """Six bits a byte, the least first, as long as bit 6 is set; the lowest bit is the sign."""
    value = shift = 0
    for byte in table[at : at + 6]:
        value |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            break
    return -(value >> 1) if value & 1 else value >> 1
