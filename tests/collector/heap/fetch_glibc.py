"""Other releases of glibc, each unpacked into a folder, for programs that run under them.

python -m tests.collector.heap.fetch_glibc      fetch them and say where they are
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

from tests.collector.heap.archives import ROOT, debian, locked

FOLDER = ROOT / "build" / "glibc"
#: 2.31, 2.41 and the newest: both ways of linking free chunks, three shapes of a thread's cache.
RELEASES = ("bullseye", "trixie", "sid")


def libraries() -> dict[str, Path]:
    """The folder of libc.so.6 by glibc's version; empty where they cannot be had."""
    with locked(FOLDER):
        if not all(any((FOLDER / release).glob("*.deb")) for release in RELEASES):
            _fetch()
    found = {}
    for library in sorted(FOLDER.glob("*/root/**/libc.so.6")):
        version = _version(library)
        if version:
            found[version] = library.parent
    return found


def _version(library: Path) -> Optional[str]:
    found = re.search(rb"GNU C Library [^\n]* release version (\d+\.\d+)", library.read_bytes())
    return found.group(1).decode() if found else None


def _fetch() -> None:
    archive = debian(FOLDER / "apt", RELEASES)
    for release in RELEASES if archive is not None else ():
        archive.unpack(release, ["libc6"], FOLDER / release)


if __name__ == "__main__":
    for known, place in libraries().items():
        print(known, place)
