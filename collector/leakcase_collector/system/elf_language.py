"""Which language and compiler an ELF file came from, as far as it tells."""

from __future__ import annotations

import re
from typing import NamedTuple

from leakcase_collector.system.elf import PF_W, PT_LOAD, ElfFile
from leakcase_collector.system.elf_strings import find_strings
from leakcase_collector.system.elf_symbols import defined_static_symbols

_COMMENT_LIMIT_BYTES = 64 * 1024
_PRODUCERS = (
    ("gcc", re.compile(rb"^GCC: \(.*\) (\d+(?:\.\d+)*)")),
    ("rustc", re.compile(rb"^rustc version (\d+(?:\.\d+)*)")),
    ("clang", re.compile(rb"clang version (\d+(?:\.\d+)*)")),
    ("lld", re.compile(rb"^Linker: .*LLD (\d+(?:\.\d+)*)")),
    ("mold", re.compile(rb"^mold (\d+(?:\.\d+)*)")),
    ("ghc", re.compile(rb"^GHC (\d+(?:\.\d+)*)")),
    ("swift", re.compile(rb"Swift version (\d+(?:\.\d+)*)")),
)
_PRODUCER_LANGUAGES = {"rustc": "rust", "swift": "swift", "ghc": "haskell"}
_LIBRARY_LANGUAGES = (("libstdc++.so", "c++"), ("libc++.so", "c++"), ("libswiftCore.so", "swift"))
_SYMBOL_LANGUAGES = {"rust_eh_personality": "rust", "__cxa_throw": "c++", "swift_retain": "swift"}
#: Source paths in Rust's panic messages, and the name of a C++ run-time type: they survive strip.
_STRING_LANGUAGES = {
    b"library/std/src/": "rust",
    b"library/core/src/": "rust",
    b"N10__cxxabiv117__class_type_infoE": "c++",
}

_GO_MAGIC = b"\xff Go buildinf:"
_GO_ALIGN = 16
_GO_SEARCH_BYTES = 64 * 1024
_GO_VERSION = re.compile(r"go(\d+(?:\.\d+)*(?:rc\d+|beta\d+)?)")


class Producer(NamedTuple):
    """A compiler or linker that left its name in .comment; never the raw string."""

    name: str
    version: str


class LanguageHint(NamedTuple):
    """A language that went into the file.

    `evidence`: ``section``, ``producer``, ``needed-library``, ``symbol``, ``string``, or
    ``default`` (a native program in which no other language showed).
    """

    language: str
    evidence: str


def producers(elf: ElfFile) -> tuple[Producer, ...]:
    """The compilers named in .comment, in order, once each; Debian strips that section away."""
    section = elf.section(".comment")
    if section is None:
        return ()
    content = elf.read(section.offset, min(section.size_bytes, _COMMENT_LIMIT_BYTES))
    found: dict[Producer, None] = {}
    for text in content.split(b"\0"):
        for name, pattern in _PRODUCERS:
            match = pattern.search(text)
            if match:
                found[Producer(name, match.group(1).decode("ascii"))] = None
    return tuple(found)


def language_hints(elf: ElfFile) -> tuple[LanguageHint, ...]:
    """Every language that shows, the surest evidence first; one hint per language."""
    hints: dict[str, str] = {}
    if go_build_info_offset(elf) is not None:
        hints["go"] = "section"
    for producer in producers(elf):
        if producer.name in _PRODUCER_LANGUAGES:
            hints.setdefault(_PRODUCER_LANGUAGES[producer.name], "producer")
    for library, language in _LIBRARY_LANGUAGES:
        if any(needed.startswith(library) for needed in elf.needed):
            hints.setdefault(language, "needed-library")
    if elf.is_stripped:
        for needle in sorted(find_strings(elf, _STRING_LANGUAGES)):
            hints.setdefault(_STRING_LANGUAGES[needle], "string")
    else:
        for name in sorted(defined_static_symbols(elf, _SYMBOL_LANGUAGES).found):
            hints.setdefault(_SYMBOL_LANGUAGES[name], "symbol")
    return tuple(LanguageHint(*hint) for hint in hints.items()) or (LanguageHint("c", "default"),)


def go_version(elf: ElfFile) -> str | None:
    """The Go release that built the file, such as ``1.22.3``; None if it is not Go or not known."""
    offset = go_build_info_offset(elf)
    if offset is None:
        return None
    # Go 1.18 and later: flag 2 says that the version follows at 32, its length as a varint.
    # Before: a pointer to a Go string at 16 (debug/buildinfo/buildinfo.go).
    pointer_bytes, flags = elf.read(offset + 14, 2)
    if flags & 2:
        length = elf.read(offset + 32, 1)[0]
        text = elf.read(offset + 33, length & 0x7F)
    else:
        word = "I" if pointer_bytes == 4 else "Q"
        header = elf.offset_of(elf.unpack(word, offset + 16)[0])
        address, length = elf.unpack(word * 2, header)
        text = elf.read(elf.offset_of(address), min(length, 0x7F))
    match = _GO_VERSION.match(text.decode("ascii", "replace"))
    return match.group(1) if match else None


def go_build_info_offset(elf: ElfFile) -> int | None:
    """The file offset of Go's build information: its section, else the start of writable data."""
    section = elf.section(".go.buildinfo")
    places = [(section.offset, section.size_bytes)] if section else []
    places += [
        (segment.offset, segment.file_bytes)
        for segment in elf.segments
        if segment.kind == PT_LOAD and segment.flags & PF_W
    ][:1]
    for offset, size in places:
        content = elf.read(offset, min(size, _GO_SEARCH_BYTES))
        at = content.find(_GO_MAGIC)
        while at >= 0:
            if at % _GO_ALIGN == 0:
                return offset + at
            at = content.find(_GO_MAGIC, at + 1)
    return None
