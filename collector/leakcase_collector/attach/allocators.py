"""What is asked of each allocator, by which functions, and where its own code is.

Only an allocator in a library of its own is asked: within a program its code cannot be told from
the program's, and so no safe point be proven. What each function takes: malloc_info(3),
open_memstream(3), jemalloc(3), gperftools' malloc_extension_c.h, mimalloc.h.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional

from leakcase_collector.errors import NotSupported
from leakcase_collector.heap.arenas import Place, arena_addresses, find_main_arena
from leakcase_collector.heap.layout import ARENA_LAYOUTS
from leakcase_collector.heap.pages import ResidentPages
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.elf_symbols import dynamic_functions, dynamic_symbol
from leakcase_collector.system.memory import PAGE_BYTES, Memory, MemoryMapping
from leakcase_collector.system.modules import MappedModule

from .machine_code import Call, Look, Slot, SlotAddress, Step, Text
from .safe_point import GLIBC_WAITING_CALLS, WAITING_CALLS, Span, Territory

_MALLOC = re.compile(
    r"(__libc_)?(malloc|free|cfree|calloc|realloc|memalign|valloc|pvalloc|mallinfo2?|mallopt|"
    r"malloc_trim|malloc_stats|malloc_info|malloc_usable_size|aligned_alloc|posix_memalign)"
    r"|__(default_morecore|malloc_\w+|free_hook|\w*_for_realloc)\Z"
)
#: glibc's malloc.c has some 40 KB of code; twice that and more is not what it looks like.
_CODE_LIMIT_BYTES = 160 * 1024
_INT, _FLAG, _WORD = b"\4" + bytes(7), b"\1" + bytes(7), b"\x08" + bytes(7)
_ONE = b"\1" + bytes(7)
#: Arenas of jemalloc that are asked one by one; the sums are of all.
JEMALLOC_ARENAS = 12
_JEMALLOC_TOTALS = ("allocated", "active", "metadata", "resident", "mapped", "retained")
_JEMALLOC_ARENA = ("small.allocated", "large.allocated", "pactive", "pdirty", "pmuzzy", "retained")
_TCMALLOC = (
    "generic.current_allocated_bytes",
    "generic.heap_size",
    "tcmalloc.pageheap_free_bytes",
    "tcmalloc.pageheap_unmapped_bytes",
    "tcmalloc.central_cache_free_bytes",
    "tcmalloc.transfer_cache_free_bytes",
    "tcmalloc.thread_cache_free_bytes",
)
_MIMALLOC = ("elapsed", "user", "system", "rss", "peak_rss", "commit", "peak_commit", "faults")
#: The slots of glibc's: the text's address, its size, the stream, malloc_info's result.
TEXT, TEXT_BYTES, _STREAM, _RESULT = Slot(0), Slot(1), Slot(2), Slot(3)


@dataclass
class Question:
    """What an allocator is asked: the calls, and which slot then holds which figure.

    `figures`: name -> (slot of the value, slot of the function's result, whether 0 means success).
    """

    allocator: str
    steps: list[Step]
    code: tuple[Span, ...]
    foreign_calls: frozenset[int]
    figures: dict[str, tuple[int, int, bool]] = field(default_factory=dict)
    place: Optional[Place] = None
    data: Optional[tuple[Span, ...]] = None

    def territory(self, memory: Memory) -> Territory:
        """With the lock words as they are now: arenas come while the program runs."""
        if self.place is None:
            return Territory(self.code, (), self.foreign_calls, None)
        # An arena's lock is the first word of it (struct malloc_state, all versions).
        arenas = arena_addresses(ResidentPages(memory), self.place)
        own = [(at, at + ARENA_LAYOUTS[0].size_bytes + PAGE_BYTES) for at in arenas]
        return Territory(self.code, tuple(arenas), self.foreign_calls, (*(self.data or ()), *own))


class _Image:
    """A library's file, and where it is mapped."""

    def __init__(
        self, elf: ElfFile, module: MappedModule, mappings: Sequence[MemoryMapping]
    ) -> None:
        self.elf = elf
        self._bias = (
            module.lowest_address - (elf.lowest_load_address or 0) // PAGE_BYTES * PAGE_BYTES
        )
        own = [one for one in mappings if one.inode == module.inode and one.path]
        self.code = tuple((one.start, one.end) for one in own if one.executable)
        self.data = tuple((one.start, one.end + (1 << 16)) for one in own if one.writable)

    def address(self, *names: str) -> int:
        """Of the first of these functions that it defines; NotSupported where it has none."""
        for name in names:
            symbol = dynamic_symbol(self.elf, name)
            if symbol is not None and symbol.address:
                return self._bias + symbol.address
        raise NotSupported(
            f"the allocator cannot be asked: it has no function {names[0]}. "
            "Its settings and its own profiler still can be used."
        )

    def at(self, address: int) -> int:
        return self._bias + address


def question_for(
    kind: str,
    elf: ElfFile,
    module: MappedModule,
    memory: Memory,
    mappings: Sequence[MemoryMapping],
) -> Question:
    """What to ask the allocator of `kind` in this library; NotSupported where it cannot be."""
    image = _Image(elf, module, mappings)
    if not image.code:
        raise NotSupported("the allocator's code is not mapped as its file has it.")
    if kind == "glibc":
        return _glibc(image, memory, mappings)
    if kind == "jemalloc":
        return _jemalloc(image)
    if kind == "tcmalloc":
        return _tcmalloc(image)
    if kind == "mimalloc":
        return _mimalloc(image)
    raise NotSupported(
        f"the allocator ({kind}) has no function that tells what it holds. Do without this source."
    )


def _glibc(image: _Image, memory: Memory, mappings: Sequence[MemoryMapping]) -> Question:
    # A stream in memory: it takes no lock but its own, and no descriptor.
    stream = (_STREAM,)
    steps: list[Step] = [
        Call(
            image.address("open_memstream"),
            (SlotAddress(TEXT.number), SlotAddress(TEXT_BYTES.number)),
            _STREAM,
            ends_if_zero=True,
        ),
        Call(image.address("malloc_info"), (0, _STREAM), _RESULT),
        Call(image.address("fflush"), stream),
        Look(),
        Call(image.address("fclose"), stream),
        Call(image.address("free"), (TEXT,)),
    ]
    place = find_main_arena(memory, mappings)
    span = malloc_code(image.elf)
    code = ((image.at(span[0]), image.at(span[1])),)
    return Question("glibc", steps, code, GLIBC_WAITING_CALLS, {}, place, image.data)


def malloc_code(elf: ElfFile) -> Span:
    """Where malloc.o is within libc: from the last foreign function before it to the next after it.

    One object file is one stretch of code; its own static functions lie between the exported ones
    and on both sides of them.
    """
    functions = dynamic_functions(elf)
    own = [index for index, (_, name) in enumerate(functions) if _MALLOC.match(name)]
    start_of = {name: address for address, name in functions}
    middle = start_of.get("malloc", 0)
    first = last = next((i for i in own if functions[i][0] == middle), None)
    if first is None or last is None:
        raise NotSupported("the C library has no malloc that could be told from the rest of it.")
    while first > 0 and _MALLOC.match(functions[first - 1][1]):
        first -= 1
    while last + 1 < len(functions) and _MALLOC.match(functions[last + 1][1]):
        last += 1
    if first == 0 or last + 1 == len(functions):
        raise NotSupported("the C library's malloc is not where it should be.")
    span = functions[first - 1][0] + 1, functions[last + 1][0]
    if span[1] - span[0] > _CODE_LIMIT_BYTES or "malloc_info" not in {
        name for _, name in functions[first : last + 1]
    }:
        raise NotSupported("the C library's malloc is not as it is known to be.")
    return span


def _jemalloc(image: _Image) -> Question:
    mallctl = image.address("mallctl", "je_mallctl", "_rjem_mallctl")
    names = [(f"stats.{name}", _WORD) for name in _JEMALLOC_TOTALS]
    names += [("config.stats", _FLAG), ("config.prof", _FLAG), ("opt.prof", _FLAG)]
    names += [("arenas.narenas", _INT), ("arenas.page", _WORD)]
    names += [
        (f"stats.arenas.{number}.{name}", _WORD)
        for number in range(JEMALLOC_ARENAS)
        for name in _JEMALLOC_ARENA
    ]
    # Figures are as of the last epoch (jemalloc(3), "epoch").
    steps: list[Step] = [Call(mallctl, (Text(b"epoch"), 0, 0, Text(_ONE), 8))]
    figures = {}
    for index, (name, size) in enumerate(names):
        value, result = 2 * index, 2 * index + 1
        arguments = (Text(name.encode()), SlotAddress(value), Text(size), 0, 0)
        steps.append(Call(mallctl, arguments, Slot(result)))
        figures[name] = (value, result, True)
    return Question("jemalloc", [*steps, Look()], image.code, WAITING_CALLS, figures)


def _tcmalloc(image: _Image) -> Question:
    function = image.address("MallocExtension_GetNumericProperty")
    steps: list[Step] = []
    figures = {}
    for index, name in enumerate(_TCMALLOC):
        value, result = 2 * index, 2 * index + 1
        steps.append(Call(function, (Text(name.encode()), SlotAddress(value)), Slot(result)))
        figures[name] = (value, result, False)
    return Question("tcmalloc", [*steps, Look()], image.code, WAITING_CALLS, figures)


def _mimalloc(image: _Image) -> Question:
    slots = tuple(SlotAddress(index) for index in range(len(_MIMALLOC)))
    steps: list[Step] = [Call(image.address("mi_process_info"), slots), Look()]
    result = len(_MIMALLOC)  # a slot that nothing writes: 0, success
    figures = {name: (index, result, True) for index, name in enumerate(_MIMALLOC)}
    return Question("mimalloc", steps, image.code, WAITING_CALLS, figures)
