"""An ELF core file: its segments and what its notes tell of the process that it was.

Written by the kernel (fs/binfmt_elf.c, core(5)) or by gdb's gcore. It may come from anyone: each
count, size and offset is checked before it is used, and nothing is read but by pread(2).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from leakcase_collector.errors import CollectorError, UsageError
from leakcase_collector.system.os_errors import printable

#: vm.max_map_count is 65530 out of the box; more than four times that is no process of ours.
_SEGMENTS_MAX = 1 << 18
_NOTES_MAX = 1 << 18
#: The kernel writes at most 4 MB of NT_FILE (MAX_FILE_NOTE_SIZE); gdb has no bound.
_NOTE_LIMIT_BYTES = 64 << 20
_HEADER_BYTES, _SEGMENT_BYTES, _SECTION_BYTES = 64, 56, 64
_PT_LOAD, _PT_NOTE = 1, 4
_ET_CORE, _PN_XNUM = 4, 0xFFFF
_NT_PRSTATUS, _NT_PRPSINFO, _NT_AUXV, _NT_FILE = 1, 3, 6, 0x46494C45
_WANTED = {_NT_PRSTATUS, _NT_PRPSINFO, _NT_AUXV, _NT_FILE}
AT_PAGESZ, AT_ENTRY, AT_EXECFN, AT_SYSINFO_EHDR = 6, 9, 31, 33
#: By e_machine: registers in elf_gregset_t, which of them is the stack pointer.
_MACHINES = {62: (27, 19), 183: (34, 31)}
#: struct elf_prstatus and elf_prpsinfo of 64-bit machines.
_REGISTERS_AT, _PID_AT, _PSINFO_BYTES = 112, 32, 136


class CoreError(UsageError):
    """The file is no core file, is cut off or damaged, or is of a kind that is not covered."""

    def __init__(self, path: str, problem: str, remedy: str = "Give another file.") -> None:
        super().__init__(f"cannot read {printable(path)} as a core file: {problem}. {remedy}")


class CoreSegment(NamedTuple):
    """One PT_LOAD: [start, end) was mapped; its first `file_bytes` are in the file."""

    start: int
    end: int
    flags: int
    offset: int
    file_bytes: int


class CoreMapping(NamedTuple):
    """One entry of NT_FILE: `offset` is in the mapped file, in bytes."""

    start: int
    end: int
    offset: int
    path: bytes


class CoreThread(NamedTuple):
    """One NT_PRSTATUS: `registers` are all general ones, as the machine's gregset has them."""

    thread_id: int
    stack_pointer: int
    registers: tuple[int, ...]


class CoreProcess(NamedTuple):
    """NT_PRPSINFO: `name` has at most 15 bytes and `arguments` at most 79, joined by spaces."""

    pid: int
    parent_pid: int
    name: bytes
    arguments: bytes


class CoreFile:
    """An open core file. Raises CoreError where it is none, or none that is covered."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            status = os.fstat(self._fd)
        except OSError as error:
            raise CoreError(path, os.strerror(error.errno or 0)) from error
        if not stat.S_ISREG(status.st_mode):
            raise CoreError(path, "it is no regular file")
        self.size_bytes = status.st_size
        rows = self._segment_rows()
        self.segments = self._loads(rows)
        notes = list(self._notes(rows))
        self.threads = [self._thread(content) for kind, content in notes if kind == _NT_PRSTATUS]
        if not self.threads:
            raise self.bad("it does not tell the registers of any thread (no note NT_PRSTATUS)")
        self.process = self._process(_first(notes, _NT_PRPSINFO))
        self.auxiliary = self._auxiliary(_first(notes, _NT_AUXV))
        self.mappings = self._file_mappings(_first(notes, _NT_FILE))

    def bad(self, problem: str, remedy: str = "Give another file.") -> CoreError:
        """What to raise where this file is not as it must be."""
        return CoreError(self.path, problem, remedy)

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of the file; CoreError where it has fewer."""
        if offset < 0 or size < 0 or offset + size > self.size_bytes:
            raise self.bad("an offset or a size in it points beyond its end")
        content = bytearray(size)
        if self.read_into(offset, memoryview(content)) < size:
            raise self.bad("it became shorter while it was read")
        return bytes(content)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset`; how many bytes were read. CollectorError if the disk fails."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as error:
                raise CollectorError(
                    f"cannot go on reading {printable(self.path)}: "
                    f"{os.strerror(error.errno or 0)}. Copy it to another disk and try again."
                ) from error
            if not count:
                break
            done += count
        return done

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> CoreFile:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    # --- headers ----------------------------------------------------------------------------------

    def _segment_rows(self) -> list[tuple[int, ...]]:
        ident = self.read_at(0, min(16, self.size_bytes))
        if ident[:4] != b"\x7fELF" or self.size_bytes < _HEADER_BYTES:
            raise self.bad("it does not start with an ELF header")
        if ident[4:6] != b"\x02\x01":
            raise self.bad("it is not of a 64-bit little-endian machine")
        header = struct.unpack("<HHIQQQIHHHHHH", self.read_at(16, 48))
        if header[0] != _ET_CORE:
            raise self.bad("it is an ELF file of another kind")
        if header[1] not in _MACHINES:
            raise self.bad("it is of a machine other than x86-64 and aarch64, which are covered")
        self._registers, self._stack_pointer = _MACHINES[header[1]]
        table, sections, item_bytes, count = header[4], header[5], header[8], header[9]
        if count == _PN_XNUM:
            # More than fits: the count is in section 0's sh_info (elf(5), PN_XNUM).
            count = struct.unpack("<I", self.read_at(sections, _SECTION_BYTES)[44:48])[0]
        if item_bytes != _SEGMENT_BYTES or not 0 < count <= _SEGMENTS_MAX:
            raise self.bad("its table of segments is damaged")
        content = self.read_at(table, count * item_bytes)
        return list(struct.iter_unpack("<IIQQQQQQ", content))

    def _loads(self, rows: Sequence[tuple[int, ...]]) -> list[CoreSegment]:
        needed = max((row[2] + row[5] for row in rows if row[5]), default=0)
        if needed > self.size_bytes:
            raise self.bad(
                f"it was cut off: {needed} bytes are needed, {self.size_bytes} are there",
                "Have it written anew, with room on the disk and without a limit (ulimit -c).",
            )
        found: list[CoreSegment] = []
        for kind, flags, offset, start, _, file_bytes, size, _ in rows:
            if kind != _PT_LOAD or not size:
                continue
            if file_bytes > size or start + size > 1 << 64:
                raise self.bad("a segment of it has an impossible size")
            found.append(CoreSegment(start, start + size, flags, offset, file_bytes))
        found.sort()
        if any(before.end > after.start for before, after in zip(found, found[1:])):
            raise self.bad("segments of it overlap")
        if not any(segment.file_bytes for segment in found):
            raise self.bad("it holds no memory")
        return found

    # --- notes ------------------------------------------------------------------------------------

    def _notes(self, rows: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, bytes]]:
        """The notes that are wanted. Padded to 4 bytes, in cores of 64-bit machines as well."""
        left = _NOTES_MAX
        for kind, _, at, _, _, file_bytes, _, _ in rows:
            end = at + file_bytes
            while kind == _PT_NOTE and at + 12 <= end:
                left -= 1
                if left < 0:
                    raise self.bad("it has more notes than any process")
                name_bytes, size, number = struct.unpack("<III", self.read_at(at, 12))
                start = at + 12 + name_bytes + -name_bytes % 4
                if start + size > end:
                    raise self.bad("a note of it points beyond its end")
                name = self.read_at(at + 12, min(name_bytes, 8)).rstrip(b"\0")
                if name == b"CORE" and number in _WANTED:
                    if size > _NOTE_LIMIT_BYTES:
                        raise self.bad("a note of it is larger than any process needs")
                    yield number, self.read_at(start, size)
                at = start + size + -size % 4

    def _thread(self, content: bytes) -> CoreThread:
        if len(content) < _REGISTERS_AT + 8 * self._registers:
            raise self.bad("the registers of a thread are missing in it")
        (thread_id,) = struct.unpack_from("<i", content, _PID_AT)
        registers = struct.unpack_from(f"<{self._registers}Q", content, _REGISTERS_AT)
        return CoreThread(thread_id, registers[self._stack_pointer], registers)

    def _process(self, content: Optional[bytes]) -> Optional[CoreProcess]:
        if content is None or len(content) < _PSINFO_BYTES:
            return None
        pid, parent = struct.unpack_from("<ii", content, 24)
        name, arguments = (part.split(b"\0")[0] for part in (content[40:56], content[56:136]))
        return CoreProcess(max(pid, 0), max(parent, 0), name, arguments.rstrip(b" "))

    def _auxiliary(self, content: Optional[bytes]) -> dict[int, int]:
        content = content or b""
        return dict(struct.iter_unpack("<QQ", content[: len(content) // 16 * 16]))

    def _file_mappings(self, content: Optional[bytes]) -> list[CoreMapping]:
        """Count and page size; start, end and page offset of each; then their names."""
        if content is None:
            raise self.bad(
                "it does not tell which files were mapped (no note NT_FILE)",
                "Linux writes it since 3.7, and gdb's gcore: use one of these.",
            )
        if len(content) < 16:
            raise self.bad("its list of mapped files is damaged")
        count, page_bytes = struct.unpack_from("<QQ", content)
        names_at = 16 + 24 * count
        if names_at > len(content) or page_bytes > 1 << 30:
            raise self.bad("its list of mapped files is damaged")
        names = content[names_at:].split(b"\0")
        if len(names) < count:
            raise self.bad("its list of mapped files is damaged")
        bounds = struct.iter_unpack("<QQQ", content[16:names_at])
        found = [
            CoreMapping(start, end, pages * page_bytes, name)
            for (start, end, pages), name in zip(bounds, names)
            if start < end
        ]
        found.sort()
        if any(before.end > after.start for before, after in zip(found, found[1:])):
            raise self.bad("its list of mapped files is damaged")
        return found


def _first(notes: Sequence[tuple[int, bytes]], wanted: int) -> Optional[bytes]:
    return next((content for kind, content in notes if kind == wanted), None)
