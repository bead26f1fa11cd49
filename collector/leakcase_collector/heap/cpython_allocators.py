"""The functions by which CPython allocates its objects, also where the program has no symbols.

Most objects are smaller than malloc(3) ever hears of: pymalloc cuts them from arenas. Its entry
points are two layers. The inner ones stand in tables of function pointers (PyMemAllocatorEx:
context, malloc, calloc, realloc, free), which tracemalloc and PYTHONMALLOC replace: the tables tell
what is called now. The outer ones are exported (PyObject_Malloc and its like, C API "Memory
Management") and jump to the inner ones, but where the compiler has optimized by a profile: there
they hold a copy of the usual inner one. So do some of their callers, whose allocations nobody sees.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.elf_symbols import dynamic_symbol
from leakcase_collector.system.memory import MemoryMapping

from .cpython_blocks import ResidentBlocks
from .cpython_runtime import PythonImage, load_bias

_CALLS = ("malloc", "calloc", "realloc", "free")
_EXPORTED = ("Malloc", "Calloc", "Realloc", "Free")
_DOMAINS = ("PyObject_", "PyMem_")
_TABLE_WORDS = 5
_TABLE_BYTES = 8 * _TABLE_WORDS
#: `allocators` stands 96 bytes into _PyRuntime in 3.12, 704 bytes in 3.13.
_RUNTIME_SEARCH_BYTES = 4096
#: Up to 3.11 an exported function loads its table's words within its first instructions.
_CODE_BYTES = 160
_DISPLACEMENT = struct.Struct("=i")


class AllocatorFunction(NamedTuple):
    """A function that allocates or frees objects: `call` says which arguments it takes.

    `has_context`: a pointer comes before them, so that malloc's size is the second argument.
    """

    call: str
    address: int
    has_context: bool


def allocator_functions(
    elf: ElfFile,
    image: PythonImage,
    blocks: ResidentBlocks,
    mappings: Sequence[MemoryMapping],
) -> list[AllocatorFunction]:
    """Those of the domains "object" and "mem", each address once; `mappings` are the process's.

    Empty where the interpreter exports none. Before 3.12 the tables are found on x86-64 only.
    """
    own = [mapping for mapping in mappings if mapping.path.decode(errors="replace") == image.path]
    bias = load_bias(elf, own)
    outer: list[AllocatorFunction] = []
    for domain in _DOMAINS:
        for call, name in zip(_CALLS, _EXPORTED):
            symbol = dynamic_symbol(elf, domain + name)
            if symbol is not None:
                outer.append(AllocatorFunction(call, symbol.address + bias, False))
    executable = [(m.start, m.end) for m in mappings if m.executable]
    tables = list(_tables_in_runtime(image, blocks, executable)) or [
        table
        for function in outer
        if function.call == "malloc"
        for table in _tables_of_code(function.address, blocks, executable)
    ]
    inner = {address: call for table in tables for call, address in zip(_CALLS, table)}
    found = [AllocatorFunction(call, address, True) for address, call in inner.items()]
    for function in outer:
        code = blocks.read_now(function.address, _CODE_BYTES)
        if not inner or any(_mentions(code, function.address, address) for address in inner):
            found.append(function)
    return sorted(found, key=lambda function: (_CALLS.index(function.call), function))


def _mentions(code: bytes, start: int, address: int) -> bool:
    """Whether a function compares with the address of an inner one, to run a copy of it instead."""
    if address >> 32 == 0 and struct.pack("=I", address) in code:
        return True
    return any(target == address for target in _targets(code, start))


Table = tuple[int, int, int, int]


def _tables_in_runtime(
    image: PythonImage, blocks: ResidentBlocks, executable: Sequence[tuple[int, int]]
) -> Iterator[Table]:
    """Since 3.12: three tables in a row, for the domains raw, mem and object."""
    size = min(image.runtime_bytes, _RUNTIME_SEARCH_BYTES) // 8 * 8
    content = blocks.read_now(image.runtime, size)
    for at in range(0, len(content) - 3 * _TABLE_BYTES, 8):
        row = [_table(content[at + n * _TABLE_BYTES :], executable) for n in range(3)]
        if row[0] and row[1] and row[2]:
            yield row[1]
            yield row[2]
            return


def _tables_of_code(
    function: int, blocks: ResidentBlocks, executable: Sequence[tuple[int, int]]
) -> Iterator[Table]:
    """Tables that the function's instructions refer to, relative to the instruction pointer.

    The displacement is an instruction's last four bytes, and both the table's context and its
    function are loaded: where two displacements lead to neighbouring words, that is it.
    """
    code = blocks.read_now(function, _CODE_BYTES)
    targets = set(_targets(code, function))
    for target in sorted(targets):
        if target % 8 == 0 and target + 8 in targets:
            table = _table(blocks.read_now(target, _TABLE_BYTES), executable)
            if table is not None:
                yield table


def _targets(code: bytes, start: int) -> Iterator[int]:
    """What any four bytes of it would lead to as a displacement."""
    for at in range(len(code) - 4):
        yield start + at + 4 + _DISPLACEMENT.unpack_from(code, at)[0]


def _table(content: bytes, executable: Sequence[tuple[int, int]]) -> Optional[Table]:
    """The four functions, where these words can be a PyMemAllocatorEx: four different ones."""
    _, *functions = struct.unpack_from("=5Q", content)
    if len(set(functions)) < len(functions):
        return None
    for address in functions:
        if not any(start <= address < end for start, end in executable):
            return None
    malloc, calloc, realloc, free = functions
    return malloc, calloc, realloc, free
