"""Which distribution package a file of the target came from, and in which version.

Read straight from the package database in the target's own root, so that it works in containers
and runs nothing: dpkg's text files, apk's text file, rpm's SQLite file.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.apk_database import apk_owners
from leakcase_collector.system.door import System
from leakcase_collector.system.dpkg_database import dpkg_owners
from leakcase_collector.system.package_owner import PackageOwner
from leakcase_collector.system.rpm_database import rpm_owners

_DATABASES = (dpkg_owners, apk_owners, rpm_owners)
_MERGED = re.compile(r"^/usr(?=/(?:bin|sbin|lib\w*)/)|^(?=/(?:bin|sbin|lib\w*)/)")
#: What a package may be called in any of the three; anything else comes from a forged database.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,127}\Z")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.:~^_-]{0,127}\Z")


class Packages:
    """Package look-ups; what was answered for a root directory is remembered."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._known: dict[tuple[int, int], dict[str, PackageOwner | None]] = {}

    def owners(self, pid: int, paths: Collection[str]) -> dict[str, PackageOwner | None]:
        """The owner of each of `paths` (as the target names them); None: no package lists it.

        NotSupported when the target's root has no package database that we can read.
        """
        root = self._system.status(f"/proc/{pid}/root/")
        known = self._known.setdefault((root.st_dev, root.st_ino), {})
        new = [path for path in paths if path not in known]
        if new:
            known.update(self._look_up(pid, new))
        return {path: known[path] for path in paths}

    def _look_up(self, pid: int, paths: list[str]) -> dict[str, PackageOwner | None]:
        # Since /usr was merged a file has two names, and a database may list either.
        asked: dict[str, list[str]] = {}
        for path in paths:
            for name in (path, _other_name(path)):
                asked.setdefault(name, []).append(path)
        owners: dict[str, PackageOwner | None] = dict.fromkeys(paths)
        readable = 0
        for look_up in _DATABASES:
            missing = frozenset(
                name for name, of in asked.items() if any(owners[path] is None for path in of)
            )
            try:
                found = look_up(self._system, pid, missing) if missing else {}
            except NotSupported:
                continue
            readable += 1
            for name, owner in found.items():
                if _NAME.match(owner.name) and _VERSION.match(owner.version or "0"):
                    owners.update(dict.fromkeys(asked[name], owner))
        if not readable:
            raise NotSupported(
                "cannot tell which packages the target's files came from: its root has no dpkg, "
                "apk or SQLite rpm database. Package names stay unseen."
            )
        return owners


def _other_name(path: str) -> str:
    """The same file's name on the other side of a merged /usr; the path itself if it has none."""
    if not _MERGED.match(path):
        return path
    return path[len("/usr") :] if path.startswith("/usr/") else f"/usr{path}"
