"""The interpreters of this machine on which the collector must run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

MINORS = range(9, 14)
OWN = f"3.{sys.version_info.minor}"
# A shim may have no interpreter behind it, and Debian's lacks ensurepip: so it is tried.
_PROBE = "import sys, venv, ensurepip; print('.'.join(map(str, sys.version_info[:2])))"


@cache
def interpreters() -> dict[str, str]:
    """CPython 3.9 to 3.13 as far as they are here: version to path."""
    found = {OWN: sys.executable}
    for minor in MINORS:
        version = f"3.{minor}"
        for path in _candidates(version):
            if version not in found and _version_of(path) == version:
                found[version] = str(path)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


def others() -> list[str]:
    """Versions beside our own, in which the suite runs anyway; our own where it is the only one."""
    return [version for version in interpreters() if version != OWN] or [OWN]


def _candidates(version: str) -> Iterator[Path]:
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))


def _version_of(path: Path) -> str | None:
    try:
        done = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
