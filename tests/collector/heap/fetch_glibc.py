"""Other releases of glibc, each unpacked into a folder, for programs that run under them.

    python tests/collector/heap/fetch_glibc.py      fetch them and say where they are

Debian's package manager gets them from the mirror that this machine is set up for, with lists and
caches of its own below build/glibc: nothing is installed.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "build" / "glibc"
#: 2.31, 2.41 and the newest: both ways of linking free chunks, three shapes of a thread's cache.
RELEASES = ("bullseye", "trixie", "sid")
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SECONDS = 180


def libraries() -> dict[str, Path]:
    """The folder of libc.so.6 by glibc's version; empty where they cannot be had."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
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


def _mirror() -> Optional[str]:
    """The address of the Debian mirror that this machine is set up for."""
    sites = _run("apt-get", "indextargets", "--format", "$(SITE)").split()
    return next((site for site in sites if site.rstrip("/").endswith("/debian")), None)


def _fetch() -> None:
    mirror = _mirror()
    if mirror is None:
        return
    apt = FOLDER / "apt"
    (apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (apt / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    option = f"[signed-by={_KEYS}] " if _KEYS.exists() else ""
    lines = [f"deb {option}{mirror} {release} main\n" for release in RELEASES]
    (apt / "sources.list").write_text("".join(lines))
    (apt / "status").touch()
    settings = {
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    options = [f"-o{name}={value}" for name, value in settings.items()]
    _run("apt-get", *options, "update")
    for release in RELEASES:
        folder = FOLDER / release
        folder.mkdir(exist_ok=True)
        _run("apt-get", *options, "download", f"libc6/{release}", folder=folder)
        for package in folder.glob("libc6_*.deb"):
            _run("dpkg-deb", "-x", str(package), str(folder / "root"))


def _run(*command: str, folder: Path = FOLDER) -> str:
    """What it wrote. Where it is not there or fails, what it would fetch is missing later."""
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


if __name__ == "__main__":
    for known, place in libraries().items():
        print(known, place)
