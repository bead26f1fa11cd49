"""Which Debian package owns a file: /var/lib/dpkg, read without dpkg."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_collector.errors import LimitReached, NotSupported
from leakcase_collector.system.door import System
from leakcase_collector.system.package_owner import PackageOwner

_LISTS = "/var/lib/dpkg/info"
_STATUS = "/var/lib/dpkg/status"
_LISTS_MAX = 20_000
_LIST_LIMIT_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 256 * 1024
_STATUS_LIMIT_BYTES = 64 * 1024 * 1024


def dpkg_owners(system: System, pid: int, paths: frozenset[str]) -> dict[str, PackageOwner]:
    """The owners of those of `paths` that dpkg lists. NotSupported where there is no dpkg.

    Each package's list of files is read once, until every path has its owner. Diversions
    (dpkg-divert(1)) are not followed: such a file is named by the package that put it there.
    """
    missing = {path.encode("utf-8", "surrogateescape") for path in paths}
    packages: dict[str, str] = {}
    with system.open_target_directory(pid, _LISTS) as lists:
        names = [name for name in lists.names() if name.endswith(".list")]
        for name in names[:_LISTS_MAX]:
            try:
                content = lists.read_bytes(name, _LIST_LIMIT_BYTES)
            except (NotSupported, LimitReached):
                continue  # removed meanwhile, or a package with 100,000 files
            for lines in _in_pieces(content):
                for path in missing.intersection(lines):
                    packages[path.decode("utf-8", "surrogateescape")] = name[: -len(".list")]
                    missing.discard(path)
            if not missing:
                break
    versions = _versions(system, pid, frozenset(packages.values()))
    return {
        path: PackageOwner("dpkg", package.partition(":")[0], *versions.get(package, (None, None)))
        for path, package in packages.items()
    }


def _in_pieces(content: bytes) -> Iterator[list[bytes]]:
    """The lines, some thousands at a time: a list of 4 MB as one of lines would take 10 MB more."""
    start = 0
    while start < len(content):
        end = content.find(b"\n", start + _PIECE_BYTES)
        end = len(content) if end < 0 else end
        yield content[start:end].split(b"\n")
        start = end + 1


def _versions(
    system: System, pid: int, packages: frozenset[str]
) -> dict[str, tuple[str | None, str | None]]:
    """Architecture and version by package, as the .list files name it: ``libc6:amd64``, ``bash``.

    From dpkg's status file: paragraphs of "Field: value" lines, Package first (deb-control(5)).
    """
    found: dict[str, tuple[str | None, str | None]] = {}
    if not packages:
        return found
    fields: dict[bytes, str] = {}
    with system.open_target_file(pid, _STATUS) as status:
        for line in status.lines(_STATUS_LIMIT_BYTES):
            if line:
                field, _, value = line.partition(b": ")
                if field in (b"Package", b"Architecture", b"Version"):
                    fields[field] = value.decode("utf-8", "replace")
                continue
            _note(fields, packages, found)
            fields = {}
    _note(fields, packages, found)
    return found


def _note(
    fields: dict[bytes, str],
    packages: frozenset[str],
    found: dict[str, tuple[str | None, str | None]],
) -> None:
    name, machine = fields.get(b"Package"), fields.get(b"Architecture")
    for key in (name, f"{name}:{machine}"):
        if key in packages and key is not None:
            found[key] = (machine, fields.get(b"Version"))
