"""The row for an address is what readelf says it is, in libraries and programs of this machine."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from leakcase_collector.system.door import System
from leakcase_collector.system.elf import PF_X, PT_LOAD, ElfFile
from leakcase_collector.unwind import rows
from leakcase_collector.unwind.call_frames import CallFrames
from leakcase_collector.unwind.rows import Row, Rule
from tests.collector.system.elf_builder import BytesReader
from tests.collector.unwind.targets import without_index

FUNCTIONS = 150
ADDRESSES_EACH = 12
_HEAD = re.compile(r"^[0-9a-f]{8,} .* pc=([0-9a-f]+)\.\.([0-9a-f]+)$")
_X86_64 = ["rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"]
_X86_64 += [f"r{number}" for number in range(8, 16)] + ["ra"]
_AARCH64 = [f"x{number}" for number in range(30)] + ["ra", "sp"]
_AARCH64 += [str(number) for number in range(32, 64)] + [f"v{number}" for number in range(32)]
_NAMES = {"x86_64": _X86_64, "aarch64": _AARCH64}
_WITH_SIGN = {"c": rows.AT_OFFSET, "v": rows.IS_OFFSET}
_EXPRESSIONS = {"exp": rows.AT_EXPRESSION, "vexp": rows.IS_EXPRESSION}

needs_readelf = pytest.mark.skipif(not shutil.which("readelf"), reason="binutils is not installed")


class Told(NamedTuple):
    """What readelf prints of one function: its bounds, and for each row a column of each name."""

    start: int
    end: int
    rows: list[tuple[int, dict[str, str]]]


def interpreted(path: str) -> str:
    # The exit status is 1 where a separate debug file is named that is not here.
    command = ["readelf", "--debug-dump=frames-interp", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout.partition("Contents of the .eh_frame section")[2]


def told_by_readelf(path: str) -> Iterator[Told]:
    for block in interpreted(path).split("\n\n"):
        lines = block.strip("\n").splitlines()
        head = _HEAD.match(lines[0]) if lines else None
        if head is None or len(lines) < 3:
            continue
        names = lines[1].split()[1:]
        found = []
        for line in lines[2:]:
            # "r9 (r9)": the number, and in brackets its name.
            location, *columns = re.sub(r" \(\w+\)", "", line).split()
            found.append((int(location, 16), dict(zip(names, columns))))
        yield Told(int(head.group(1), 16), int(head.group(2), 16), found)


def as_readelf_prints(row: Row, columns: Iterable[str], names: list[str]) -> dict[str, str]:
    cfa = "exp"
    if row.cfa_expression is None:
        cfa = f"{names[row.cfa_register]}{row.cfa_offset:+d}"
    printed = {"CFA": cfa}
    for name in columns:
        if name != "CFA":
            printed[name] = _rule(row.rules.get(names.index(name), Rule(rows.UNDEFINED)))
    return printed


def _rule(rule: Rule) -> str:
    for letter, kind in _WITH_SIGN.items():
        if rule.kind == kind:
            return f"{letter}{rule.value:+d}"
    for word, kind in _EXPRESSIONS.items():
        if rule.kind == kind:
            return word
    if rule.kind == rows.IN_REGISTER:
        return f"r{int(rule.value)}"
    return "s" if rule.kind == rows.SAME else "u"


def files() -> list[str]:
    found = ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"]
    found += ["/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/bin/redis-server"]
    found += [os.path.realpath("/usr/bin/python3")]
    found += ["/usr/aarch64-linux-gnu/lib/libc.so.6"]  # Debian's libc6-arm64-cross
    return [path for path in found if Path(path).exists()]


@needs_readelf
@pytest.mark.parametrize("path", files())
def test_rows_are_those_that_readelf_prints(path: str) -> None:
    told = list(told_by_readelf(path))
    sample = random.Random(path).sample(told, min(FUNCTIONS, len(told)))
    with System().open_target_file(os.getpid(), path) as file:
        elf = ElfFile(file)
        frames, names = CallFrames(elf), _NAMES[elf.machine]
        compared = 0
        for function in sample:
            starts = [location for location, _ in function.rows]
            size = function.end - function.start
            step = max(size // ADDRESSES_EACH, 1)
            for address in sorted({*starts, *range(function.start, function.end, step)}):
                if not function.start <= address < function.end:
                    continue
                columns = function.rows[bisect_right(starts, address) - 1][1]
                row = frames.row_at(address)
                assert row is not None, hex(address)
                assert as_readelf_prints(row, columns, names) == columns, hex(address)
                compared += 1
    assert compared > 100


@needs_readelf
def test_an_address_between_functions_has_no_row() -> None:
    path = "/lib/x86_64-linux-gnu/libc.so.6"
    if not Path(path).exists():
        pytest.skip("no such library here")
    heads = [head for line in interpreted(path).splitlines() if (head := _HEAD.match(line))]
    bounds = sorted((int(head.group(1), 16), int(head.group(2), 16)) for head in heads)
    gaps = [
        (before[1] + after[0]) // 2
        for before, after in zip(bounds, bounds[1:])
        if after[0] > before[1]
    ]
    with System().open_target_file(os.getpid(), path) as file:
        frames = CallFrames(ElfFile(file))
        assert len(gaps) > 10
        for address in [*gaps[:300], bounds[0][0] - 1, bounds[-1][1]]:
            assert frames.row_at(address) is None, hex(address)


def test_without_its_index_a_file_is_searched_and_gives_the_same_rows() -> None:
    content = Path(next(path for path in files() if "redis" in path or "libc" in path)).read_bytes()
    elf = ElfFile(BytesReader(content))
    frames, searched = CallFrames(elf), CallFrames(ElfFile(BytesReader(without_index(content))))
    with_row = 0
    for segment in elf.segments:
        if segment.kind == PT_LOAD and segment.flags & PF_X:
            for address in range(segment.address, segment.address + segment.file_bytes, 997):
                assert searched.row_at(address) == frames.row_at(address)
                with_row += frames.row_at(address) is not None
    assert with_row > 100
