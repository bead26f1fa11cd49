"""Python's objects as blocks: where they are made and freed, what they are, and whether they live.

Most are smaller than what malloc(3) is asked for. Those that the garbage collector tracks are made
by a few exported functions, which compilers do not copy into their callers, and freed by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Optional

from leakcase_collector.errors import NotSupported
from leakcase_collector.heap.cpython_blocks import ResidentBlocks
from leakcase_collector.heap.cpython_runtime import MAKERS_NEEDED, PythonImage
from leakcase_collector.heap.cpython_types import TypeTable
from leakcase_collector.system.elf import ElfError
from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.system.memory import Memory

from .blocks import BlockLook, BlockReader
from .entry_points import EntryPoints
from .fingerprints import Words
from .hazards import switches_stacks
from .labels import PythonType

#: ob_refcnt, of 32 bits since 3.12: 0 in what was freed or lies on a list of free objects.
_COUNT_MASK = 0xFFFFFFFF
#: Where a type has the function that frees its objects (PyTypeObject, Include/cpython/object.h).
_DEALLOC_AT = 48
#: Where a type keeps its flags, and of these: instances keep their attributes in words before the
#: collector's head (3.11), and from 3.13 on also behind their fixed part (Include/object.h).
_FLAGS_AT, _INLINE_VALUES, _MANAGED_DICT = 168, 1 << 2, 1 << 4
_BEFORE_BYTES, _BEFORE_WORDS, _BEHIND_WORDS = 32, 2, 6
#: In a block of malloc's or pymalloc's an object may have the collector's head in front of it,
#: and two words more.
_HEADS = (0, 2, 4)
_COUNT_MAX = 1 << 32


def may_leave_makers(image: PythonImage, paths: Iterable[str]) -> bool:
    """Whether the program may change stacks in the midst of making an object.

    Up to 3.11 the garbage collector runs within the functions that make objects, and with it code
    of the program's: where that may switch to another greenlet, a watched return ends the target.
    From 3.12 on the collector runs between instructions only (Python/ceval_gil.c). `paths`: the
    program's files.
    """
    version = re.match(r"3\.(\d+)", image.version or "")
    collects_inside = version is None or int(version[1]) < 12
    return collects_inside and switches_stacks(paths)


def find_object_points(points: EntryPoints, image: PythonImage, memory: Memory) -> list[EntryPoint]:
    """Where tracked objects are made and freed, kept open by `points` but not among its own; none
    where this interpreter does not export what it takes."""
    if not image.makers or not image.deleter:
        return []
    others, points.points = points.points, []
    try:
        for address in (image.deleter, *_destructors(memory, image)):
            points.add_function("python-free", address)
        for address in image.makers:
            with suppress(ElfError):
                points.add_function("python-new", address)
    except (ElfError, NotSupported):
        return []
    finally:
        found, points.points = points.points, others
    makers = [one for one in found if one.call == "python-new"]
    if all(one.emulated for one in makers[:MAKERS_NEEDED]):
        # These are enough: no other is worth a stop that takes ten times as long. Where they are
        # as dear, the compiler is one that copies them into the others.
        found = [one for one in found if one.emulated or one.call == "python-free"]
    return found


def _destructors(memory: Memory, image: PythonImage) -> Iterator[int]:
    """Of types whose objects are kept for re-use: they are freed by `tp_dealloc`, as it seems to
    the program. Unseen, what the next one does with them would be told of the first."""
    blocks = ResidentBlocks(memory)
    for kind in image.kept_types:
        yield int.from_bytes(blocks.read_now(kind + _DEALLOC_AT, 8), "little")


class ObjectReader(BlockReader):
    """Looks at objects that the collector tracks; a block's address is that of the object."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory, is_glibc=False)
        self._flags: dict[int, int] = {}

    def read(self, address: int, size_bytes: int) -> Optional[BlockLook]:
        """The object, its count of references as 1 or 0, and where its attributes are."""
        look = super().read(address, size_bytes)
        if look is None or len(look.words) < 2:
            return look
        count, kind, *content = look.words
        flags = self._flags_of(kind)
        if flags & _MANAGED_DICT:
            content += self._pages.words(address - _BEFORE_BYTES, _BEFORE_WORDS) or ()
        if flags & _INLINE_VALUES:
            content += self._pages.words(address + size_bytes // 8 * 8, _BEHIND_WORDS) or ()
        return BlockLook((int(count & _COUNT_MASK != 0), kind, *content), 0)

    def is_freed(self, address: int, then: BlockLook, now: BlockLook) -> bool:
        """Whether nothing refers to it, or it is of another type now."""
        return now.words[:1] == (0,) or now.words[1:2] != then.words[1:2]

    def _flags_of(self, kind: int) -> int:
        if kind not in self._flags:
            words = self._pages.words(kind + _FLAGS_AT, 1) if kind % 8 == 0 else None
            self._flags[kind] = words[0] if words else 0
        return self._flags[kind]


def type_names(memory: Memory, image: PythonImage) -> PythonType:
    """Names the type of a block that is, or begins with, an object of Python's."""
    types = TypeTable(ResidentBlocks(memory), image.type_type)

    def name_of(words: Words) -> Optional[str]:
        for at in _HEADS:
            if len(words) >= at + 2 and 0 < words[at] < _COUNT_MAX:
                kind = types.find(words[at + 1])
                if kind is not None:
                    return kind.name
        return None

    return name_of
