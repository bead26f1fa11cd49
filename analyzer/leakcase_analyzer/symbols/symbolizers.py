"""Names functions and lines of addresses, by what is installed: `symbolic`, LLVM's or GNU's tool.

Each is asked for the functions that the compiler put into one another as well, and tells these
from the innermost outwards. An address counts as the file's symbol table does.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from leakcase_analyzer.symbols.debug_files import DebugFile

MOST_SECONDS = 30
#: The library reads a file as a whole and cannot be stopped; programs look for what is asked only.
_MOST_LIBRARY_BYTES = 512 << 20
_MOST_OUTPUT_BYTES = 32 << 20
_MOST_CHARACTERS = 4096
_WHERE = re.compile(r"(?P<file>.*):(?P<line>\d+|\?)(?: \(discriminator \d+\))?\Z")


class Line(NamedTuple):
    """One function at an address, by its symbol, and the line in it; None: not known."""

    function: str | None
    file: str | None
    line: int | None


Lines: TypeAlias = Mapping[int, Sequence[Line]]
#: Raises SymbolizerFailed.
Symbolizer: TypeAlias = Callable[[DebugFile, Sequence[int]], Lines]


class SymbolizerFailed(Exception):
    """It could not be run, did not end in time, or did not understand the file."""


def find_symbolizer() -> Symbolizer | None:
    """Whatever is installed here, the best of it first: the next one is asked where one fails."""
    found = [one for one in (by_library(), by_llvm(), by_addr2line()) if one is not None]

    def look_up(file: DebugFile, addresses: Sequence[int]) -> Lines:
        for one in found:
            with suppress(SymbolizerFailed):
                return one(file, addresses)
        raise SymbolizerFailed

    return look_up if found else None


def by_library() -> Symbolizer | None:
    """The package `symbolic`, which pip installs as `leakcase[symbols]`."""
    try:
        from symbolic.debuginfo import Archive
        from symbolic.exceptions import SymbolicError
    except ImportError:
        return None

    def look_up(file: DebugFile, addresses: Sequence[int]) -> Lines:
        try:
            if file.path.stat().st_size > _MOST_LIBRARY_BYTES:
                raise SymbolizerFailed
            cache = next(Archive.open(str(file.path)).iter_objects()).make_symcache()
            return {
                # It counts from where the file is loaded.
                address: [
                    _line(one.symbol, one.full_path, one.line)
                    for one in cache.lookup(address - file.facts.load_address)
                ]
                for address in addresses
                if address >= file.facts.load_address
            }
        except (OSError, SymbolicError, StopIteration, OverflowError, ValueError) as error:
            raise SymbolizerFailed from error

    return look_up


def by_llvm() -> Symbolizer | None:
    """llvm-symbolizer(1), of LLVM 9 or newer."""
    options = ("-a", "-i", "-f=linkage", "--no-demangle", "--output-style=GNU", "--obj={file}")
    return _by_program("llvm-symbolizer", options)


def by_addr2line() -> Symbolizer | None:
    """addr2line(1)."""
    return _by_program("addr2line", ("-a", "-i", "-f", "-e", "{file}"))


def _by_program(name: str, options: Sequence[str]) -> Symbolizer | None:
    program = shutil.which(name)
    if program is None:
        return None

    def look_up(file: DebugFile, addresses: Sequence[int]) -> Lines:
        arguments = [program, *(one.replace("{file}", str(file.path)) for one in options)]
        asked = "".join(f"{address:#x}\n" for address in addresses)
        return dict(_parsed(_run(arguments, asked)))

    return look_up


def _run(arguments: Sequence[str], asked: str) -> str:
    """What a program answers. Without our environment, in which they find servers to ask."""
    with tempfile.TemporaryFile() as questions, tempfile.TemporaryFile() as answers:
        questions.write(asked.encode("ascii"))
        questions.seek(0)
        try:
            done = subprocess.run(
                arguments,
                stdin=questions,
                stdout=answers,
                stderr=subprocess.DEVNULL,
                timeout=MOST_SECONDS,
                env={"LC_ALL": "C", "PATH": os.defpath},
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SymbolizerFailed from error
        if done.returncode:
            raise SymbolizerFailed
        answers.seek(0)
        return answers.read(_MOST_OUTPUT_BYTES).decode("utf-8", "replace")


def _parsed(answer: str) -> Iterator[tuple[int, list[Line]]]:
    """An address in a line of its own, then function and file:line by turns."""
    address: int | None = None
    found: list[Line] = []
    function: str | None = None
    for text in answer.splitlines():
        if function is not None:
            where = _WHERE.match(text)
            file, line = (where["file"], where["line"]) if where else (text, "?")
            found.append(_line(function, file, int(line) if line != "?" else None))
            function = None
        elif re.fullmatch("0x[0-9a-fA-F]{1,16}", text):
            if address is not None:
                yield address, found
            address, found = int(text, 16), []
        elif text:
            function = text
    if address is not None:
        yield address, found


def _line(function: str | None, file: str | None, line: int | None) -> Line:
    known_file = _text(None if not file or file == "??" else posixpath.normpath(file))
    return Line(_text(function), known_file, line if line and known_file else None)


def _text(text: str | None) -> str | None:
    if not text or text == "??":
        return None
    return "".join(c if c.isprintable() else "?" for c in text[:_MOST_CHARACTERS])
