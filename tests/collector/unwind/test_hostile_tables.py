"""Whatever stands in a file's unwind tables or on the stack: an answer, soon, and no exception."""

from __future__ import annotations

import contextlib
import random
import struct
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakcase_bundle.vocabulary import is_word
from leakcase_collector.system.elf import PF_X, PT_LOAD, ElfError, ElfFile
from leakcase_collector.unwind.careful import StackCopy
from leakcase_collector.unwind.expressions import NoValue, evaluate
from leakcase_collector.unwind.modules import CodeModules
from leakcase_collector.unwind.unwinder import Unwinder
from tests.collector.system.elf_builder import BytesReader
from tests.collector.unwind.targets import BASE, OneFile, without_index

#: A small library of which each Linux has one, with an index, expressions and signal frames.
LIBRARY = "/lib64/ld-linux-x86-64.so.2"
STACK = 0x7FFF00000000
pytestmark = pytest.mark.skipif(not Path(LIBRARY).exists(), reason="no such library here")


@cache
def library() -> bytes:
    return Path(LIBRARY).read_bytes()


@cache
def tables() -> tuple[int, int]:
    """Where the index and the tables lie in the file."""
    elf = ElfFile(BytesReader(library()))
    sections = [elf.section(name) for name in (".eh_frame_hdr", ".eh_frame")]
    bounds = [(s.offset, s.offset + s.size_bytes) for s in sections if s is not None]
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def unwound(target: OneFile, seed: int) -> None:
    """Stacks of return addresses and pointers to itself, such as lead through any table."""
    chosen = random.Random(seed)
    low, high = next(
        (s.offset, s.offset + s.file_bytes)
        for s in ElfFile(BytesReader(library())).segments
        if s.kind == PT_LOAD and s.flags & PF_X
    )
    words = [
        chosen.choice((
            BASE + chosen.randrange(low, high),
            BASE + chosen.randrange(low, high),
            STACK + 8 * chosen.randrange(256),
            chosen.getrandbits(64),
            0,
        ))
        for _ in range(256)
    ]  # fmt: skip
    stack = struct.pack("<256Q", *words)
    registers = {number: chosen.choice(words) for number in range(17)}
    registers[16] = BASE + chosen.randrange(low, high)
    registers[7] = STACK + 8 * chosen.randrange(8)
    started = time.process_time()
    with CodeModules(target) as modules:
        unwinder = Unwinder(modules, "x86_64")
        for after_call in (True, False):
            found = unwinder.unwind(registers, STACK, stack, 64, after_call=after_call)
            assert is_word("stack_end", found.end), found
            assert len(found.pcs) <= 64
            assert len(unwinder.frames(found)) == len(found.pcs)
    assert time.process_time() - started < 1


changes = st.lists(st.tuples(st.integers(0, 1 << 30), st.binary(min_size=1, max_size=12)))
seeds = st.integers(0, 1 << 30)


@settings(max_examples=300, deadline=None)
@given(changes, seeds, st.booleans())
def test_changed_tables_end_a_stack_and_nothing_else(
    changed: list[tuple[int, bytes]], seed: int, has_index: bool
) -> None:
    low, high = tables()
    content = bytearray(library() if has_index else without_index(library()))
    for place, piece in changed:
        at = low + place % (high - low - len(piece))
        content[at : at + len(piece)] = piece
    unwound(OneFile(bytes(content)), seed)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 255)), min_size=1), seeds)
def test_changed_headers_end_a_stack_and_nothing_else(
    changed: list[tuple[int, int]], seed: int
) -> None:
    content = bytearray(library())
    for at, byte in changed:
        content[at] = byte
    unwound(OneFile(bytes(content)), seed)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_whatever_is_on_the_stack_it_ends(seed: int) -> None:
    unwound(OneFile(library()), seed)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 60), seeds)
def test_a_file_that_is_cut_off_while_it_is_read_ends_a_stack(reads: int, seed: int) -> None:
    unwound(OneFile(library(), reads=reads), seed)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.dictionaries(st.integers(0, 40), seeds), seeds)
def test_an_expression_computes_a_word_or_says_that_it_cannot(
    expression: bytes, registers: dict[int, int], start: int
) -> None:
    stack = StackCopy(0, bytes(range(256)))
    with contextlib.suppress(NoValue, ElfError):
        assert 0 <= evaluate(expression, registers, stack, (start,)) < 1 << 64


def test_an_expression_that_jumps_back_for_ever_is_given_up() -> None:
    with pytest.raises(ElfError):
        evaluate(bytes([0x30, 0x2F, 0xFC, 0xFF]), {}, StackCopy(0, b""))  # lit0, skip -4
