"""Finds the files that know the lines of a case's modules, by build-id alone.

A case comes from strangers: of it only build-ids, in hexadecimal digits, and paths below a few
system folders become part of a path here, and a file counts only if its own build-id is the same.
A file of the right name and another build would give wrong lines that look right.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from leakcase_analyzer.errors import UsageProblem
from leakcase_analyzer.symbols.elf_file import ElfFacts, elf_facts

#: Where distributions install debug information (gdb manual, "Separate Debug Files").
SYSTEM_FOLDER = "/usr/lib/debug"
#: Modules are looked for at their own path only below these, where nobody but root writes.
_SYSTEM_PATH = re.compile(
    r"/(?:usr|lib|lib32|lib64|libx32|bin|sbin)(?:/(?!\.\.?(?:/|\Z))[^/<>\0]+)+\Z"
)
_BUILD_ID = re.compile(r"[0-9a-f]{8,128}\Z")
#: Files of the folders that are given; a build of a large program has some ten thousands.
MOST_FILES = 200_000


class DebugFile(NamedTuple):
    """A file, and what it says of itself."""

    path: Path
    facts: ElfFacts


class DebugFiles:
    """The folders (or files) that the engineer gave, and the places where such files lie anyway."""

    def __init__(self, given: Iterable[Path] = (), system_folder: str = SYSTEM_FOLDER) -> None:
        """Raises UsageProblem where one that was given does not exist."""
        self._given = [path.absolute() for path in given]
        self._system_folder = Path(system_folder)
        for path in self._given:
            try:
                path.stat()
            except (OSError, ValueError) as error:
                raise UsageProblem(
                    f"--debug-info {path}: it cannot be opened ({error}). Give the folder that "
                    "holds the very binary, or its debug file."
                ) from error

    def find(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, DebugFile]:
        """By build-id the file with line tables, else one with symbols; `wanted` has the paths of
        the modules that have it."""
        open_ids = {one for one in wanted if _BUILD_ID.match(one)}
        found: dict[str, DebugFile] = {}
        for path in self._candidates(open_ids, wanted):
            if not open_ids:
                break
            facts = elf_facts(path)
            if facts is None or facts.build_id not in open_ids:
                continue
            if facts.has_lines:
                found[facts.build_id] = DebugFile(path, facts)
                open_ids.discard(facts.build_id)
            elif facts.has_symbols:
                found.setdefault(facts.build_id, DebugFile(path, facts))
        return found

    def _candidates(self, ids: set[str], wanted: Mapping[str, Sequence[str]]) -> Iterator[Path]:
        """The likely ones first; `ids` shrinks meanwhile."""
        folders = [path for path in self._given if path.is_dir()]
        for folder in folders:
            for build_id in sorted(ids):
                yield from _by_build_id(folder, build_id)
        yield from (path for path in self._given if not path.is_dir())
        for folder in folders:
            yield from _files_below(folder)
        for build_id in sorted(ids):
            yield from _by_build_id(self._system_folder, build_id)
        for build_id in sorted(ids):
            yield from (Path(path) for path in wanted[build_id] if _SYSTEM_PATH.match(path))


def _by_build_id(folder: Path, build_id: str) -> Iterator[Path]:
    """As gdb, debuginfod and packages arrange them."""
    first, rest = build_id[:2], build_id[2:]
    for below in (folder / ".build-id" / first, folder / first):
        yield below / f"{rest}.debug"
        yield below / rest
    yield folder / build_id / "debuginfo"


def _files_below(folder: Path) -> Iterator[Path]:
    seen = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            seen += 1
            if seen > MOST_FILES:
                return
            yield Path(parent, name)
