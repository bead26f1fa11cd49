"""Where in a process CPython is: the exported symbols, the interpreter, the collector's lists.

Only symbols that extension modules link against are used, `_PyRuntime` and some types, so that
stripped programs have them too. The rest is found by what the interpreter says of itself (3.13 and
later: `cpython_offsets`) or by its shape, which 3.8 to 3.12 share; what has another shape is
refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.elf import PF_X, PT_LOAD, ElfError, ElfFile
from leakcase_collector.system.elf_symbols import dynamic_symbol
from leakcase_collector.system.memory import MemoryMapping

from .cpython_blocks import ResidentBlocks
from .cpython_offsets import OFFSETS_BYTES, PublishedOffsets, published_offsets

#: `_PyRuntime` has 1.4 KB in 3.8 and 460 KB in 3.12.
_RUNTIME_LIMIT_BYTES = 8 << 20
#: An interpreter that is not embedded in the runtime (3.9, 3.10) has its collector 640 bytes in.
_INTERPRETER_SEARCH_BYTES = 64 << 10
#: The collector of an embedded interpreter (3.11 and later) lies within its first 8 KB.
_INTERPRETER_LIMIT_BYTES = 64 << 10
_INTERPRETERS_MAX = 1 << 20
#: struct gc_generation since 3.8: list head (next, previous), threshold, count.
GENERATION_BYTES = 24
#: From generations[0] on: three generations, a pointer to the first, the permanent one, for each
#: generation how many collections there were and two more figures, and whether one is under way.
_SELF_POINTER, _PERMANENT, _STATE_BYTES = 72, 80, 184
#: From the permanent one on.
_STATISTICS, _COLLECTING = 24, 96
_STATISTICS_BYTES = 72
#: Where generations[0] is in the published structure of 3.13 and later. In 3.14 the pointer to it
#: stands at the end, and releases up to 3.14.4 have in its place, behind another number, which of
#: the two old lists is which: they collect a part of these at a time (pycore_interp_structs.h).
_GENERATIONS = 24
_PROGRESS_BYTES = 16
_PERMANENTS = (72, _PERMANENT)

_NOT_ONE = (
    "it is not running yet or any more, it has sub-interpreters, or it is a version that is not "
    "known"
)
_NO_SHAPE = "its garbage collector is not of a known shape"


#: What makes tracked objects (Include/objimpl.h): memory of any type, and three whose freed objects
#: are kept for the next one, so that it is theirs to say who has it.
_MAKERS = (
    "_PyObject_GC_New", "_PyObject_GC_NewVar", "PyType_GenericAlloc",
    "PyList_New", "PyTuple_New", "PyDict_New",
)  # fmt: skip
#: The first of these make most kinds: without one of them the books would be false.
MAKERS_NEEDED = 3
_DELETER = "PyObject_GC_Del"
_KEPT_TYPES = ("PyList_Type", "PyTuple_Type", "PyDict_Type")


class PythonImage(NamedTuple):
    """Addresses in the target of what the interpreter's file exports; version as it says itself."""

    path: str
    runtime: int
    runtime_bytes: int
    type_type: int
    version: Optional[str]
    #: The types of code objects, strings and bytes; 0 where they are not exported.
    code_type: int = 0
    text_type: int = 0
    bytes_type: int = 0
    #: Functions that make objects which the collector tracks, and the one that frees them.
    makers: tuple[int, ...] = ()
    deleter: int = 0
    #: Types of which objects that are not needed any more are kept for the next one that is.
    kept_types: tuple[int, ...] = ()


class Collector(NamedTuple):
    """The garbage collector's state: `generations` is the address of generations[0]."""

    generations: int
    #: From there to the permanent generation.
    permanent: int = _PERMANENT
    #: Where an incremental collector keeps its progress; None where there is none such.
    progress: Optional[int] = None

    @property
    def heads(self) -> tuple[int, int, int, int]:
        """The heads of the lists: permanent, then oldest to youngest."""
        first = self.generations
        return (
            first + self.permanent,
            first + 2 * GENERATION_BYTES,
            first + GENERATION_BYTES,
            first,
        )

    @property
    def link_mask(self) -> int:
        """Which bits of a link are the address: the others of an incremental collector are flags,
        all others have such only while they are at work."""
        return -1 if self.progress is None else -4

    def moves(self, blocks: ResidentBlocks) -> bytes:
        """Changes whenever objects were moved from list to list. Read now."""
        content = blocks.read_now(self._statistics, _STATISTICS_BYTES)
        if self.progress is not None:
            content += blocks.read_now(self.progress, _PROGRESS_BYTES)
        return content

    def upheavals(self, blocks: ResidentBlocks) -> bytes:
        """Changes whenever the oldest list may have been taken apart. Read now."""
        moves = self.moves(blocks)
        return moves[48:56] if self.progress is None else moves

    def is_collecting(self, blocks: ResidentBlocks) -> bool:
        """Whether a collection is under way, in which the lists are taken apart."""
        at = self.generations + self.permanent + _COLLECTING
        return blocks.read_now(at, 4) != b"\0\0\0\0"

    @property
    def _statistics(self) -> int:
        return self.generations + self.permanent + _STATISTICS


def python_image(
    elf: ElfFile, path: str, mappings: Sequence[MemoryMapping], version: Optional[str]
) -> Optional[PythonImage]:
    """The interpreter in this file, whose mappings are given; None where it holds none."""
    runtime = dynamic_symbol(elf, "_PyRuntime")
    type_type = dynamic_symbol(elf, "PyType_Type")
    if runtime is None or type_type is None:
        return None
    bias = load_bias(elf, mappings)

    def address_of(name: str) -> int:
        symbol = dynamic_symbol(elf, name)
        return 0 if symbol is None else symbol.address + bias

    makers = [address_of(name) for name in _MAKERS]
    return PythonImage(
        path,
        runtime.address + bias,
        runtime.size_bytes,
        type_type.address + bias,
        version,
        code_type=address_of("PyCode_Type"),
        text_type=address_of("PyUnicode_Type"),
        bytes_type=address_of("PyBytes_Type"),
        makers=tuple(filter(None, makers)) if all(makers[:MAKERS_NEEDED]) else (),
        deleter=address_of(_DELETER),
        kept_types=tuple(filter(None, map(address_of, _KEPT_TYPES))),
    )


def load_bias(elf: ElfFile, mappings: Sequence[MemoryMapping]) -> int:
    """What the loader added to the file's addresses. ElfError where no mapping is its code."""
    for segment in elf.segments:
        if segment.kind != PT_LOAD or not segment.flags & PF_X:
            continue
        for mapping in mappings:
            inside = 0 <= mapping.offset - segment.offset // 4096 * 4096 < segment.file_bytes + 4096
            if mapping.executable and inside:
                return mapping.start - mapping.offset - (segment.address - segment.offset)
    raise ElfError("none of its mappings holds its code")


def find_collector(image: PythonImage, blocks: ResidentBlocks) -> Collector:
    """The one interpreter's collector. NotSupported where there is none or more than one."""
    if not 0 < image.runtime_bytes <= _RUNTIME_LIMIT_BYTES:
        raise _refusal("its runtime state has an impossible size")
    content = blocks.read_now(image.runtime, image.runtime_bytes // 8 * 8)
    words = _words(content)
    published = published_offsets(content[:OFFSETS_BYTES], _refusal)
    if published is not None:
        return _published(published, words, blocks)
    found = _collectors(image.runtime, words)
    if len(words) < 512 and len(found) == 1:
        return found[0]  # 3.8: one collector for all interpreters, in the runtime itself.
    main = _only_interpreter(image.runtime, words)
    if main is None:
        raise _refusal(_NOT_ONE)
    if image.runtime <= main < image.runtime + image.runtime_bytes:
        found = [c for c in found if 0 < c.generations - main < _INTERPRETER_LIMIT_BYTES]
    else:
        found = _collectors(main, _words(blocks.read_now(main, _INTERPRETER_SEARCH_BYTES)))[:1]
    if len(found) != 1:
        raise _refusal(_NO_SHAPE)
    return found[0]


def _published(offsets: PublishedOffsets, runtime: memoryview, blocks: ResidentBlocks) -> Collector:
    """The collector of the one interpreter, from where it is said to be."""
    index = offsets.runtime_interpreters // 8
    first, main, next_number = (*runtime[index : index + 3], 0, 0, 0)[:3]
    if first != main or not main or main % 8 or not 0 < next_number < _INTERPRETERS_MAX:
        raise _refusal(_NOT_ONE)
    start = main + offsets.interpreter_collector
    generations = start + _GENERATIONS
    permanent = offsets.collector_collecting - _COLLECTING - _GENERATIONS
    last = start + offsets.collector_bytes - 8
    is_incremental = permanent < _PERMANENT and _word(blocks, last) != generations
    found = Collector(generations, permanent, last - 8 if is_incremental else None)
    content = blocks.read_now(generations, _STATE_BYTES)
    if permanent not in _PERMANENTS or not _is_collector(found, _words(content)):
        raise _refusal(_NO_SHAPE)
    return found


def _word(blocks: ResidentBlocks, address: int) -> int:
    return int.from_bytes(blocks.read_now(address, 8), "little")


def _refusal(why: str) -> NotSupported:
    return NotSupported(
        f"cannot count the objects of the Python interpreter: {why}. CPython 3.8 to 3.14 with one "
        "interpreter and a global lock is covered; the rest of the capture is not affected."
    )


def _words(content: bytes) -> memoryview:
    return memoryview(content).cast("Q")


def _collectors(start: int, words: memoryview) -> list[Collector]:
    """Where in these words, which lie at `start`, the state of a collector begins."""
    found = []
    for index in range(len(words) - _STATE_BYTES // 8):
        address = start + 8 * index
        collector = Collector(address)
        is_one = words[index + _SELF_POINTER // 8] == address
        if is_one and _is_collector(collector, words[index:]):
            found.append(collector)
    return found


def _is_collector(collector: Collector, words: memoryview) -> bool:
    """Each list is empty, and then both links are its own, or has two pointers. `words`: from
    generations[0] on."""
    for head in collector.heads:
        index = (head - collector.generations) // 8
        following, previous, limits = words[index : index + 3]
        if (following == head) != (previous == head):
            return False
        if following % 8 or previous % 8 or not following or not previous:
            return False
        if limits >> 63 or limits & 0x80000000:  # threshold and count, two ints
            return False
    return True


def _only_interpreter(start: int, words: memoryview) -> Optional[int]:
    """The main interpreter, where it is the only one: struct pyinterpreters has the first and the
    main one side by side, then the number that the next will get."""
    for index in range(min(len(words) - 2, 256)):
        first, main, next_number = words[index : index + 3]
        is_pointer = first % 8 == 0 and first > 4096 and first != start + 8 * index
        if first == main and is_pointer and 0 < next_number < _INTERPRETERS_MAX:
            return int(main)
    return None
