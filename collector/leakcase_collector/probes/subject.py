"""What the probes that read memory look at: a live process, or what a core file keeps of one."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Optional, Protocol

from leakcase_collector.heap.roots import ThreadState, thread_states
from leakcase_collector.system.door import System
from leakcase_collector.system.files import TargetFile
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import MemoryMapping, parse_mappings
from leakcase_collector.system.modules import (
    MappedModule,
    open_program_file,
    program_files,
    program_inode,
)

if TYPE_CHECKING:
    from leakcase_collector.system.memory import Memory

_SWAPPED = re.compile(r"^VmSwap:\s+(\d+) kB$", re.MULTILINE)


class Subject(Protocol):
    """One address space, and what belongs to it."""

    @property
    def stands_still(self) -> bool:
        """Nothing in it changes any more: one look is as good as two."""
        ...

    def memory(self) -> AbstractContextManager[Memory]:
        """Opened anew. NotPermitted or NotSupported where it may not or cannot be read."""
        ...

    def require_alive(self) -> None:
        """TargetGone where what was read last may be another process's."""
        ...

    def anonymous_pages(self) -> int:
        """Pages that a look at all of its own memory would read, for predictions."""
        ...

    def unread_bytes(self) -> Optional[int]:
        """Of the memory that it could write, what is not looked at; None: not known."""
        ...

    def thread_states(self) -> list[ThreadState]:
        """All threads, with the registers that are told of them."""
        ...

    def mappings(self) -> list[MemoryMapping]:
        """Its mappings; that needs less permission than its memory does."""
        ...

    def program_inode(self) -> Optional[int]:
        """The inode of the program's file, None where it is not known."""
        ...

    def program_files(self) -> list[MappedModule]:
        """The mapped files that are programs or libraries, the program itself first."""
        ...

    def open_program_file(self, module: MappedModule) -> TargetFile:
        """That very file. NotPermitted or NotSupported where it cannot be had."""
        ...


class LiveSubject:
    """A running process."""

    stands_still = False

    def __init__(self, system: System, pid: int, identity: ProcessIdentity) -> None:
        self._system = system
        self._pid = pid
        self._identity = identity

    def memory(self) -> AbstractContextManager[Memory]:
        # Only here: a capture that may not read memory does without what that takes.
        from leakcase_collector.system.memory import ProcessMemory

        return ProcessMemory(self._system, self._identity)

    def require_alive(self) -> None:
        self._identity.require_alive()

    def anonymous_pages(self) -> int:
        statm = self._system.read_bytes(f"/proc/{self._pid}/statm").split()
        return int(statm[1]) - int(statm[2]) if len(statm) > 2 else 0

    def unread_bytes(self) -> Optional[int]:
        """What is in swap, which no probe brings back."""
        found = _SWAPPED.search(self._system.read_text(f"/proc/{self._pid}/status"))
        return None if found is None else int(found.group(1)) * 1024

    def thread_states(self) -> list[ThreadState]:
        return thread_states(self._system, self._pid)

    def mappings(self) -> list[MemoryMapping]:
        return parse_mappings(self._system.read_lines(f"/proc/{self._pid}/maps"))

    def program_inode(self) -> Optional[int]:
        return program_inode(self._system, self._pid)

    def program_files(self) -> list[MappedModule]:
        return program_files(self._system, self._pid)

    def open_program_file(self, module: MappedModule) -> TargetFile:
        is_program = module.inode == self.program_inode()
        return open_program_file(self._system, self._pid, module, is_program)
