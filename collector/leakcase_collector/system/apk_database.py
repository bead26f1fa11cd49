"""Which Alpine package owns a file: apk's list of what is installed."""

from __future__ import annotations

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.door import System
from leakcase_collector.system.package_owner import PackageOwner

#: Where Alpine had it until 3.22, and where it is since /usr was merged.
DATABASES = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
_LIMIT_BYTES = 64 * 1024 * 1024


def apk_owners(system: System, pid: int, paths: frozenset[str]) -> dict[str, PackageOwner]:
    """The owners of those of `paths` that apk lists. NotSupported where there is no apk.

    One-letter fields, a blank line between packages (apk-package(5)): P name, V version,
    A architecture, F a directory without its leading slash, R a file in the last F.
    """
    for database in DATABASES:
        try:
            file = system.open_target_file(pid, database)
        except NotSupported:
            continue
        owners: dict[str, PackageOwner] = {}
        fields: dict[bytes, str] = {}
        with file:
            for line in file.lines(_LIMIT_BYTES):
                field = line[:2]
                if not line:
                    fields = {}
                elif field in (b"P:", b"V:", b"A:", b"F:"):
                    fields[field] = line[2:].decode("utf-8", "surrogateescape")
                elif field == b"R:":
                    name = line[2:].decode("utf-8", "surrogateescape")
                    path = f"/{fields.get(b'F:', '')}/{name}".replace("//", "/")
                    if path in paths:
                        owners[path] = PackageOwner(
                            "apk", fields.get(b"P:", ""), fields.get(b"A:"), fields.get(b"V:")
                        )
        return owners
    raise NotSupported("there is no apk database. Package names stay unseen.")
