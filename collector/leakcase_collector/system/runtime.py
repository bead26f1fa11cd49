"""Which language runtimes a process hosts: CPython, JVM, Node, Go, Ruby, .NET, PHP, BEAM, Perl."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from leakcase_collector.errors import CollectorError
from leakcase_collector.system.door import System
from leakcase_collector.system.elf import ElfError, ElfFile
from leakcase_collector.system.elf_language import go_build_info_offset, go_version
from leakcase_collector.system.elf_strings import search_strings
from leakcase_collector.system.elf_symbols import defined_dynamic_symbols, dynamic_symbol

#: Libraries; group 1 is a version where the name has one.
_LIBRARIES = (
    ("cpython", re.compile(r"/libpython(\d\.\d+)[a-z]*\.so[^/]*$")),
    ("jvm", re.compile(r"/libjvm\.so$()")),
    ("node", re.compile(r"/libnode\.so[^/]*$()")),
    ("ruby", re.compile(r"/libruby[^/]*?\.so\.(\d\.\d)[^/]*$")),
    ("dotnet", re.compile(r"/Microsoft\.NETCore\.App/(\d+\.\d+\.\d+)[^/]*/libcoreclr\.so$")),
    ("dotnet", re.compile(r"/libcoreclr\.so$()")),
    ("php", re.compile(r"/libphp(\d?\.?\d?)[^/]*\.so$")),
    ("perl", re.compile(r"/libperl\.so\.(\d\.\d+)[^/]*$")),
)
#: What a program exports that has the runtime inside, for extension modules to link against.
_PROGRAM_SYMBOLS = {
    "_PyRuntime": "cpython",
    "Py_GetVersion": "cpython",
    "_ZN4node5StartEiPPc": "node",
    "ruby_init": "ruby",
    "DotNetRuntimeInfo": "dotnet",
    "php_module_startup": "php",
    "perl_construct": "perl",
    "enif_alloc": "beam",
}
#: Programs known by name when they export nothing; group 1 is a version where the path has one.
_PROGRAM_NAMES = (
    ("cpython", re.compile(r"/python(\d\.\d+)[a-z]*$")),
    ("node", re.compile(r"/node(?:js)?$()")),
    ("php", re.compile(r"/php(?:-fpm|-cgi)?(\d\.\d)?$")),
    ("beam", re.compile(r"(?:/erts-(\d+(?:\.\d+)*)/bin)?/beam\.smp$")),
)
_RELEASE_LIMIT_BYTES = 64 * 1024
_JAVA_VERSION = re.compile(r'^JAVA_VERSION="([0-9][0-9._]*)"', re.MULTILINE)
_NODE_VERSION = re.compile(rb"/download/release/v(\d+\.\d+\.\d+)/node-v")
_PHP_VERSION = re.compile(rb"X-Powered-By: PHP/(\d+\.\d+\.\d+)")
_RUBY_VERSION = re.compile(rb"(\d+\.\d+\.\d+)\0")


class Runtime(NamedTuple):
    """A language runtime; `evidence`: ``library``, ``symbol``, ``name`` or ``section``."""

    kind: str
    evidence: str
    version: str | None
    path: str


def runtime_of(elf: ElfFile, path: str, is_program: bool) -> Runtime | None:
    """The runtime that this module is or contains, with its version where it is cheaply read."""
    kind, evidence, named_version = _recognise(elf, path, is_program)
    if kind is None:
        return None
    exact = _EXACT_VERSIONS.get(kind)
    try:
        version = exact(elf) if exact else None
    except ElfError:
        version = None  # recognised all the same; a damaged string table only costs the version
    return Runtime(kind, evidence, version or named_version, path)


def _recognise(elf: ElfFile, path: str, is_program: bool) -> tuple[str | None, str, str | None]:
    for kind, pattern in _LIBRARIES:
        match = pattern.search(path)
        if match:
            return kind, "library", match.group(1) or None
    if not is_program:
        return None, "", None
    named = [(kind, match.group(1)) for kind, p in _PROGRAM_NAMES if (match := p.search(path))]
    defined = defined_dynamic_symbols(elf, _PROGRAM_SYMBOLS)
    for symbol, kind in _PROGRAM_SYMBOLS.items():
        if symbol in defined:
            return kind, "symbol", dict(named).get(kind)
    if go_build_info_offset(elf) is not None:
        return "go", "section", None
    # A thin launcher (pyenv's python3.11, which needs libpython) is not the runtime itself.
    launches = any(p.search("/" + needed) for needed in elf.needed for _, p in _LIBRARIES)
    if named and not launches:
        return named[0][0], "name", named[0][1]
    return None, "", None


def _cpython_version(elf: ElfFile) -> str | None:
    # Py_Version, PY_VERSION_HEX as a constant, is exported since 3.11 (C API, "Py_Version").
    symbol = dynamic_symbol(elf, "Py_Version")
    if symbol is None:
        return None
    value = elf.unpack("I" if elf.bits == 32 else "Q", elf.offset_of(symbol.address))[0]
    version = f"{value >> 24 & 0xFF}.{value >> 16 & 0xFF}.{value >> 8 & 0xFF}"
    level = {0xA: "a", 0xB: "b", 0xC: "rc"}.get(value >> 4 & 0xF)
    return f"{version}{level}{value & 0xF}" if level else version


def _ruby_version(elf: ElfFile) -> str | None:
    # A char array, "for extension libraries" (include/ruby/version.h).
    symbol = dynamic_symbol(elf, "ruby_version")
    if symbol is None:
        return None
    match = _RUBY_VERSION.match(elf.read(elf.offset_of(symbol.address), 16))
    return match.group(1).decode("ascii") if match else None


_EXACT_VERSIONS: dict[str, Callable[[ElfFile], str | None]] = {
    "cpython": _cpython_version,
    "ruby": _ruby_version,
    "go": go_version,
    "node": lambda elf: search_strings(elf, _NODE_VERSION),
    "php": lambda elf: search_strings(elf, _PHP_VERSION),
}


def java_version(system: System, pid: int, libjvm_path: str) -> str | None:
    """JAVA_VERSION of the `release` file some levels above libjvm.so, in the target's root."""
    directory = libjvm_path
    for _ in range(5):
        directory = directory.rpartition("/")[0]
        try:
            with system.open_target_file(pid, f"{directory}/release") as file:
                text = file.read_at(0, _RELEASE_LIMIT_BYTES).decode("utf-8", "replace")
        except CollectorError:
            continue
        match = _JAVA_VERSION.search(text)
        if match:
            return match.group(1)
    return None
