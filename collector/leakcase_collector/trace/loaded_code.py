"""The program and libraries of a process, open for a search of their functions."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from leakcase_collector.errors import CollectorError, NotPermitted, NotSupported
from leakcase_collector.system.allocator import (
    ModuleFacts,
    allocator_facts,
    allocators,
    search_order,
)
from leakcase_collector.system.door import System
from leakcase_collector.system.elf import PF_X, PT_LOAD, ElfError, ElfFile, Segment
from leakcase_collector.system.elf_symbols import (
    Symbol,
    defined_static_symbols,
    dynamic_symbol,
    imported_symbols,
)
from leakcase_collector.system.files import TargetFile
from leakcase_collector.system.modules import (
    MappedModule,
    open_program_file,
    program_files,
    program_inode,
)

_MODULES_MAX = 512
_PRELOAD = re.compile(rb"(?:^|\0)LD_PRELOAD=([^\0]*)")


class OpenModule(NamedTuple):
    facts: ModuleFacts
    file: TargetFile
    elf: ElfFile


class LoadedCode:
    """All modules that can be read; a context manager that closes those that nobody kept.

    `order`: those in which the loader looks up a name that a caller uses, in its order.
    """

    def __init__(self, system: System, pid: int) -> None:
        self._kept: set[int] = set()
        self.modules: list[OpenModule] = []
        inode = program_inode(system, pid)
        for module in program_files(system, pid)[:_MODULES_MAX]:
            try:
                self.modules.append(_open(system, pid, module, module.inode == inode))
            except (NotPermitted, NotSupported):  # damaged, or replaced and we are not root
                continue
        facts = [module.facts for module in self.modules]
        names = preloaded(system, pid)
        by_facts = {id(module.facts): module for module in self.modules}
        self.order = [by_facts[id(fact)] for fact in search_order(facts, names)]
        found = allocators(facts, names)
        #: A word of the vocabulary ``allocator``: whose malloc the process's calls reach.
        self.allocator = found[0].kind if found and found[0].is_effective else "other"

    def imported(self, names: Collection[str]) -> set[str]:
        """Those of `names` that some module wants from another, and so may call."""
        found: set[str] = set()
        for module in self.modules:
            try:
                found |= imported_symbols(module.elf, set(names) - found)
            except ElfError:
                return set(names)
        return found

    def keep(self, module: OpenModule) -> TargetFile:
        """The module's file, which from now on stays open; the caller closes it."""
        self._kept.add(id(module))
        return module.file

    def __enter__(self) -> LoadedCode:
        return self

    def __exit__(self, *unused: object) -> None:
        for module in self.modules:
            if id(module) not in self._kept:
                module.file.close()


def _open(system: System, pid: int, module: MappedModule, is_program: bool) -> OpenModule:
    file = open_program_file(system, pid, module, is_program)
    try:
        elf = ElfFile(file)
        return OpenModule(allocator_facts(elf, module, is_program), file, elf)
    except CollectorError:
        file.close()
        raise


def preloaded(system: System, pid: int) -> list[str]:
    """What LD_PRELOAD named when the program started (ld.so(8)); none where that may not be read.

    Only this variable is looked at, and it goes nowhere but into the search order.
    """
    try:
        match = _PRELOAD.search(system.read_bytes(f"/proc/{pid}/environ"))
    except (NotPermitted, NotSupported):
        return []
    text = match.group(1).decode("utf-8", "surrogateescape") if match else ""
    return re.split("[: ]", text) if text else []


def functions_named(module: OpenModule, names: Collection[str]) -> dict[str, Symbol]:
    """Those of `names` that the module defines as code: for others, or for itself alone."""
    elf = module.elf
    found: dict[str, Symbol] = {}
    if not elf.is_stripped:
        found.update(defined_static_symbols(elf, names).symbols)
    for name in names:
        symbol = dynamic_symbol(elf, name)
        if symbol is not None:
            found[name] = symbol
    return {name: found[name] for name in found if code_segment(elf, found[name].address)}


def code_segment(elf: ElfFile, address: int) -> Segment | None:
    """The executable segment that holds an address of the file; None if it is no code."""
    for segment in elf.segments:
        is_code = segment.kind == PT_LOAD and segment.flags & PF_X
        if is_code and 0 <= address - segment.address < segment.file_bytes:
            return segment
    return None


def code_of(elf: ElfFile, symbol: Symbol, unsized_bytes: int, limit_bytes: int) -> bytes:
    """The function's own bytes, or their beginning; `unsized_bytes` where its end is unknown."""
    segment = code_segment(elf, symbol.address)
    if segment is None:
        raise ElfError("a function in it lies outside of its code")
    rest = segment.address + segment.file_bytes - symbol.address
    size = min(symbol.size_bytes or unsized_bytes, rest, limit_bytes)
    return elf.read(elf.offset_of(symbol.address), size)
