"""The C code is used only where it was compiled from the sources that are there."""

from __future__ import annotations

import os
from pathlib import Path

from leakcase_collector.system import native


def test_a_library_that_is_older_than_its_sources_is_not_used(tmp_path: Path) -> None:
    library, sources = tmp_path / "lib.so", tmp_path / "native"
    library.touch()
    assert not native._is_stale(str(library), str(sources)), "an installed one has no sources"
    sources.mkdir()
    (sources / "walk.c").touch()
    os.utime(library, (1000, 1000))
    os.utime(sources / "walk.c", (999, 999))
    native._is_stale.cache_clear()
    assert not native._is_stale(str(library), str(sources))
    os.utime(sources / "walk.c", (1001, 1001))
    native._is_stale.cache_clear()
    assert native._is_stale(str(library), str(sources))
