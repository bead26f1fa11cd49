"""The ELF reader against binutils, on programs and libraries of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from leakcase_collector.system.door import System
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.elf_symbols import defined_dynamic_symbols, defined_static_symbols

pytestmark = pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not installed")

FILES = [
    path
    for path in (
        "/usr/bin/redis-server",
        "/usr/bin/python3.11",
        "/bin/ls",
        "/bin/busybox",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
        "/usr/lib/x86_64-linux-musl/libc.so",
        "/usr/lib/x86_64-linux-gnu/crt1.o",
    )
    if os.path.exists(path)
]


def readelf(*arguments: str) -> str:
    return subprocess.run(
        ["readelf", "-W", *arguments],
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        check=True,
    ).stdout


@pytest.mark.parametrize("path", FILES)
def test_headers_and_dynamic_section_agree_with_readelf(path: str) -> None:
    header, dynamic, notes = readelf("-h", path), readelf("-d", path), readelf("-n", path)
    segments, sections = readelf("-l", path), readelf("-S", path)
    with System().open_target_file(os.getpid(), path) as file:
        elf = ElfFile(file)
        kinds = {"REL": "relocatable", "EXEC": "executable", "DYN": "shared-object"}
        kind = re.search(r"Type: +(\w+)", header)
        assert kind is not None
        assert elf.kind == kinds[kind.group(1)]
        assert ("X86-64" in header) == (elf.machine == "x86_64")
        assert list(elf.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
        assert [elf.soname] == (re.findall(r"\(SONAME\).*\[(.*)\]", dynamic) or [None])
        assert [elf.build_id] == (re.findall(r"Build ID: (\w+)", notes) or [None])
        interpreter = re.findall(r"interpreter: (.*)\]", segments) or [None]
        assert [elf.interpreter] == interpreter
        names = re.findall(r"^  \[ *\d+\] (\S+) ", sections, re.MULTILINE)
        assert [section.name for section in elf.sections if section.name] == names
        assert elf.is_stripped == (".symtab" not in names)
        assert elf.has_debug_info == (".debug_info" in names)
        assert (elf.debuglink is not None) == (".gnu_debuglink" in names)
        if elf.debuglink:
            assert elf.debuglink[0] in readelf("-p", ".gnu_debuglink", path)
        loads = re.findall(r"^  LOAD +0x\w+ 0x(\w+)", segments, re.MULTILINE)
        lowest = min((int(address, 16) for address in loads), default=None)
        assert elf.lowest_load_address == lowest


@pytest.mark.parametrize("path", FILES)
def test_symbol_look_up_finds_exactly_what_readelf_lists_as_defined(path: str) -> None:
    defined: set[str] = set()
    imported: set[str] = set()
    for line in readelf("--dyn-syms", path).splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[0].endswith(":") and fields[0] != "Num:":
            (imported if fields[6] == "UND" else defined).add(fields[7].partition("@")[0])
    imported -= defined
    sample = set(sorted(defined)[::7]) | set(sorted(imported)[:100]) | {"surely_not_there"}
    with System().open_target_file(os.getpid(), path) as file:
        assert defined_dynamic_symbols(ElfFile(file), sample) == sample & defined


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
def test_static_symbols_of_a_compiled_program_are_found_and_gone_once_stripped(
    tmp_path: pytest.TempPathFactory,
) -> None:
    source, program = f"{tmp_path}/a.c", f"{tmp_path}/a"
    with open(source, "w") as file:
        file.write(
            "static int hidden(int x){return x+1;} int main(int c,char**v){return hidden(c);}"
        )
    subprocess.run(["gcc", "-g", "-O0", "-o", program, source], check=True)
    with System().open_target_file(os.getpid(), program) as opened:
        elf = ElfFile(opened)
        assert defined_static_symbols(elf, {"hidden", "main", "malloc"}).found == {"hidden", "main"}
        assert elf.has_debug_info
        assert elf.is_pie
    subprocess.run(["strip", program], check=True)
    with System().open_target_file(os.getpid(), program) as opened:
        elf = ElfFile(opened)
        assert elf.is_stripped
        assert not elf.has_debug_info
        assert defined_static_symbols(elf, {"hidden", "main"}).found == frozenset()
