"""Targets that are packed by hand."""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.memory import PAGE_BYTES, Memory, MemoryMapping
from leakcase_collector.system.modules import MappedModule
from leakcase_collector.unwind.call_frames import PT_GNU_EH_FRAME
from tests.collector.system.elf_builder import BytesReader

BASE = 0x7F0000000000


class OpenFile(BytesReader):
    """A file in memory that can be closed, and can be cut off while it is read."""

    reads_left = 1 << 30

    def read_at(self, offset: int, size: int) -> bytes:
        self.reads_left -= 1
        return super().read_at(offset, size if self.reads_left > 0 else size // 2)

    def close(self) -> None:
        """Nothing is held."""


class OneFile:
    """A target that has this content mapped at `base`, and what is added to `others`."""

    pointer_bytes = 8

    def __init__(self, content: bytes, base: int = BASE, reads: int = 1 << 30) -> None:
        self._content = content
        self._reads = reads
        self._base = base
        self.others: list[MemoryMapping] = []

    def mappings(self) -> list[MemoryMapping]:
        end = self._base + -(-len(self._content) // PAGE_BYTES) * PAGE_BYTES
        one = MemoryMapping(self._base, end, True, False, True, True, 0, b"8:1", 7, b"/lib/one.so")
        return sorted([one, *self.others])

    def program_files(self) -> list[MappedModule]:
        end = self._base + len(self._content)
        return [MappedModule("/lib/one.so", 7, self._base, end, self._base, False)]

    def open_program_file(self, module: MappedModule) -> OpenFile:
        file = OpenFile(self._content)
        file.reads_left = self._reads
        return file

    def memory(self) -> AbstractContextManager[Memory]:
        raise NotSupported("there is no memory")


def code_made_at_run_time(start: int) -> MemoryMapping:
    """A page as a just-in-time compiler maps it."""
    return MemoryMapping(start, start + PAGE_BYTES, True, False, True, True, 0, b"0", 0, b"")


def without_index(content: bytes) -> bytes:
    """The file with its program header PT_GNU_EH_FRAME made PT_NULL (ELF64: e_phoff at 32)."""
    changed = bytearray(content)
    (table,) = struct.unpack_from("<Q", content, 32)
    for index in range(struct.unpack_from("<H", content, 56)[0]):
        at = table + 56 * index
        if struct.unpack_from("<I", content, at)[0] == PT_GNU_EH_FRAME:
            struct.pack_into("<I", changed, at, 0)
    assert changed != content
    return bytes(changed)
