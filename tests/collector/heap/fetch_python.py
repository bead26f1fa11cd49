"""Releases of CPython that are newer than this machine's, each with the libraries it needs.

    python -m tests.collector.heap.fetch_python      fetch them and say where they are

They are as Debian and Ubuntu ship them, but for where they look for the loader and the libraries.
"""

from __future__ import annotations

from tests.collector.heap.archives import ROOT, Archive, debian, locked, run

FOLDER = ROOT / "build" / "python"
#: The release that has 3.14.4, whose collector is the incremental one of the first releases.
INCREMENTAL = "resolute"
RELEASES = ("sid", INCREMENTAL)
_PACKAGES = (
    "python3.14-minimal", "libpython3.14-minimal", "libpython3.14-stdlib",
    "libpython3.14-dev", "libc6", "libexpat1", "libffi8", "zlib1g",
)  # fmt: skip
_UBUNTU = "http://archive.ubuntu.com/ubuntu"


def pythons() -> list[str]:
    """Those that were fetched, the newest first."""
    found = [FOLDER / release / "root" / "usr" / "bin" / "python" for release in RELEASES]
    return [str(python) for python in found if python.exists()]


def _fetch() -> None:
    archive = debian(FOLDER / "apt", ("bullseye", "sid"))
    if archive is None:
        return
    tools = FOLDER / "tools"
    archive.unpack("bullseye", ["patchelf"], tools)  # old enough to run anywhere
    archive.unpack("sid", ["ubuntu-keyring"], tools)
    _fetch_one(archive, "sid")
    keys = tools / "root/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    if keys.exists():
        ubuntu = Archive(FOLDER / "apt-ubuntu", _UBUNTU, [INCREMENTAL], "main", keys)
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
