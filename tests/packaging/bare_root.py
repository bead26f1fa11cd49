"""A minimal system in a folder, without Python: where only the ELF file can run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.packaging import built

ROOT_FOLDER = built.CACHE / "bare-root"
_TIMEOUT_SECONDS = 400
_KEYRINGS = Path("/usr/share/keyrings")


class NoBareRoot(Exception):
    """Why there can be none here: one sentence."""


def bare_root() -> Path:
    """The folder, made by debootstrap(8) once and kept. Raises NoBareRoot.

    Mirror and release are those that this machine's own apt uses.
    """
    for program in ("debootstrap", "apt-get", "unshare", "chroot"):
        if shutil.which(program) is None:
            raise NoBareRoot(f"there is no {program} here")
    if os.geteuid() != 0:
        raise NoBareRoot("debootstrap and chroot need root")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        raise NoBareRoot("root may not make a mount namespace here")
    with built.only_one_at_a_time(ROOT_FOLDER.name):
        if not (ROOT_FOLDER / "etc" / "os-release").exists():
            made = ROOT_FOLDER.with_suffix(".new")
            shutil.rmtree(made, ignore_errors=True)
            _debootstrap(made)
            made.rename(ROOT_FOLDER)
    return ROOT_FOLDER


def _debootstrap(folder: Path) -> None:
    mirror, release = _mirror()
    command = ["debootstrap", "--variant=minbase"]
    if not list(_KEYRINGS.glob("*archive-keyring.*")):
        command.append("--no-check-gpg")
    done = subprocess.run(
        [*command, release, str(folder), mirror],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=_TIMEOUT_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def _mirror() -> tuple[str, str]:
    """Address and release of the first archive in apt's own configuration (apt-get(8))."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)",
         "Created-By: Packages"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    for line in listed.stdout.splitlines():
        address, release, component = line.split()
        if component == "main" and "-" not in release:
            return address, release
    raise NoBareRoot("apt has no archive with a component 'main' configured")
