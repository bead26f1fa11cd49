"""A case as a folder of plain JSON lines, a file for every kind of record."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from leakcase_analyzer.errors import OutputProblem
from leakcase_bundle import Reader
from leakcase_bundle.plain import plain, rows
from leakcase_bundle.schema import spec_of

#: Where records of kinds that this version does not know go, as they are.
UNKNOWN_FILE = "unknown"
#: A kilobyte of a hostile case can be megabytes of JSON.
MOST_BYTES = 4 << 30


@dataclass
class Extracted:
    """How many lines each file has; `stopped` where the folder became too large."""

    lines: Counter[str] = field(default_factory=Counter)
    written_bytes: int = 0
    stopped: bool = False


def extract(reader: Reader, folder: Path, most_bytes: int = MOST_BYTES) -> Extracted:
    """Write every readable record of a case into a new or empty folder.

    A series becomes one line per sample. Only names of registered kinds become names of files.
    Raises OutputProblem, and what `Reader` raises.
    """
    extracted = Extracted()
    directory = _made(folder)
    try:
        with ExitStack() as files:
            _write(reader, _Files(directory, files), extracted, most_bytes)
    except OSError as error:
        raise OutputProblem(
            f"cannot write into {folder}: {(error.strerror or str(error)).lower()}. "
            "Free some space, or name another folder."
        ) from error
    finally:
        os.close(directory)
    return extracted


class _Files:
    """The files of the folder, opened when their first line comes."""

    def __init__(self, directory: int, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._open: dict[str, TextIO] = {}

    def named(self, name: str) -> TextIO:
        if name not in self._open:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(f"{name}.jsonl", flags, 0o600, dir_fd=self._directory)
            file = open(descriptor, "w", encoding="ascii")  # noqa: SIM115  the stack closes it
            self._open[name] = self._stack.enter_context(file)
        return self._open[name]


def _write(reader: Reader, files: _Files, extracted: Extracted, most_bytes: int) -> None:
    for _, raw, record in reader.decoded():
        name = UNKNOWN_FILE if record is None else spec_of(record).kind
        for row in _rows(raw, record):
            line = json.dumps(row) + "\n"  # ASCII: no byte of a case can steer a terminal.
            if extracted.written_bytes + len(line) > most_bytes:
                extracted.stopped = True
                return
            files.named(name).write(line)
            extracted.lines[name] += 1
            extracted.written_bytes += len(line)


def _rows(raw: dict[str, Any], record: Any) -> Iterator[dict[str, Any]]:
    if record is None:
        yield plain(raw)
    else:
        yield from rows(record)


def _made(folder: Path) -> int:
    """A descriptor of the new or empty folder."""
    try:
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if not folder.is_dir():
                raise
            if any(folder.iterdir()):
                raise OutputProblem(
                    f"cannot extract into {folder}: it is not empty. Name another folder."
                ) from None
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OutputProblem(
            f"cannot extract into {folder}: {cause.lower()}. Name another folder."
        ) from error
