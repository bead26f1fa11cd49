"""Packages of other releases of Debian and Ubuntu, unpacked into folders: nothing is installed.

The package manager gets them, with lists and caches of its own, and checks them by the archive's
key.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[3]
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SECONDS = 180


class Archive:
    """What some releases at one mirror have; `folder` is for the package manager's own files."""

    def __init__(
        self, folder: Path, mirror: str, releases: Sequence[str], parts: str, keys: Optional[Path]
    ) -> None:
        self._folder = folder
        (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        option = f"[signed-by={keys}] " if keys is not None else ""
        lines = [f"deb {option}{mirror} {release} {parts}\n" for release in releases]
        (folder / "sources.list").write_text("".join(lines))
        (folder / "status").touch()
        self._run("update")

    def unpack(self, release: str, packages: Sequence[str], folder: Path) -> None:
        """Fetch packages into `folder`, and what is in them into `root` within it."""
        folder.mkdir(exist_ok=True)
        self._run("download", *(f"{name}/{release}" for name in packages), folder=folder)
        for package in folder.glob("*.deb"):
            run("dpkg-deb", "-x", str(package), str(folder / "root"))

    def _run(self, *command: str, folder: Optional[Path] = None) -> None:
        settings = {
            "Dir::Etc::sourcelist": self._folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": self._folder / "lists",
            "Dir::State::status": self._folder / "status",
            "Dir::Cache": self._folder / "cache",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        options = [f"-o{name}={value}" for name, value in settings.items()]
        run("apt-get", *options, *command, folder=folder or self._folder)


def debian(folder: Path, releases: Sequence[str]) -> Optional[Archive]:
    """At the mirror that this machine is set up for; None where that is not one of Debian's."""
    sites = run("apt-get", "indextargets", "--format", "$(SITE)").split()
    mirror = next((site for site in sites if site.rstrip("/").endswith("/debian")), None)
    if mirror is None:
        return None
    return Archive(folder, mirror, releases, "main", _KEYS if _KEYS.exists() else None)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time fetches into this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str, folder: Path = ROOT) -> str:
    """What it wrote. Where it is not there or fails, what it would fetch is missing later."""
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
