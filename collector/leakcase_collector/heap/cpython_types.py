"""CPython's types, read from outside: what an object is called and how large it is.

The offsets are those of PyTypeObject, the same from 3.8 to 3.14 (Include/cpython/object.h).
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Optional

from .cpython_blocks import ResidentBlocks

#: ob_refcnt, ob_type, ob_size, tp_name, tp_basicsize, tp_itemsize; tp_flags stands at 168.
_HEAD = struct.Struct("=6Q")
_FLAGS_AT, _TYPE_BYTES = 168, 176
_READY, _HAVE_GC, _LONG_SUBCLASS, _TYPE_SUBCLASS = 1 << 12, 1 << 14, 1 << 24, 1 << 31
#: Managed weak references (3.12) and managed dict (3.11): two words before the object.
_PRE_HEADER = 1 << 3 | 1 << 4
_GC_HEAD_BYTES, _PRE_HEADER_BYTES = 16, 16
_SIZE_LIMIT_BYTES = 1 << 24
_NAME_LIMIT_BYTES = 256
_METACLASSES_MAX = 6
_MISSES_MAX = 100_000


class PythonType(NamedTuple):
    """A type: `fixed_bytes` is an object without items, with the `before_bytes` before it:
    PyGC_Head, and since 3.11 two words more for instances whose dict is kept there."""

    name: str
    fixed_bytes: int
    item_bytes: int
    before_bytes: int
    is_metaclass: bool

    @property
    def is_tracked(self) -> bool:
        """Whether its objects can be on the collector's lists."""
        return self.before_bytes > 0


class TypeTable:
    """The types met so far, by address."""

    def __init__(self, blocks: ResidentBlocks, type_type: int) -> None:
        self._blocks = blocks
        self._type_type = type_type
        self._types: dict[int, PythonType] = {}
        self._misses: set[int] = set()

    def find(self, address: int) -> Optional[PythonType]:
        """The type at `address`, or None where there is none."""
        known = self._types.get(address)
        if known is not None or address in self._misses:
            return known
        found = self._read(address)
        if found is not None:
            self._types[address] = found
        elif len(self._misses) < _MISSES_MAX:
            self._misses.add(address)
        return found

    def _read(self, address: int) -> Optional[PythonType]:
        if address % 8 or not address:
            return None
        content = self._blocks.read(address, _TYPE_BYTES)
        _, kind, _, name_at, fixed, item = _HEAD.unpack_from(content)
        flags = struct.unpack_from("=Q", content, _FLAGS_AT)[0]
        if not flags & _READY or not 0 < fixed < _SIZE_LIMIT_BYTES or item >= _SIZE_LIMIT_BYTES:
            return None
        if not self._is_metaclass(kind):
            return None
        name = self._name(name_at)
        if name is None:
            return None
        before = 0
        if flags & _HAVE_GC:
            before = _GC_HEAD_BYTES + _PRE_HEADER_BYTES * bool(flags & _PRE_HEADER)
        if flags & _LONG_SUBCLASS:
            fixed, item = fixed + item, 0  # Its ob_size has a sign or flags; one digit is usual.
        is_metaclass = bool(flags & _TYPE_SUBCLASS)
        return PythonType(name, fixed + before, item, before, is_metaclass)

    def _is_metaclass(self, address: int) -> bool:
        """Whether it is `type` or one of its subclasses, whose own type is such a one again."""
        for _ in range(_METACLASSES_MAX):
            if address == self._type_type:
                return True
            if address % 8 or not address:
                return False
            content = self._blocks.read(address, _TYPE_BYTES)
            flags = struct.unpack_from("=Q", content, _FLAGS_AT)[0]
            if not flags & _TYPE_SUBCLASS or not flags & _READY:
                return False
            address = struct.unpack_from("=Q", content, 8)[0]
        return False

    def _name(self, address: int) -> Optional[str]:
        content, nul, _ = self._blocks.read(address, _NAME_LIMIT_BYTES).partition(b"\0")
        if not nul or not content:
            return None
        try:
            name = content.decode("utf-8")
        except UnicodeDecodeError:
            return None
        return name if name.isprintable() else None
