"""The small SQLite reader against SQLite, and against damaged files."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakcase_collector.system.rpm_database import RpmHeader
from leakcase_collector.system.sqlite_file import DatabaseDamaged, SqliteFile
from tests.collector.system.elf_builder import BytesReader

KEYS = ("libc.so.6", "", "ü", "a" * 3000, "lib", "zzz")


def database(path: Path, page_bytes: int = 4096, rows: int = 3000) -> bytes:
    """A database shaped as rpm's, with names that repeat and blobs that overflow their page."""
    chance = random.Random(page_bytes)
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {page_bytes}")
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        connection.execute("CREATE TABLE Basenames (key TEXT NOT NULL, hnum INTEGER, idx INTEGER)")
        connection.execute("CREATE INDEX Basenames_key_idx ON Basenames (key ASC)")
        for number in range(0, rows, 10):
            size = chance.choice((0, 10, page_bytes - 40, page_bytes + 1, 9 * page_bytes))
            connection.execute(
                "INSERT INTO Packages VALUES (?, ?)", (number, chance.randbytes(size))
            )
        for number in range(rows):
            key = chance.choice(KEYS) if number % 3 else f"file{chance.randrange(rows)}"
            idx = chance.choice((0, 1, -1, 127, 128, 1 << 20, 1 << 40, -(1 << 62)))
            connection.execute("INSERT INTO Basenames VALUES (?, ?, ?)", (key, number, idx))
        connection.commit()
    return path.read_bytes()


@pytest.mark.parametrize("page_bytes", [512, 1024, 4096, 65536])
def test_rows_and_keys_are_those_that_sqlite_finds(tmp_path: Path, page_bytes: int) -> None:
    if not hasattr(random.Random, "randbytes"):
        pytest.skip("needs Random.randbytes")
    content = database(tmp_path / "db", page_bytes)
    file = SqliteFile(BytesReader(content))
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as connection:
        query = "SELECT rowid FROM Basenames WHERE key = ? ORDER BY rowid"
        for key in (*KEYS, "file7", "file2999", "absent"):
            rowids = [row[0] for row in connection.execute(query, (key,))]
            assert file.rowids("Basenames_key_idx", key.encode()) == rowids
        for rowid, key, number, idx in connection.execute("SELECT rowid, * FROM Basenames"):
            if rowid % 7 == 0:
                assert file.row("Basenames", rowid) == [key.encode(), number, idx]
        for number, blob in connection.execute("SELECT * FROM Packages"):
            row = file.row("Packages", number)
            assert row is not None
            assert row[1] == blob
    assert file.row("Packages", 5) is None
    assert file.row("Packages", 1 << 40) is None


def test_what_is_no_database_is_refused() -> None:
    for content in (b"", b"SQLite format 3\0", b"\0" * 200, b"SQLite format 3\0" + b"\0" * 200):
        with pytest.raises(DatabaseDamaged, match="package database"):
            SqliteFile(BytesReader(content))
    with pytest.raises(DatabaseDamaged):
        RpmHeader(b"\0\0\0\1")
    with pytest.raises(DatabaseDamaged):
        RpmHeader(b"\xff" * 64)


def ask_everything(content: bytes) -> None:
    with contextlib.suppress(DatabaseDamaged):
        file = SqliteFile(BytesReader(content))
        for key in (b"libc.so.6", b"file7", b""):
            with contextlib.suppress(DatabaseDamaged):
                file.rowids("Basenames_key_idx", key)
        for table in ("Packages", "Basenames"):
            for rowid in (1, 10, 200):
                with contextlib.suppress(DatabaseDamaged):
                    file.row(table, rowid)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return database(tmp_path_factory.mktemp("sqlite") / "db", 512, 300)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_databases_are_answered_or_refused(small: bytes, data: st.DataObject) -> None:
    content = bytearray(small)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(16, 4096) | st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from((0, 1, 2, 5, 10, 13, 0x7F, 0xFF)))
    ask_everything(
        bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    )


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_damaged_package_headers_are_answered_or_refused(content: bytes) -> None:
    with contextlib.suppress(DatabaseDamaged):
        header = RpmHeader(b"\0\0\0\2\0\0\0\x20" + content)
        header.owner()
        header.directory_of_file(3)


def test_a_tree_whose_pages_are_their_own_children_is_given_up_soon() -> None:
    page = bytearray(512)
    page[:16] = b"SQLite format 3\0"
    page[16:18] = (512).to_bytes(2, "big")
    page[100] = 5  # an interior page of the schema's table, whose every child is itself
    page[103:105] = (190).to_bytes(2, "big")
    page[108:112] = (1).to_bytes(4, "big")
    for place in range(112, 500, 2):
        page[place : place + 2] = (108).to_bytes(2, "big")
    started = time.process_time()
    with pytest.raises(DatabaseDamaged, match="takes too long"):
        SqliteFile(BytesReader(bytes(page)))
    assert time.process_time() - started < 5
