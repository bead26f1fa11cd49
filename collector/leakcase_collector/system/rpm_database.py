"""Which RPM package owns a file: rpm's SQLite database, as Fedora 33, RHEL 9 and later have it.

Not the Berkeley DB of RHEL 8 and before, nor SUSE's ndb: for those the answer is NotSupported.
"""

from __future__ import annotations

import struct
from functools import cached_property

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.door import System
from leakcase_collector.system.package_owner import PackageOwner
from leakcase_collector.system.sqlite_file import DatabaseDamaged, SqliteFile

DATABASES = ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite")
_HEADERS_PER_NAME_MAX = 16
_TAGS_MAX = 4096
_DIRECTORIES_MAX = 100_000

# Header tags (rpm's include/rpm/rpmtag.h).
_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH = 1000, 1001, 1002, 1003, 1022
_DIRINDEXES, _DIRNAMES = 1116, 1118


def rpm_owners(system: System, pid: int, paths: frozenset[str]) -> dict[str, PackageOwner]:
    """The owners of those of `paths` that RPM knows. NotSupported where there is no such database.

    One look-up by base name for each path, then one header for each package that has such a name.
    """
    for database in DATABASES:
        try:
            file = system.open_target_file(pid, database)
        except NotSupported:
            continue
        with file:
            return _owners(SqliteFile(file), paths)
    raise NotSupported("there is no RPM database in SQLite format. Package names stay unseen.")


def _owners(database: SqliteFile, paths: frozenset[str]) -> dict[str, PackageOwner]:
    owners: dict[str, PackageOwner] = {}
    headers: dict[int, RpmHeader] = {}
    for path in paths:
        directory, _, base = path.rpartition("/")
        for rowid in database.rowids("Basenames_key_idx", base.encode())[:_HEADERS_PER_NAME_MAX]:
            row = database.row("Basenames", rowid)
            if row is None or len(row) < 3:
                continue
            number, place = row[1], row[2]
            if not isinstance(number, int) or not isinstance(place, int):
                continue
            if number not in headers:
                headers.clear()  # one at a time: a header can have megabytes
                headers[number] = RpmHeader(_blob(database, number))
            if headers[number].directory_of_file(place) == directory.encode() + b"/":
                owners[path] = headers[number].owner()
                break
    return owners


def _blob(database: SqliteFile, number: int) -> bytes:
    row = database.row("Packages", number)
    if row is None or len(row) < 2 or not isinstance(row[1], bytes):
        raise DatabaseDamaged("an index in it names a package that is not there")
    return row[1]


class RpmHeader:
    """A package's header: counts, an index of tags, then their data, all big-endian.

    rpm's docs/manual/format_header.md; in the database without the magic of a file's header.
    """

    def __init__(self, blob: bytes) -> None:
        if len(blob) < 8:
            raise DatabaseDamaged("a package's header in it is cut off")
        count, data_bytes = struct.unpack_from(">II", blob)
        start = 8 + count * 16
        if count > _TAGS_MAX or start + data_bytes > len(blob):
            raise DatabaseDamaged("a package's header in it is cut off")
        self._data = blob[start : start + data_bytes]
        self._entries: dict[int, tuple[int, int]] = {
            tag: (offset, items)
            for tag, _, offset, items in struct.iter_unpack(">IIII", blob[8:start])
        }

    def _strings(self, tag: int, limit: int) -> list[bytes]:
        """The first strings of a tag; fewer or none where it has fewer."""
        offset, items = self._entries.get(tag, (0, 0))
        return self._data[offset:].split(b"\0", min(items, limit))[:-1]

    def _integer(self, tag: int, index: int = 0) -> int | None:
        if tag not in self._entries or not 0 <= index < self._entries[tag][1]:
            return None
        at = self._entries[tag][0] + 4 * index
        return int.from_bytes(self._data[at : at + 4], "big")

    @cached_property
    def _directories(self) -> list[bytes]:
        return self._strings(_DIRNAMES, _DIRECTORIES_MAX)

    def directory_of_file(self, place: int) -> bytes | None:
        """The directory, with its final slash, of file number `place`."""
        index = self._integer(_DIRINDEXES, place)
        if index is None or index >= len(self._directories):
            return None
        return self._directories[index]

    def owner(self) -> PackageOwner:
        name, version, release, machine = (
            b"".join(self._strings(tag, 1)).decode("utf-8", "replace")
            for tag in (_NAME, _VERSION, _RELEASE, _ARCH)
        )
        epoch = self._integer(_EPOCH)
        prefix = f"{epoch}:" if epoch else ""
        return PackageOwner("rpm", name, machine or None, f"{prefix}{version}-{release}")
