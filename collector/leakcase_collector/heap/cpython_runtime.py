"""Where in a process CPython is: the exported symbols, the interpreter, the collector's lists.

Only symbols that extension modules link against are used, `_PyRuntime` and some types, so that
stripped programs have them too. The rest is found by its shape, which 3.8 to 3.13 share; what
has another shape is refused, never guessed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, Optional

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.elf import PF_X, PT_LOAD, ElfError, ElfFile
from leakcase_collector.system.elf_symbols import dynamic_symbol
from leakcase_collector.system.memory import MemoryMapping

from .cpython_blocks import ResidentBlocks

#: `_PyRuntime` has 1.4 KB in 3.8 and 460 KB in 3.12.
_RUNTIME_LIMIT_BYTES = 8 << 20
#: An interpreter that is not embedded in the runtime (3.9, 3.10) has its collector 640 bytes in.
_INTERPRETER_SEARCH_BYTES = 64 << 10
#: The collector of an embedded interpreter (3.11 and later) lies within its first 8 KB.
_INTERPRETER_LIMIT_BYTES = 64 << 10
_INTERPRETERS_MAX = 1 << 20
#: Begins _Py_DebugOffsets, itself the beginning of _PyRuntime since 3.13; then come PY_VERSION_HEX
#: and whether the build is free-threaded (Include/internal/pycore_debug_offsets.h).
_COOKIE = b"xdebugpy"
_LAST_VERSION = 0x030D

#: struct gc_generation since 3.8: list head (next, previous), threshold, count.
GENERATION_BYTES = 24
#: From generations[0] on: three generations, a pointer to the first, the permanent one, and
#: for each generation how many collections there were and two more figures.
_SELF_POINTER, PERMANENT, _STATISTICS, _COLLECTING = 72, 80, 104, 176
_STATE_BYTES = 184


#: What makes tracked objects (Include/objimpl.h): memory of any type, and three whose freed objects
#: are kept for the next one, so that it is theirs to say who has it.
_MAKERS = (
    "_PyObject_GC_New", "_PyObject_GC_NewVar", "PyType_GenericAlloc",
    "PyList_New", "PyTuple_New", "PyDict_New",
)  # fmt: skip
_MAKERS_NEEDED = 3
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

    @property
    def heads(self) -> tuple[int, int, int, int]:
        """The heads of the lists: permanent, then oldest to youngest."""
        first = self.generations
        return (
            first + PERMANENT,
            first + 2 * GENERATION_BYTES,
            first + GENERATION_BYTES,
            first,
        )

    def collections(self, blocks: ResidentBlocks) -> tuple[int, int, int]:
        """How many collections of each generation there were, as of now."""
        content = blocks.read_now(self.generations + _STATISTICS, 72)
        numbers = struct.unpack("=9Q", content)
        return numbers[0], numbers[3], numbers[6]

    def is_collecting(self, blocks: ResidentBlocks) -> bool:
        """Whether a collection is under way, in which the lists are taken apart."""
        return blocks.read_now(self.generations + _COLLECTING, 4) != b"\0\0\0\0"


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
        # The first make most kinds: without one of them the books would be false.
        makers=tuple(filter(None, makers)) if all(makers[:_MAKERS_NEEDED]) else (),
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
    _refuse_newer(content)
    words = _words(content)
    found = _collectors(image.runtime, words)
    if len(words) < 512 and len(found) == 1:
        return found[0]  # 3.8: one collector for all interpreters, in the runtime itself.
    main = _only_interpreter(image.runtime, words)
    if main is None:
        raise _refusal(
            "it is not running yet or any more, it has sub-interpreters, or it is a version that "
            "is not known"
        )
    if image.runtime <= main < image.runtime + image.runtime_bytes:
        found = [c for c in found if 0 < c.generations - main < _INTERPRETER_LIMIT_BYTES]
    else:
        found = _collectors(main, _words(blocks.read_now(main, _INTERPRETER_SEARCH_BYTES)))[:1]
    if len(found) != 1:
        raise _refusal("its garbage collector is not of a known shape")
    return found[0]


def _refusal(why: str) -> NotSupported:
    return NotSupported(
        f"cannot count the objects of the Python interpreter: {why}. CPython 3.8 to 3.13 with one "
        "interpreter is covered; the rest of the capture is not affected."
    )


def _refuse_newer(content: bytes) -> None:
    if content[:8] != _COOKIE:
        return
    version, is_free_threaded = struct.unpack_from("=QQ", content, 8)
    if is_free_threaded:
        raise _refusal("it is a free-threaded build, which keeps no lists of objects")
    if version >> 16 > _LAST_VERSION:
        raise _refusal(f"it is version {version >> 24 & 0xFF}.{version >> 16 & 0xFF}")


def _words(content: bytes) -> memoryview:
    return memoryview(content).cast("Q")


def _collectors(start: int, words: memoryview) -> list[Collector]:
    """Where in these words, which lie at `start`, the state of a collector begins."""
    found = []
    for index in range(len(words) - _STATE_BYTES // 8):
        address = start + 8 * index
        if words[index + _SELF_POINTER // 8] == address and _is_collector(address, words[index:]):
            found.append(Collector(address))
    return found


def _is_collector(address: int, words: memoryview) -> bool:
    """Each list is empty, and then both links are its own, or has two pointers."""
    for offset in (0, GENERATION_BYTES, 2 * GENERATION_BYTES, PERMANENT):
        head = address + offset
        following, previous, limits = words[offset // 8 : offset // 8 + 3]
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
