"""Reading single rows out of an SQLite file, through any reader and without the sqlite3 module.

sqlite3 opens databases by name and resolves links itself, so it cannot be kept inside a target's
root; and it is not in every Python. A look-up by key and by rowid needs little of the format
(https://www.sqlite.org/fileformat2.html, sections 1.3, 1.6, 2.1): read-only, UTF-8, no write-ahead
log, so what a running transaction holds there is not seen. Every count and depth is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Union

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.elf import Reader

Value = Union[int, bytes, None]

_DEPTH_MAX = 20
_PAYLOAD_LIMIT_BYTES = 6 * 1024 * 1024
#: What one database may cost in all: a forged tree can be endless without being deep.
_READ_LIMIT_BYTES = 256 * 1024 * 1024
_VISITS_MAX = 200_000
_SCHEMA_ROWS_MAX = 4096
_MATCHES_MAX = 65_536
_CACHE_LIMIT_BYTES = 512 * 1024
_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class DatabaseDamaged(NotSupported):
    """The file is no SQLite database, or not one that we are willing to read."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"cannot read the package database: {problem}. "
            "Package names stay unseen; the rest of the capture is not affected."
        )


class _Page(NamedTuple):
    kind: int
    content: bytes
    cells: tuple[int, ...]
    rightmost: int


class SqliteFile:
    """The tables and indexes of one SQLite file, by name, in `roots`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        header = reader.read_at(0, 100)
        if len(header) < 100 or header[:16] != b"SQLite format 3\0":
            raise DatabaseDamaged("it is not an SQLite 3 file")
        size = int.from_bytes(header[16:18], "big")
        self._page_bytes = 65_536 if size == 1 else size
        self._usable_bytes = self._page_bytes - header[20]
        if self._page_bytes < 512 or self._usable_bytes < 480:
            raise DatabaseDamaged("its page size is impossible")
        self._pages: dict[int, _Page] = {}
        self._visits_left = _VISITS_MAX
        self._bytes_left = _READ_LIMIT_BYTES
        self.roots: dict[str, int] = {}
        for _, row in self._rows(1, 0):
            if len(self.roots) >= _SCHEMA_ROWS_MAX:
                raise DatabaseDamaged("it has more tables than any package database")
            if len(row) >= 4 and isinstance(row[1], bytes) and isinstance(row[3], int):
                self.roots[row[1].decode("utf-8", "replace")] = row[3]

    def row(self, table: str, rowid: int) -> list[Value] | None:
        """The columns of the row with that rowid, or None."""
        number = self._root(table)
        for _ in range(_DEPTH_MAX):
            page = self._page(number)
            place = self._first_not_below(page, rowid)
            if page.kind == _LEAF_TABLE:
                if place == len(page.cells) or self._rowid(page, place) != rowid:
                    return None
                return self._table_row(page, place)
            number = self._child(page, place)
        raise DatabaseDamaged("a table in it is deeper than any table")

    def rowids(self, index: str, key: bytes) -> list[int]:
        """The rowids that an index on one text column has for `key` (binary collation)."""
        found: list[int] = []
        for rowid in self._matches(self._root(index), key, 0):
            found.append(rowid)
            if len(found) > _MATCHES_MAX:
                raise DatabaseDamaged("an index in it repeats without end")
        return found

    # Walking the trees

    def _root(self, name: str) -> int:
        if name not in self.roots:
            raise DatabaseDamaged(f"it has no table {name}")
        return self.roots[name]

    def _rows(self, number: int, depth: int) -> Iterator[tuple[int, list[Value]]]:
        page = self._page(number)
        for place in range(len(page.cells)):
            if page.kind == _LEAF_TABLE:
                yield self._rowid(page, place), self._table_row(page, place)
            elif depth < _DEPTH_MAX:
                yield from self._rows(self._child(page, place), depth + 1)
        if page.kind == _INTERIOR_TABLE and depth < _DEPTH_MAX:
            yield from self._rows(page.rightmost, depth + 1)

    def _matches(self, number: int, key: bytes, depth: int) -> Iterator[int]:
        page = self._page(number)
        if depth > _DEPTH_MAX or page.kind not in (_INTERIOR_INDEX, _LEAF_INDEX):
            raise DatabaseDamaged("an index in it is not a tree")
        place = self._first_not_below(page, key)
        while True:
            if page.kind == _INTERIOR_INDEX:
                yield from self._matches(self._child(page, place), key, depth + 1)
            if place == len(page.cells):
                return
            entry = self._index_entry(page, place)
            if entry[0] != key or not isinstance(entry[-1], int):
                return
            yield entry[-1]
            place += 1

    def _first_not_below(self, page: _Page, key: int | bytes) -> int:
        """The first cell whose key is not below `key`: by bisection, cells are in key order."""
        low, high = 0, len(page.cells)
        while low < high:
            middle = (low + high) // 2
            if isinstance(key, int):
                is_below = self._rowid(page, middle) < key
            else:
                value = self._index_entry(page, middle)[0]
                is_below = not isinstance(value, bytes) or value < key
            low, high = (middle + 1, high) if is_below else (low, middle)
        return low

    # Pages and cells

    def _page(self, number: int) -> _Page:
        self._visits_left -= 1
        if self._visits_left < 0 or self._bytes_left < 0:
            raise DatabaseDamaged("looking something up in it takes too long")
        if number not in self._pages:
            if len(self._pages) * self._page_bytes >= _CACHE_LIMIT_BYTES:
                self._pages.clear()
            self._pages[number] = self._parse_page(number)
        return self._pages[number]

    def _parse_page(self, number: int) -> _Page:
        content = self._raw_page(number)
        start = 100 if number == 1 else 0
        kind = content[start]
        if kind not in (_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE):
            raise DatabaseDamaged("a page in it is of no known kind")
        count = int.from_bytes(content[start + 3 : start + 5], "big")
        rightmost = int.from_bytes(content[start + 8 : start + 12], "big")
        pointers = start + (12 if kind in (_INTERIOR_INDEX, _INTERIOR_TABLE) else 8)
        table = content[pointers : pointers + 2 * count]
        cells = tuple(int.from_bytes(table[i : i + 2], "big") for i in range(0, len(table), 2))
        return _Page(kind, content, cells, rightmost)

    def _raw_page(self, number: int) -> bytes:
        offset = (number - 1) * self._page_bytes
        if number < 1 or offset + self._page_bytes > self._reader.size_bytes:
            raise DatabaseDamaged("a page number in it is beyond its end")
        self._bytes_left -= self._page_bytes
        content = self._reader.read_at(offset, self._page_bytes)
        if len(content) < self._page_bytes:
            raise DatabaseDamaged("it became shorter while it was read")
        return content

    def _child(self, page: _Page, place: int) -> int:
        if page.kind not in (_INTERIOR_INDEX, _INTERIOR_TABLE):
            raise DatabaseDamaged("a tree in it has leaves where it should branch")
        if place == len(page.cells):
            return page.rightmost
        at = page.cells[place]
        return int.from_bytes(page.content[at : at + 4], "big")

    def _rowid(self, page: _Page, place: int) -> int:
        at = page.cells[place]
        if page.kind == _INTERIOR_TABLE:
            return _varint(page.content, at + 4)[0]
        if page.kind != _LEAF_TABLE:
            raise DatabaseDamaged("a table in it is not a tree")
        return _varint(page.content, _varint(page.content, at)[1])[0]

    def _table_row(self, page: _Page, place: int) -> list[Value]:
        size, at = _varint(page.content, page.cells[place])
        _, at = _varint(page.content, at)
        return _record(self._payload(page, size, at, self._usable_bytes - 35))

    def _index_entry(self, page: _Page, place: int) -> list[Value]:
        at = page.cells[place] + (4 if page.kind == _INTERIOR_INDEX else 0)
        size, at = _varint(page.content, at)
        row = _record(self._payload(page, size, at, (self._usable_bytes - 12) * 64 // 255 - 23))
        return row or [None]

    def _payload(self, page: _Page, size: int, at: int, local_max: int) -> bytes:
        """A cell's content: what is on its page, then the chain of overflow pages."""
        if not 0 <= size <= _PAYLOAD_LIMIT_BYTES:
            raise DatabaseDamaged("a row in it is larger than any package's")
        if size <= local_max:
            return page.content[at : at + size]
        usable = self._usable_bytes
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= local_max else least
        parts = [page.content[at : at + local]]
        left = size - local
        number = int.from_bytes(page.content[at + local : at + local + 4], "big")
        while left > 0:
            content = self._raw_page(number)
            parts.append(content[4 : 4 + min(left, usable - 4)])
            left -= usable - 4
            number = int.from_bytes(content[:4], "big")
        return b"".join(parts)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer and the offset behind it (section 1.6)."""
    value = 0
    for count in range(9):
        if at + count >= len(content):
            raise DatabaseDamaged("a number in it is cut off")
        byte = content[at + count]
        if count == 8:
            value = value << 8 | byte
        else:
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                break
    return (value - (1 << 64) if value >> 63 else value), at + count + 1


def _record(payload: bytes) -> list[Value]:
    """The columns of a record (section 2.1); text as bytes, floats as None."""
    header_bytes, at = _varint(payload, 0)
    body = header_bytes
    values: list[Value] = []
    while at < min(header_bytes, len(payload)):
        kind, at = _varint(payload, at)
        if kind >= 12:
            size = (kind - 12) // 2
            values.append(payload[body : body + size])
        elif kind in _INTEGER_BYTES:
            size = _INTEGER_BYTES[kind]
            values.append(int.from_bytes(payload[body : body + size], "big", signed=True))
        else:
            size = 8 if kind == 7 else 0
            values.append({8: 0, 9: 1}.get(kind))
        body += size
    return values
