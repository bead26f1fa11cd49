"""The ELF reader on files packed by hand, whose truth is known to the byte."""

from __future__ import annotations

import itertools
import struct

import pytest

from leakcase_collector.errors import CollectorError
from leakcase_collector.system.elf import ElfError, ElfFile
from leakcase_collector.system.elf_language import (
    LanguageHint,
    Producer,
    go_version,
    language_hints,
    producers,
)
from leakcase_collector.system.elf_strings import find_strings
from leakcase_collector.system.elf_symbols import (
    defined_dynamic_symbols,
    defined_static_symbols,
    dynamic_symbol,
)
from tests.collector.system.elf_builder import BASE, BytesReader, TinyElf

SHAPES = list(itertools.product((32, 64), "<>"))
DF_1_PIE = 0x08000000


def opened(tiny: TinyElf) -> ElfFile:
    return ElfFile(BytesReader(tiny.build()))


@pytest.mark.parametrize(("bits", "order"), SHAPES)
def test_everything_is_read_in_both_classes_and_byte_orders(bits: int, order: str) -> None:
    elf = opened(
        TinyElf(
            bits=bits,
            order=order,
            interpreter="/lib/ld-x.so.1",
            needed=("libone.so.1", "libtwo.so.2"),
            soname="libself.so",
            build_id=bytes(range(20)),
            sections={
                ".gnu_debuglink": b"self.debug\0\0" + struct.pack(order + "I", 0xDEADBEEF),
                ".debug_info": b"dwarf",
            },
        )
    )
    assert (elf.bits, elf.byte_order) == (bits, "little" if order == "<" else "big")
    assert elf.kind == "shared-object"
    assert elf.interpreter == "/lib/ld-x.so.1"
    assert elf.needed == ("libone.so.1", "libtwo.so.2")
    assert elf.soname == "libself.so"
    assert elf.build_id == bytes(range(20)).hex()
    assert elf.debuglink == ("self.debug", 0xDEADBEEF)
    assert elf.has_debug_info
    assert elf.lowest_load_address == BASE


@pytest.mark.parametrize(("bits", "order"), SHAPES)
@pytest.mark.parametrize("hash_style", ["gnu", "sysv", "none"])
def test_only_defined_names_are_found_whatever_the_index(
    bits: int, order: str, hash_style: str
) -> None:
    elf = opened(
        TinyElf(
            bits=bits,
            order=order,
            hash_style=hash_style,
            defined=("mallctl", "je_malloc", "other"),
            imported=("malloc", "free"),
        )
    )
    asked = {"malloc", "free", "mallctl", "je_malloc", "missing"}
    assert defined_dynamic_symbols(elf, asked) == {"mallctl", "je_malloc"}


def test_a_dynamic_symbol_has_its_address_and_size() -> None:
    symbol = dynamic_symbol(opened(TinyElf(defined=("first", "second"))), "second")
    assert symbol is not None
    assert (symbol.address, symbol.size_bytes) == (BASE + 1, 8)


@pytest.mark.parametrize(("bits", "order"), SHAPES)
def test_static_symbols_are_matched_whole_and_not_by_their_tails(bits: int, order: str) -> None:
    elf = opened(TinyElf(bits=bits, order=order, local=("xmalloc", "_int_malloc", "free")))
    scan = defined_static_symbols(elf, {"malloc", "_int_malloc", "free"})
    assert scan.found == {"_int_malloc", "free"}
    assert scan.is_complete
    assert not elf.is_stripped


def test_a_name_shared_as_a_tail_of_another_is_found() -> None:
    """Linkers store "malloc" once, inside "je_malloc"."""
    content = bytearray(TinyElf(local=("je_malloc", "x_malloc")).build())
    elf = ElfFile(BytesReader(bytes(content)))
    table = next(section for section in elf.sections if section.name == ".symtab")
    struct.pack_into("<I", content, table.offset + 2 * 24, 1 + len("je_"))
    scan = defined_static_symbols(ElfFile(BytesReader(bytes(content))), {"malloc"})
    assert scan.found == {"malloc"}


@pytest.mark.parametrize(
    ("tiny", "is_pie", "is_static"),
    [
        (TinyElf(kind=2), False, True),
        (TinyElf(kind=2, interpreter="/ld", needed=("libc.so.6",)), False, False),
        (TinyElf(interpreter="/ld", needed=("libc.so.6",)), True, False),
        (TinyElf(interpreter="/ld", needed=("a",), soname="libc.so.6"), False, False),
        (TinyElf(flags_1=DF_1_PIE), True, True),
        (TinyElf(soname="ld-linux.so.2"), False, False),
    ],
    ids=["static", "classic", "pie", "library-that-runs", "static-pie", "loader"],
)
def test_kinds_of_programs_are_told_apart(tiny: TinyElf, is_pie: bool, is_static: bool) -> None:
    elf = opened(tiny)
    assert (elf.is_pie, elf.is_static) == (is_pie, is_static)


def test_without_section_headers_the_loader_s_view_still_answers() -> None:
    elf = opened(
        TinyElf(
            needed=("libc.so.6",),
            defined=("malloc",),
            build_id=b"\1\2\3\4",
            with_section_headers=False,
            sections={".rodata": b"<jemalloc>: hello"},
        )
    )
    assert elf.sections == ()
    assert elf.needed == ("libc.so.6",)
    assert elf.build_id == "01020304"
    assert defined_dynamic_symbols(elf, {"malloc"}) == {"malloc"}
    assert elf.is_stripped
    # The one segment is writable, so that it counts as data and not as constants.
    assert find_strings(elf, {b"<jemalloc>: "}) == frozenset()


def test_absent_things_are_none_and_not_empty() -> None:
    elf = opened(TinyElf(kind=2))
    assert elf.interpreter is None
    assert elf.soname is None
    assert elf.build_id is None
    assert elf.debuglink is None
    assert not elf.has_dynamic_symbols
    assert not elf.has_debug_info
    assert producers(elf) == ()


def test_producers_are_parsed_and_nothing_else_of_the_comment_is_kept() -> None:
    comment = (
        b"GCC: (Debian 12.2.0-14 /home/ada/secret) 12.2.0\0"
        b"rustc version 1.63.0 (4b91a6ea7 2022-08-08)\0Debian clang version 14.0.6\0"
        b"Linker: Debian LLD 14.0.6\0built by ada on 2.4.6\0GCC: (Debian 12.2.0-14) 12.2.0\0"
    )
    assert producers(opened(TinyElf(sections={".comment": comment}))) == (
        Producer("gcc", "12.2.0"),
        Producer("rustc", "1.63.0"),
        Producer("clang", "14.0.6"),
        Producer("lld", "14.0.6"),
    )


def test_languages_show_by_producer_library_symbol_and_string() -> None:
    rust = TinyElf(sections={".comment": b"rustc version 1.63.0\0"})
    assert language_hints(opened(rust)) == (LanguageHint("rust", "producer"),)
    cpp = TinyElf(needed=("libstdc++.so.6", "libc.so.6"))
    assert language_hints(opened(cpp)) == (LanguageHint("c++", "needed-library"),)
    static_cpp = TinyElf(local=("__cxa_throw",))
    assert language_hints(opened(static_cpp)) == (LanguageHint("c++", "symbol"),)
    stripped = TinyElf(sections={".rodata": b"x\0/rustc/abc/library/std/src/panicking.rs\0"})
    assert language_hints(opened(stripped)) == (LanguageHint("rust", "string"),)
    assert language_hints(opened(TinyElf(kind=2))) == (LanguageHint("c", "default"),)


def test_a_string_across_two_chunks_of_the_scan_is_found() -> None:
    for shift in range(-40, 40, 4):
        rodata = b"." * (256 * 1024 + shift) + b"<jemalloc>: " + b"." * 64
        elf = opened(TinyElf(sections={".rodata": rodata}))
        assert find_strings(elf, {b"<jemalloc>: ", b"absent"}) == {b"<jemalloc>: "}


def test_go_versions_are_read_in_the_format_since_1_18() -> None:
    info = b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + b"\x08go1.22.3" + b"\0"
    elf = opened(TinyElf(kind=2, sections={".go.buildinfo": info}))
    assert go_version(elf) == "1.22.3"
    assert language_hints(elf)[0] == LanguageHint("go", "section")


def test_go_versions_are_read_in_the_format_before_1_18() -> None:
    blank = b"\xff Go buildinf:\x08\x00" + bytes(16) + bytes(16) + b"go1.15.9"
    at = opened(TinyElf(kind=2, sections={".go.buildinfo": blank})).section(".go.buildinfo")
    assert at is not None
    header = BASE + at.offset + 32
    text = struct.pack("<QQ", header + 16, 8)
    info = blank[:16] + struct.pack("<Q", header) + bytes(8) + text + b"go1.15.9"
    assert go_version(opened(TinyElf(kind=2, sections={".go.buildinfo": info}))) == "1.15.9"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#!/bin/sh\n",
        b"\x7fELF",
        b"\x7fELF\x03\x01\x01".ljust(64, b"\0"),
        b"\x7fELF\x02\x01\x01".ljust(20, b"\0"),
    ],
    ids=["empty", "script", "magic-only", "unknown-class", "cut-off"],
)
def test_what_is_no_elf_file_is_refused_with_one_sentence(content: bytes) -> None:
    with pytest.raises(ElfError, match="as ELF: ") as caught:
        ElfFile(BytesReader(content))
    assert isinstance(caught.value, CollectorError)
    assert caught.value.gap_reason == "not-supported"


def patched(tiny: TinyElf, layout: str, offset: int, value: int) -> ElfFile:
    content = bytearray(tiny.build())
    struct.pack_into("<" + layout, content, offset, value)
    return ElfFile(BytesReader(bytes(content)))


def test_tables_beyond_the_end_or_without_measure_are_refused() -> None:
    tiny = TinyElf(needed=("libc.so.6",), defined=("malloc",))
    with pytest.raises(ElfError):
        _ = patched(tiny, "Q", 32, 1 << 60).segments
    with pytest.raises(ElfError):
        _ = patched(tiny, "H", 56, 0xFFFE).segments
    with pytest.raises(ElfError):
        _ = patched(tiny, "Q", 40, (1 << 64) - 8).sections
    with pytest.raises(ElfError):
        _ = patched(tiny, "H", 60, 0xFFFE).sections


def test_a_hash_chain_without_an_end_ends() -> None:
    tiny = TinyElf(defined=("malloc",))
    elf = opened(tiny)
    section = elf.section(".gnu.hash")
    assert section is not None
    content = bytearray(tiny.build())
    chain = section.offset + 16 + 8 + 4
    struct.pack_into("<I", content, chain, 2)
    content += b"\2\0\0\0" * 100_000
    struct.pack_into("<Q", content, 64 + 32, len(content))  # PT_LOAD's size in the file
    assert defined_dynamic_symbols(ElfFile(BytesReader(bytes(content))), {"malloc"}) == frozenset()
