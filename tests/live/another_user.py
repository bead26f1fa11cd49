"""The collector as a user who can reach neither our Python nor our checkout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack

import leakcase_bundle
import leakcase_collector

NOBODY = 65534
SYSTEM_PYTHON = "/usr/bin/python3"
COLLECT = [SYSTEM_PYTHON, "-m", "leakcase_collector"]


@contextmanager
def reachable_collector() -> Iterator[Path]:
    """A folder that any user may write to, with the collector in it."""
    with TemporaryDirectory(prefix="leakcase-test-", dir="/var/tmp") as name:
        folder = Path(name)
        for package in (leakcase_bundle, leakcase_collector, msgpack):
            source = Path(package.__file__).parent
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("*.so"))
        folder.chmod(0o777)
        yield folder


def environment(folder: Path) -> dict[str, str]:
    """For `COLLECT` to find what is in the folder."""
    return {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "MSGPACK_PUREPYTHON": "1"}


def as_nobody() -> dict[str, Any]:
    """Arguments of subprocess.Popen; only root can."""
    assert os.geteuid() == 0
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}
