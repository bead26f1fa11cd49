"""Releases of CPython that are newer than this machine's, each with the libraries it needs.

    python -m tests.collector.heap.fetch_python      fetch them and say where they are

They are as Debian ships them, but for where they look for the loader and the libraries. Where
LEAKCASE_UBUNTU_MIRROR names a mirror of Ubuntu, its 3.14.4 is fetched as well: the collector of
the first releases of 3.14 is an incremental one.
"""

from __future__ import annotations

import os

from tests.collector.heap.archives import ROOT, Archive, debian, locked, run

FOLDER = ROOT / "build" / "python"
DEBIAN, INCREMENTAL = "forky", "resolute"
_MIRROR = os.environ.get("LEAKCASE_UBUNTU_MIRROR")
RELEASES = (DEBIAN, INCREMENTAL) if _MIRROR else (DEBIAN,)
_PACKAGES = (
    "python3.14-minimal", "libpython3.14-minimal", "libpython3.14-stdlib",
    "libpython3.14-dev", "libc6", "libexpat1", "libffi8", "zlib1g",
)  # fmt: skip


def pythons() -> list[str]:
    """Those that were fetched, the newest first."""
    found = [FOLDER / release / "root" / "usr" / "bin" / "python" for release in RELEASES]
    return [str(python) for python in found if python.exists()]


def _fetch() -> None:
    archive = debian(FOLDER / "apt", ("bullseye", DEBIAN))
    if archive is None:
        return
    tools = FOLDER / "tools"
    archive.unpack("bullseye", ["patchelf"], tools)  # old enough to run anywhere
    _fetch_one(archive, DEBIAN)
    if _MIRROR:
        archive.unpack(DEBIAN, ["ubuntu-keyring"], tools)
        keys = tools / "root/usr/share/keyrings/ubuntu-archive-keyring.gpg"
        ubuntu = Archive(FOLDER / "apt-ubuntu", _MIRROR, [INCREMENTAL], "main", keys)
        _fetch_one(ubuntu, INCREMENTAL)


def _fetch_one(archive: Archive, release: str) -> None:
    archive.unpack(release, _PACKAGES, FOLDER / release)
    programs = FOLDER / release / "root" / "usr" / "bin"
    for libc in (FOLDER / release / "root" / "usr" / "lib").glob("*/libc.so.6"):
        loader = next(libc.parent.glob("ld-linux*.so.*"))
        run(
            str(FOLDER / "tools/root/usr/bin/patchelf"), "--set-interpreter", str(loader),
            "--force-rpath", "--set-rpath", str(libc.parent),
            "--output", str(programs / "python"), str(programs / "python3.14"),
        )  # fmt: skip


if __name__ == "__main__":
    with locked(FOLDER):
        if len(pythons()) < len(RELEASES):
            _fetch()
    print(*pythons(), sep="\n")
