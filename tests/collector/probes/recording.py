"""Recorded text of real /proc files, and trees of files that stand for a machine."""

from __future__ import annotations

from pathlib import Path

from leakcase_collector.system.door import System

_RECORDINGS = Path(__file__).parent / "recordings"


def recorded(name: str) -> bytes:
    """The file `name` of the recordings."""
    return (_RECORDINGS / name).read_bytes()


def machine(base: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> System:
    """A `System` over a tree below `base` with these files and symbolic links, by absolute path."""
    for path, content in files.items():
        place = base / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    for path, target in (links or {}).items():
        place = base / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
    return System(proc=str(base / "proc"), sys=str(base / "sys"), root=str(base))
