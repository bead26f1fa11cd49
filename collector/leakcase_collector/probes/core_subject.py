"""What the probes that read memory look at after the end: a core file."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Optional

from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.heap.roots import ThreadState
from leakcase_collector.system.core_file import AT_ENTRY, CoreFile
from leakcase_collector.system.core_memory import CoreMemory
from leakcase_collector.system.door import System
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.files import TargetFile
from leakcase_collector.system.memory import PAGE_BYTES, MemoryMapping
from leakcase_collector.system.modules import MappedModule
from leakcase_collector.system.os_errors import printable

_DELETED = b" (deleted)"
_MAGIC = b"\x7fELF"
#: e_shoff of an ELF64 header: section headers are never mapped.
_SECTIONS_AT = slice(40, 48)


class CoreSubject:
    """The process that a core file was written of."""

    stands_still = True

    def __init__(self, system: System, core: CoreFile) -> None:
        self.core = core
        self._system = system
        self._memory = CoreMemory(core)
        self._mappings = self._memory.mappings()
        self._files = self._files_at_hand()
        self._memory.fill(self._files)

    def _files_at_hand(self) -> dict[int, TargetFile]:
        files = {}
        for module in self.program_files():
            with suppress(NotPermitted, NotSupported):
                files[module.inode] = self.open_program_file(module)
        return files

    def close(self) -> None:
        """Close the files that were mapped; the core file is its opener's."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> CoreSubject:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def memory(self) -> CoreMemory:
        return self._memory

    def require_alive(self) -> None:
        """Nothing to fear: a core file stays what it is."""

    def anonymous_pages(self) -> int:
        return self._memory.writable_bytes // PAGE_BYTES

    def unread_bytes(self) -> Optional[int]:
        """What the core left out; what was in swap is in it."""
        return self._memory.left_out_bytes

    def thread_states(self) -> list[ThreadState]:
        return [ThreadState(thread.stack_pointer, thread.registers) for thread in self.core.threads]

    def mappings(self) -> list[MemoryMapping]:
        return self._mappings

    def program_inode(self) -> Optional[int]:
        """Of the file in which the program's entry point lies (AT_ENTRY of getauxval(3))."""
        entry = self.core.auxiliary.get(AT_ENTRY, 0)
        for mapping in self._mappings:
            if mapping.start <= entry < mapping.end and mapping.path.startswith(b"/"):
                return mapping.inode
        return None

    @property
    def program_path(self) -> Optional[str]:
        """As the process itself named it; None where it is not known."""
        inode = self.program_inode()
        found = [module.path for module in self.program_files() if module.inode == inode]
        return found[0] if inode is not None and found else None

    def program_files(self) -> list[MappedModule]:
        """The mapped files that begin as ELF files do; the program's own first.

        As a core keeps the first page of each (coredump_filter, bit 4). Without it a file is taken
        for none: there would be nothing to know the right one by.
        """
        program = self.program_inode()
        found = [
            self._module(mapping)
            for mapping in self._mappings
            if mapping.path.startswith(b"/")
            and not mapping.offset
            and self._begins_with_elf(mapping)
        ]
        by_inode = {module.inode: module for module in reversed(found)}
        return sorted(by_inode.values(), key=lambda one: (one.inode != program, one.lowest_address))

    def _begins_with_elf(self, mapping: MemoryMapping) -> bool:
        start = bytearray(len(_MAGIC))
        self._memory.read_into(mapping.start, memoryview(start))
        return bytes(start) == _MAGIC

    def _module(self, mapping: MemoryMapping) -> MappedModule:
        is_deleted = mapping.path.endswith(_DELETED)
        path = mapping.path[: -len(_DELETED)] if is_deleted else mapping.path
        return MappedModule(
            path.decode("utf-8", "surrogateescape"),
            mapping.inode,
            mapping.start,
            mapping.end,
            mapping.start,
            is_deleted,
        )

    def open_program_file(self, module: MappedModule) -> TargetFile:
        """The file of that path here, if it has the build-id that the core tells of its image."""
        wanted = self._build_id(module)
        file = self._system.open_target_file(os.getpid(), module.path)
        if wanted is not None and ElfFile(file).build_id == wanted:
            return file
        file.close()
        cause = "the core file tells no build-id of it" if wanted is None else "it is another build"
        raise NotSupported(
            f"cannot take {printable(module.path)} for the file that was mapped: {cause}. Read the "
            "core file on the host that it was written on."
        )

    def _build_id(self, module: MappedModule) -> Optional[str]:
        return ElfFile(_Image(self._memory, module)).build_id


class _Image:
    """A mapped file's first mapping, read as if it were the file: headers and notes are there."""

    def __init__(self, memory: CoreMemory, module: MappedModule) -> None:
        self._memory = memory
        self._start = module.start
        self.size_bytes = module.end - module.start

    def read_at(self, offset: int, size: int) -> bytes:
        content = bytearray(self._memory.read(self._start + offset, size))
        if not offset:
            hidden = range(len(content))[_SECTIONS_AT]
            content[_SECTIONS_AT] = bytes(len(hidden))
        elif offset < _SECTIONS_AT.stop:
            # The rest of the header, which ElfFile reads behind the 16 bytes of e_ident.
            content[_SECTIONS_AT.start - offset : _SECTIONS_AT.stop - offset] = bytes(8)
        return bytes(content)
