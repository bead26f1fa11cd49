"""Whatever a file holds, reading it ends soon, in an answer or in `ElfError`."""

from __future__ import annotations

import contextlib
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from leakcase_collector.system.elf import ElfError, ElfFile
from leakcase_collector.system.elf_language import go_version, language_hints, producers
from leakcase_collector.system.elf_strings import find_strings
from leakcase_collector.system.elf_symbols import defined_dynamic_symbols, defined_static_symbols
from leakcase_collector.system.runtime import runtime_of
from tests.collector.system.elf_builder import BytesReader, TinyElf

NAMES = ("malloc", "mallctl", "Py_Version", "missing")
WHOLE = [
    TinyElf(
        bits=bits,
        order=order,
        hash_style=hash_style,
        interpreter="/lib64/ld.so",
        needed=("libc.so.6",),
        soname="libx.so",
        build_id=b"0123456789",
        defined=("malloc", "Py_Version", "_PyRuntime"),
        imported=("free",),
        local=("_int_malloc", "__cxa_throw"),
        sections={
            ".comment": b"GCC: (GNU) 12.2.0\0",
            ".rodata": b"<jemalloc>: x\0",
            ".go.buildinfo": b"\xff Go buildinf:\x08\x00" + bytes(32),
            ".gnu_debuglink": b"x.debug\0\1\2\3\4",
        },
    ).build()
    for bits in (32, 64)
    for order in "<>"
    for hash_style in ("gnu", "sysv", "none")
]


def read_everything(content: bytes) -> None:
    """Ask every question; each may be answered or refused."""
    try:
        elf = ElfFile(BytesReader(content))
    except ElfError:
        return
    attributes = (
        "segments sections dynamic interpreter needed soname is_pie is_static is_stripped "
        "has_debug_info has_dynamic_symbols lowest_load_address build_id debuglink kind machine"
    )
    for name in attributes.split():
        with contextlib.suppress(ElfError):
            getattr(elf, name)
    for question in (
        lambda: defined_dynamic_symbols(elf, NAMES),
        lambda: defined_static_symbols(elf, NAMES),
        lambda: find_strings(elf, {b"<jemalloc>: "}),
        lambda: producers(elf),
        lambda: language_hints(elf),
        lambda: go_version(elf),
        lambda: runtime_of(elf, "/usr/bin/x", True),
    ):
        with contextlib.suppress(ElfError):
            question()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_behind_the_magic_are_answered_or_refused(content: bytes) -> None:
    read_everything(b"\x7fELF" + content)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_answered_or_refused(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        size = data.draw(st.sampled_from((1, 2, 4, 8)))
        value = data.draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
        content[at : at + size] = bytes([value]) * len(content[at : at + size])
    read_everything(bytes(content[: data.draw(st.integers(1, len(content)))]))


def test_the_largest_tables_that_are_read_cost_little_time() -> None:
    strings = b"malloc\0" * 100_000
    tiny = TinyElf(local=tuple(f"f{number}" for number in range(2000)), sections={".x": strings})
    content = bytearray(tiny.build())
    content += strings * 10
    started = time.monotonic()
    read_everything(bytes(content))
    assert time.monotonic() - started < 2
