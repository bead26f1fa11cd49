"""Which call frame program of an ELF file covers an address: .eh_frame and its index.

Linux Standard Base Core 5.0, 10.6.1 (.eh_frame) and 10.6.2 (.eh_frame_hdr). Read with a few small
reads at each look-up; nothing of the tables is kept, for a browser's have 30 MB.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, Optional

from leakcase_collector.system.elf import ElfError, ElfFile, Segment
from leakcase_collector.unwind.encoding import OMITTED, Cursor, damaged
from leakcase_collector.unwind.rows import Common, Program, Row

PT_GNU_EH_FRAME = 0x6474E550
#: Two signed 4-byte numbers each, both from the index's own address: what all linkers write.
_SORTED_ENCODING = 0x3B
_ENTRY_BYTES = 8
_READ_ENTRIES = 256
#: A function's program; libc's longest has 700 bytes.
_ENTRY_LIMIT_BYTES = 64 * 1024
_FIRST_READ_BYTES = 256
#: Length, identifier, and a function's start as compilers write it: 4 bytes from where it stands.
_HEAD = struct.Struct("<IIi")
_HEAD_BYTES = _HEAD.size
_USUAL_ENCODING = 0x1B
_IS_LONG = 0xFFFFFFFF
_WORD = (1 << 64) - 1
#: Without an index all functions are listed, 24 bytes each.
_SCAN_LIMIT_BYTES = 32 << 20
_SCAN_WINDOW_BYTES = 256 * 1024
_SCAN_ENTRIES_MAX = 200_000
_COMMONS_MAX = 1024


class _Entry(NamedTuple):
    """What lies at an address of .eh_frame: `cursor` stands behind its head."""

    identifier: int
    identifier_at: int
    cursor: Cursor


class _Function(NamedTuple):
    """An FDE: [start, end), the part that it shares with others, and its own program."""

    start: int
    end: int
    common: Common
    program: Cursor


class CallFrames:
    """The unwind tables of one ELF file; addresses are the file's own. ElfError where damaged."""

    def __init__(self, elf: ElfFile) -> None:
        self._elf = elf
        self._commons: dict[int, Common] = {}
        self._listed: Optional[tuple[array[int], array[int]]] = None
        self._index_address = 0
        self._table_at = self._count = 0
        found = [segment for segment in elf.segments if segment.kind == PT_GNU_EH_FRAME]
        self._frames = _section_bounds(elf) or (0, 0)
        if found:
            self._read_index(found[0])

    def _read_index(self, segment: Segment) -> None:
        head = self._elf.read(segment.offset, min(segment.file_bytes, 64))
        cursor = Cursor(head, segment.address)
        version, frames_encoding, count_encoding, table_encoding = cursor.take(4)
        if version != 1:
            raise damaged()
        frames_address = cursor.pointer(frames_encoding, segment.address)
        if not self._frames[1]:
            self._frames = (frames_address, _SCAN_LIMIT_BYTES)
        if count_encoding == OMITTED or table_encoding != _SORTED_ENCODING:
            return
        count = cursor.pointer(count_encoding, segment.address)
        self._count = min(count, (segment.file_bytes - cursor.at) // _ENTRY_BYTES)
        self._table_at = segment.offset + cursor.at
        self._index_address = segment.address

    def row_at(self, address: int) -> Optional[Row]:
        """The row for `address`; None where no function's table covers it."""
        at = self._indexed(address) if self._count else self._scanned(address)
        if at is None:
            return None
        function = self._function(at)
        if function is None or not function.start <= address < function.end:
            return None
        return Program(function.common, function.start).row_at(address, function.program)

    # --- where its entry is -----------------------------------------------------------------------

    def _indexed(self, address: int) -> Optional[int]:
        """The address of the last entry that starts at or before `address`."""
        wanted = address - self._index_address
        low, high = 0, self._count
        while high - low > _READ_ENTRIES:
            middle = (low + high) // 2
            if self._entries(middle, middle + 1)[0][0] <= wanted:
                low = middle
            else:
                high = middle
        entries = self._entries(low, high)
        index = bisect_right(entries, (wanted, 1 << 32)) - 1
        return None if index < 0 else entries[index][1] + self._index_address

    def _entries(self, low: int, high: int) -> list[tuple[int, int]]:
        size = (high - low) * _ENTRY_BYTES
        content = self._elf.read(self._table_at + low * _ENTRY_BYTES, size)
        return list(struct.iter_unpack("<ii", content))

    def _scanned(self, address: int) -> Optional[int]:
        """As `_indexed` for a file without a usable index, from a list that is made once."""
        if self._listed is None:
            self._listed = self._scan()
        starts, places = self._listed
        index = bisect_right(starts, address) - 1
        return None if index < 0 else places[index]

    def _scan(self) -> tuple[array[int], array[int]]:
        """All that is listed before the end, or before the first entry that is damaged."""
        found: list[tuple[int, int]] = []
        with suppress(ElfError):
            for function in self._functions():
                found.append(function)  # one by one: those before the damage stay
        found.sort()
        starts, places = (array("Q", (f[part] & _WORD for f in found)) for part in (0, 1))
        return starts, places

    def _functions(self) -> Iterator[tuple[int, int]]:
        """Where each function starts, and its entry."""
        at, size = self._frames
        end = at + min(size, _SCAN_LIMIT_BYTES)
        window, window_at = b"", at
        for _ in range(_SCAN_ENTRIES_MAX):
            if len(window) - (at - window_at) < _HEAD_BYTES:
                room = min(self._room(at), _SCAN_WINDOW_BYTES)
                window, window_at = self._elf.read(self._elf.offset_of(at), room), at
            if at >= end or len(window) - (at - window_at) < _HEAD_BYTES:
                return
            entry_bytes, identifier, relative = _HEAD.unpack_from(window, at - window_at)
            if not entry_bytes or entry_bytes == _IS_LONG:
                return
            if identifier:
                common = self._common(at + 4 - identifier)
                if common.pointer_encoding == _USUAL_ENCODING:
                    yield at + 8 + relative, at
                else:
                    function = self._function(at)
                    yield (at if function is None else function.start), at
            at += 4 + entry_bytes

    # --- what it says -----------------------------------------------------------------------------

    def _entry(self, address: int) -> Optional[_Entry]:
        """The entry at `address`; None is the end of the list."""
        offset = self._elf.offset_of(address)
        room = self._room(address)
        content = self._elf.read(offset, min(room, _FIRST_READ_BYTES))
        cursor = Cursor(content, address)
        size = cursor.fixed("<I")
        is_long = size == _IS_LONG
        if is_long:
            size = cursor.fixed("<Q")
        if not size:
            return None
        end = cursor.at + size
        if size > _ENTRY_LIMIT_BYTES or end > room:
            raise damaged()
        if end > len(content):
            content = self._elf.read(offset, end)
        cursor = Cursor(content, address, cursor.at, end)
        at = address + cursor.at
        return _Entry(cursor.fixed("<Q" if is_long else "<I"), at, cursor)

    def _room(self, address: int) -> int:
        """How many bytes there are from `address` to the end of its segment."""
        for segment in self._elf.segments:
            if segment.kind == 1 and 0 <= address - segment.address < segment.file_bytes:
                return segment.file_bytes - (address - segment.address)
        raise damaged()

    def _function(self, address: int) -> Optional[_Function]:
        entry = self._entry(address)
        return self._function_of(entry) if entry is not None and entry.identifier else None

    def _function_of(self, entry: _Entry) -> _Function:
        # The identifier is how far back the CIE lies, counted from itself.
        common = self._common(entry.identifier_at - entry.identifier)
        cursor = entry.cursor
        start = cursor.pointer(common.pointer_encoding, self._index_address)
        size = cursor.pointer(common.pointer_encoding & 0x0F)
        if common.has_augmentation_data:
            cursor.take(cursor.uleb128())
        return _Function(start, start + size, common, cursor)

    def _common(self, address: int) -> Common:
        known = self._commons.get(address)
        if known is None:
            entry = self._entry(address)
            if entry is None or entry.identifier:
                raise damaged()
            if len(self._commons) >= _COMMONS_MAX:
                self._commons.clear()
            known = self._commons[address] = _parse_common(entry.cursor)
        return known


def _section_bounds(elf: ElfFile) -> Optional[tuple[int, int]]:
    """Address and size of .eh_frame, where the file has section headers."""
    try:
        section = elf.section(".eh_frame")
    except ElfError:
        return None
    return None if section is None else (section.address, section.size_bytes)


def _parse_common(cursor: Cursor) -> Common:
    version = cursor.byte()
    if version not in (1, 3, 4):
        raise damaged()
    augmentation = cursor.string()
    if version == 4 and cursor.take(2) != b"\x08\x00":  # sizes of an address, of a segment
        raise damaged()
    code_factor, data_factor = cursor.uleb128(), cursor.sleb128()
    return_register = cursor.byte() if version == 1 else cursor.uleb128()
    encoding, is_signal_frame = 0, False
    if augmentation[:1] == b"z":
        end = cursor.uleb128() + cursor.at
        for letter in augmentation[1:]:
            if letter == ord("R"):
                encoding = cursor.byte()
            elif letter == ord("P"):
                cursor.skip_pointer(cursor.byte())
            elif letter == ord("L"):
                cursor.byte()
            elif letter == ord("S"):
                is_signal_frame = True
            # Others, such as aarch64's B and G, have no data.
        if not cursor.at <= end <= cursor.end:
            raise damaged()
        cursor.at = end
    elif augmentation:
        raise damaged()
    program = cursor.take(cursor.end - cursor.at)
    return Common(
        code_factor, data_factor, return_register, encoding,
        augmentation[:1] == b"z", is_signal_frame, program,
    )  # fmt: skip
