"""Whether a process executes the code that its files hold.

A probe is put over whatever lies at its place, and when it is hit the kernel carries out the
instruction that the *file* has there (uprobe_write_opcode and prepare_uprobe in
kernel/events/uprobes.c). Where something has patched the code in memory, as tools that hook
functions do, the target would go on in the midst of the patch; where the code was moved to other
pages, as for huge ones, no probe is ever hit.
"""

from __future__ import annotations

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory

#: A breakpoint of another tracer's stands there for the time being; the kernel knows of its own.
_BREAKPOINT = 0xCC


class MappedCode:
    """The executable mappings of files as they were when this was made.

    NotPermitted where the process's memory may not be read. The caller closes it.
    """

    def __init__(self, system: System, identity: ProcessIdentity) -> None:
        self._memory = ProcessMemory(system, identity)
        self._mappings = [
            mapping for mapping in self._memory.mappings() if mapping.executable and mapping.inode
        ]

    def close(self) -> None:
        self._memory.close()

    def place_of(self, address: int) -> tuple[int, int] | None:
        """The inode of the file that is mapped at an address, and the offset in it."""
        for mapping in self._mappings:
            if mapping.start <= address < mapping.end:
                return mapping.inode, address - mapping.start + mapping.offset
        return None

    def is_unchanged(self, inode: int, offset: int, code: bytes) -> bool:
        """Whether the `code` at that offset of that file is mapped, and wherever it is, intact."""
        is_mapped = False
        for mapping in self._mappings:
            start = mapping.start + offset - mapping.offset
            if mapping.inode != inode or not mapping.start <= start <= mapping.end - len(code):
                continue
            is_mapped = True
            try:
                found = self._memory.read(start, len(code))
            except NotSupported:  # unmapped since
                return False
            if any(one not in (other, _BREAKPOINT) for one, other in zip(found, code)):
                return False
        return is_mapped
