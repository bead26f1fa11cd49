"""Names of functions against nm, for whole, stripped and half-stripped files."""

from __future__ import annotations

import lzma
import os
import random
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from leakcase_collector.system.door import System
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.files import TargetFile
from leakcase_collector.trace.functions import FunctionNames
from tests.collector.system.compiled import compiled
from tests.collector.system.elf_builder import BytesReader
from tests.collector.trace.disassembled import function_addresses
from tests.collector.trace.libraries import library

SOURCE = r"""
#include <stdio.h>
static int __attribute__((noinline)) hidden(int n) { return n ? n * hidden(n - 1) : 1; }
int __attribute__((noinline)) shown(int n) { return hidden(n) + 1; }
__asm__(".globl bare\nbare: nop\nnop\nret\n");
int main(int c, char **v) { printf("%d\n", shown(c)); return 0; }
"""


def opened(path: str) -> ElfFile:
    return ElfFile(TargetFile(os.open(path, os.O_RDONLY), path, "/proc"))


@pytest.mark.parametrize("name", ["glibc", "libstdc++", "jemalloc", "tcmalloc", "mimalloc", "musl"])
def test_every_address_within_a_function_has_a_name_that_nm_gives_that_address(name: str) -> None:
    path = library(name)
    functions = function_addresses(path)
    by_start: dict[int, set[str]] = {}
    for symbol, (address, _) in functions.items():
        by_start.setdefault(address, set()).add(symbol)
    names, elf = FunctionNames(), opened(path)
    sample = random.Random(7).sample(sorted(functions.items()), min(600, len(functions)))
    for symbol, (address, size) in sample:
        for offset in {0, size // 2, max(size - 1, 0)}:
            found = names.name_of(elf, address + offset)
            assert found is not None, (symbol, offset)
            # Where functions overlap any that holds the address will do.
            assert found.name in by_start[address + offset - found.offset], (symbol, found)


def test_a_local_function_and_an_assembly_label_are_named(tmp_path: Path) -> None:
    program = compiled(tmp_path, "p", SOURCE)
    places = _all_symbols(program)
    names, elf = FunctionNames(), opened(program)
    for symbol in ("hidden", "shown", "bare", "main"):
        found = names.name_of(elf, places[symbol] + 1)
        assert found is not None and (found.name, found.offset) == (symbol, 1)
    assert names.name_of(elf, 0) is None
    assert names.name_of(elf, 1 << 50) is None


def test_a_stripped_program_keeps_the_names_that_others_need_and_no_more(tmp_path: Path) -> None:
    program = compiled(tmp_path, "p", SOURCE, ("-rdynamic",))
    places = _all_symbols(program)
    subprocess.run(["strip", program], check=True)
    names, elf = FunctionNames(), opened(program)
    shown = names.name_of(elf, places["shown"])
    assert shown is not None and shown.name == "shown"
    assert names.name_of(elf, places["hidden"]) is None


def test_the_names_of_a_stripped_program_s_debugdata_are_read(tmp_path: Path) -> None:
    program = compiled(tmp_path, "p", SOURCE)
    places = _all_symbols(program)
    only_names = f"{program}.names"
    subprocess.run(["objcopy", "--only-keep-debug", program, only_names], check=True)
    Path(only_names).write_bytes(lzma.compress(Path(only_names).read_bytes()))
    subprocess.run(["strip", program], check=True)
    section = f".gnu_debugdata={only_names}"
    subprocess.run(["objcopy", "--add-section", section, program], check=True)
    found = FunctionNames().name_of(opened(program), places["hidden"] + 2)
    assert found is not None and (found.name, found.offset) == ("hidden", 2)


def test_a_debug_file_of_the_same_build_id_is_read_from_the_target_s_root(tmp_path: Path) -> None:
    program = compiled(tmp_path, "p", SOURCE, ("-Wl,--build-id",))
    places = _all_symbols(program)
    build_id = opened(program).build_id
    assert build_id is not None
    root = tmp_path / "proc" / "7" / "root"
    debug = root / "usr/lib/debug/.build-id" / build_id[:2] / f"{build_id[2:]}.debug"
    debug.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", program, str(debug)], check=True)
    subprocess.run(["strip", program], check=True)
    system = System(proc=str(tmp_path / "proc"))
    found = FunctionNames(system, 7).name_of(opened(program), places["hidden"])
    assert found is not None and found.name == "hidden"
    other = compiled(tmp_path, "q", SOURCE.replace("+ 1", "+ 2"), ("-Wl,--build-id",))
    shutil.copy(other, debug)  # of another build: not believed
    assert FunctionNames(system, 7).name_of(opened(program), places["hidden"]) is None


def test_forty_thousand_functions_take_little_memory(tmp_path: Path) -> None:
    text = "".join(
        f".globl f{n}\n.type f{n},@function\nf{n}: ret\n.size f{n},1\n" for n in range(40_000)
    )
    source = tmp_path / "many.s"
    source.write_text(text)
    made = str(tmp_path / "many.so")
    subprocess.run(["gcc", "-shared", "-nostdlib", "-o", made, str(source)], check=True)
    first = _all_symbols(made)["f0"]
    names, elf = FunctionNames(), opened(made)
    tracemalloc.start()
    found = names.name_of(elf, first + 27_777)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None and found.name == "f27777"
    assert peak < 4_000_000


def test_a_damaged_symbol_table_yields_no_name_and_no_error(tmp_path: Path) -> None:
    program = compiled(tmp_path, "p", SOURCE)
    content = bytearray(Path(program).read_bytes())
    place = _all_symbols(program)["hidden"]
    chance = random.Random(3)
    tables = next(s for s in opened(program).sections if s.name == ".symtab")
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(40):
            at = tables.offset + chance.randrange(tables.size_bytes)
            damaged[at] = chance.randrange(256)
        for cut in (len(damaged), tables.offset + chance.randrange(tables.size_bytes)):
            try:
                elf = ElfFile(BytesReader(bytes(damaged[:cut])))
            except Exception:  # noqa: BLE001  (the file's header is gone: not this test's matter)
                continue
            FunctionNames().name_of(elf, place)


def _all_symbols(path: str) -> dict[str, int]:
    listed = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout
    rows = [row.split() for row in listed.splitlines()]
    return {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
