"""What a code object of CPython is called, and which line an instruction of it stands for."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Optional

from .cpython_blocks import ResidentBlocks
from .cpython_layout import PythonLayout
from .cpython_runtime import PythonImage

#: Longer names and tables are cut: no compiler writes such, only damaged memory tells of them.
_NAME_MAX = 4096
_TABLE_MAX_BYTES = 1 << 20
#: What all that is remembered may take together: some thousand functions as people write them.
_REMEMBERED_MAX_BYTES = 6 << 20
_EACH_BYTES = 600
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

    def __init__(self, image: PythonImage, layout: PythonLayout) -> None:
        self._image = image
        self._layout = layout
        self._known: dict[int, tuple[bytes, PythonCode]] = {}
        self._held_bytes = 0

    def find(self, blocks: ResidentBlocks, address: int) -> Optional[PythonCode]:
        """The code object at `address` as it is now; None where there is none."""
        layout = self._layout.code
        head = blocks.read_now(address, layout.head_bytes)
        first_line = int.from_bytes(head[layout.first_line : layout.first_line + 4], "little")
        name, file, table = (
            _word_at(head, offset) for offset in (layout.name, layout.file, layout.line_table)
        )
        # Where an object was freed and another one came to its place these are others.
        mark = struct.pack("=4Q", first_line, name, file, table)
        known = self._known.get(address)
        if known is not None and known[0] == mark:
            return known[1]
        if first_line >> 31 or not self._image.code_type == _type_of(head) != 0:
            return None
        texts = self._text(blocks, name), self._text(blocks, file)
        lines = self._bytes(blocks, table)
        if texts[0] is None or texts[1] is None or lines is None:
            return None
        code = PythonCode(texts[0], texts[1], first_line, lines)
        self._held_bytes += _EACH_BYTES + len(lines) + len(code.function) + len(code.file)
        if self._held_bytes > _REMEMBERED_MAX_BYTES:
            self._known.clear()
            self._held_bytes = 0
        self._known[address] = (mark, code)
        return code

    def _text(self, blocks: ResidentBlocks, address: int) -> Optional[str]:
        """A string (PyASCIIObject, PyCompactUnicodeObject); half pairs of UTF-16 become "?"."""
        head = blocks.read_now(address, self._layout.ascii_data)
        if _type_of(head) != self._image.text_type:
            return None
        length, state = _word_at(head, 16), head[32]
        kind, is_compact, is_ascii = state >> 2 & 7, state >> 5 & 1, state >> 6 & 1
        if not is_compact or kind not in _CODINGS or length >> 32:
            return None
        at = address + (self._layout.ascii_data if is_ascii else self._layout.unicode_data)
        content = blocks.read_now(at, min(length, _NAME_MAX) * kind)
        try:
            text = content.decode(_CODINGS[kind], "surrogatepass")
        except UnicodeDecodeError:
            return None
        return text.encode("utf-8", "replace").decode("utf-8")

    def _bytes(self, blocks: ResidentBlocks, address: int) -> Optional[bytes]:
        head = blocks.read_now(address, _BYTES_DATA)
        length = _word_at(head, 16)
        if _type_of(head) != self._image.bytes_type or length > _TABLE_MAX_BYTES:
            return None
        return blocks.read_now(address + _BYTES_DATA, length)


def _type_of(head: bytes) -> int:
    return _word_at(head, 8)


def _word_at(content: bytes, offset: int) -> int:
    return int.from_bytes(content[offset : offset + 8], "little")


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
