"""Which code an address of the target belongs to: a file, the vdso, or code made at run time.

Where a file is mapped follows from its PT_LOAD segments (elf(5)), for a non-PIE program too, which
lies where it was linked to. Files are opened when the first stack goes through them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple, Optional, Protocol

from leakcase_collector.errors import CollectorError
from leakcase_collector.system.elf import PF_X, PT_LOAD, ElfError, ElfFile, Segment
from leakcase_collector.system.files import TargetFile
from leakcase_collector.system.memory import PAGE_BYTES, Memory, MemoryMapping
from leakcase_collector.system.modules import MappedModule
from leakcase_collector.unwind.call_frames import CallFrames

_VDSO = b"[vdso]"
_VDSO_LIMIT_BYTES = 1 << 20
_DELETED = b" (deleted)"
#: Mappings of the kernel's own, whose code is never in the middle of a stack.
_OF_THE_KERNEL = (b"[uprobes]", b"[vsyscall]", b"[vvar")


class Target(Protocol):
    """A process or a core file; `probes.subject` has both."""

    def mappings(self) -> list[MemoryMapping]: ...

    def program_files(self) -> list[MappedModule]: ...

    def open_program_file(self, module: MappedModule) -> TargetFile: ...

    def memory(self) -> AbstractContextManager[Memory]: ...


class CodeModule:
    """A file with code that is mapped, or the vdso. `elf` is None where it cannot be read."""

    def __init__(self, path: str, inode: int, is_deleted: bool) -> None:
        self.path = path
        self.inode = inode
        self.is_deleted = is_deleted
        self.elf: Optional[ElfFile] = None
        self.frames: Optional[CallFrames] = None
        self._file: Optional[TargetFile] = None
        self._loads: list[Segment] = []
        self._is_open = False

    @property
    def build_id(self) -> Optional[str]:
        """In hex; None where the file has none, or is damaged."""
        with suppress(CollectorError):
            return None if self.elf is None else self.elf.build_id
        return None

    def open(self, target: Target, mapping: MemoryMapping, files: Sequence[MappedModule]) -> None:
        """Read the file's headers, once. Where that fails it stays unreadable."""
        if self._is_open:
            return
        self._is_open = True
        with suppress(CollectorError):
            elf = self._read(target, mapping, files)
            loads = [segment for segment in elf.segments if segment.kind == PT_LOAD]
            # Two segments may share a page of the file: code is in the executable one.
            self._loads = sorted(loads, key=lambda one: not one.flags & PF_X)
            self.elf = elf
            self.frames = CallFrames(elf)

    def _read(
        self, target: Target, mapping: MemoryMapping, files: Sequence[MappedModule]
    ) -> ElfFile:
        if mapping.path == _VDSO:
            with target.memory() as memory:
                size = min(mapping.end - mapping.start, _VDSO_LIMIT_BYTES)
                return ElfFile(_Image(memory.read(mapping.start, size)))
        for module in files:
            if (module.inode, module.path) == (self.inode, self.path):
                self._file = target.open_program_file(module)
                return ElfFile(self._file)
        raise ElfError("it is not mapped any more")

    def address_of(self, offset: int) -> Optional[int]:
        """The address, as the file counts, of a byte in it; None where no segment holds it."""
        for segment in self._loads:
            low = segment.offset // PAGE_BYTES * PAGE_BYTES
            if low <= offset < segment.offset + segment.file_bytes:
                return offset - segment.offset + segment.address
        return None

    def code_at(self, address: int, size: int) -> bytes:
        """Bytes of the file by its own address; none where they cannot be had."""
        if self.elf is not None:
            with suppress(CollectorError):
                return self.elf.read(self.elf.offset_of(address), size)
        return b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self.elf = self.frames = None


class Place(NamedTuple):
    """Where an address lies: in a module, at that address of the file's own; or in neither."""

    module: Optional[CodeModule]
    address: Optional[int]


class _Image:
    """Bytes that were read, as a file."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]


class CodeModules:
    """All that the target has mapped as code. Keeps the files that were needed open: close it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._modules: dict[tuple[int, bytes], CodeModule] = {}
        self._mappings: list[MemoryMapping] = []
        self._starts: list[int] = []
        self._files: list[MappedModule] = []
        self.refresh()

    def refresh(self) -> bool:
        """Read the mappings again; True if those of code changed, by dlopen(3) or a compiler."""
        mappings = [one for one in _named_again(self._target.mappings()) if _is_code(one)]
        if mappings == self._mappings:
            return False
        self._mappings = mappings
        self._starts = [mapping.start for mapping in mappings]
        self._files = self._target.program_files()
        return True

    def executable_ranges(self) -> list[tuple[int, int]]:
        """[start, end) of all code, ascending; neighbours are one."""
        ranges: list[tuple[int, int]] = []
        for mapping in self._mappings:
            if ranges and ranges[-1][1] == mapping.start:
                ranges[-1] = (ranges[-1][0], mapping.end)
            else:
                ranges.append((mapping.start, mapping.end))
        return ranges

    def place(self, address: int) -> Optional[Place]:
        """Where `address` lies; None if in no code. Without a module: made at run time."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._mappings[index].end:
            return None
        mapping = self._mappings[index]
        module = self._module(index)
        if module is None:
            return Place(None, None)
        module.open(self._target, mapping, self._files)
        start = module.address_of(mapping.offset)
        if mapping.path == _VDSO and module.elf is not None:
            start = module.elf.lowest_load_address
        return Place(module, None if start is None else start + address - mapping.start)

    def _module(self, index: int) -> Optional[CodeModule]:
        mapping = self._mappings[index]
        key = (mapping.inode, mapping.path)
        if key not in self._modules:
            found = self._named(mapping)
            if found is None:
                return None
            self._modules[key] = found
        return self._modules[key]

    def _named(self, mapping: MemoryMapping) -> Optional[CodeModule]:
        if mapping.path == _VDSO:
            return CodeModule("[vdso]", 0, False)
        is_deleted = mapping.path.endswith(_DELETED)
        path = mapping.path[: -len(_DELETED)] if is_deleted else mapping.path
        name = path.decode("utf-8", "surrogateescape")
        for module in self._files:
            # The target's root, where it has one of its own, is cut from a module's path.
            if module.inode == mapping.inode and name.endswith(module.path):
                return CodeModule(module.path, module.inode, is_deleted)
        return None

    def close(self) -> None:
        for module in self._modules.values():
            module.close()
        self._modules.clear()

    def __enter__(self) -> CodeModules:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def _is_code(mapping: MemoryMapping) -> bool:
    return mapping.executable and not mapping.path.startswith(_OF_THE_KERNEL)


def _named_again(mappings: Sequence[MemoryMapping]) -> list[MemoryMapping]:
    """Code that a program has copied to huge pages, in the place of its file's, as that file's.

    Node.js does so with --use-largepages. What is mapped then has no name, but lies where in the
    file the mapping before it would go on, and the next one does.
    """
    found: list[MemoryMapping] = []
    for mapping, after in zip(mappings, [*mappings[1:], None]):
        if mapping.executable and not mapping.path and found and after is not None:
            before = found[-1]
            offset = before.offset + mapping.start - before.start
            goes_on = after.offset - offset == after.start - mapping.start
            if (
                before.inode
                and (before.inode, before.path) == (after.inode, after.path)
                and goes_on
            ):
                mapping = mapping._replace(offset=offset, inode=before.inode, path=before.path)
        found.append(mapping)
    return found
