"""A target's memory, read from outside: nothing stops, nothing runs in it, no page is brought in.

A read of ``/proc/PID/mem`` takes the same permission as process_vm_readv(2) (ptrace(2), "Ptrace
access mode checking") and is bound to the address space that was there at open, so that a reused
pid or an exec cannot hand us another process's bytes. Like a fault of the target's own, a read
brings swapped pages back and maps untouched ones: so callers read what `resident_runs` names.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple, Protocol

from leakcase_collector.errors import CollectorError, NotSupported, TargetGone
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.os_errors import translated

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: User space ends below it everywhere; above it pread(2) has no offsets.
_ADDRESS_LIMIT = 1 << 63
#: One entry of 8 bytes a page (pagemap.rst of the kernel's admin-guide): 512 MB of memory a read.
_PAGEMAP_PAGES = 1 << 17
_ENTRY_BYTES = 8
#: Bit 63, "page present in RAM", stands in the entry's most significant byte.
_TOP_BYTE = 7 if sys.byteorder == "little" else 0
#: Beside it: bit 62, "page swapped", and 61, "page is file-page or shared-anon".
_PRESENT = bytes(byte >> 7 for byte in range(256))
_PRESENT_OR_SWAPPED = bytes(int(byte & 0xC0 > 0) for byte in range(256))
_OWN = bytes(int(byte & 0xC0 > 0 and not byte & 0x20) for byte in range(256))
_RUN = re.compile(rb"\x01+")
#: AT_PHENT of the auxiliary vector (getauxval(3)), the size of an ELF program header: 56 of 64 bit.
_AT_PHENT, _PHENT_64 = 4, 56
_LOADING_LOOKS, _LOADING_SECONDS = 50, 0.002


class MemoryMapping(NamedTuple):
    """One line of ``/proc/PID/maps``, or one segment of a core file.

    `path` is as the kernel writes it: a file, ``[heap]``, ``[stack]``, or empty.
    """

    start: int
    end: int
    readable: bool
    writable: bool
    executable: bool
    is_private: bool
    offset: int
    device: bytes
    inode: int
    path: bytes


class Memory(Protocol):
    """The address space of a live process or of a core file; 64-bit ones only."""

    pointer_bytes: int

    def mappings(self) -> list[MemoryMapping]:
        """The mappings now, by ascending address; read afresh at every call."""
        ...

    def read(self, address: int, size: int) -> bytes:
        """All `size` bytes. NotSupported where some of them are not mapped or not in the file."""
        ...

    def read_into(self, address: int, view: memoryview) -> int:
        """Fill `view` (of bytes); how many were read, fewer where a page cannot be read."""
        ...

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts [from, to) of [start, end) that can be read without bringing a page in."""
        ...


class ProcessMemory:
    """The memory of a live process. Short-lived: open one for each look at the target.

    NotPermitted where the kernel refuses (another user, a program that is not dumpable, Yama),
    NotSupported for a 32-bit program or a kernel without pagemap, TargetGone when it has ended.
    """

    pointer_bytes = 8

    def __init__(self, system: System, identity: ProcessIdentity) -> None:
        self._system = system
        self._identity = identity
        self._folder = f"/proc/{identity.pid}"
        self._mem = self._pagemap = -1
        self._mem = self._open("mem")
        self._pagemap = self._open("pagemap")
        # Only now is it known that the descriptors belong to the process that we hold.
        identity.require_alive()
        _require_64_bit(self._auxiliary(), identity.pid)

    def _auxiliary(self) -> bytes:
        """While a program is being loaded it is still all zeros (create_elf_tables in the kernel's
        fs/binfmt_elf.c)."""
        for _ in range(_LOADING_LOOKS):
            auxiliary = self._system.read_bytes(f"{self._folder}/auxv")
            if not auxiliary or any(auxiliary):
                break
            time.sleep(_LOADING_SECONDS)
        return auxiliary

    def _open(self, name: str) -> int:
        path = f"{self._folder}/{name}"
        try:
            return os.open(f"{self._system.proc}{path[5:]}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ESRCH:  # of a zombie, too
                self._identity.require_alive()
            raise translated(error, path, self._system.proc) from error

    def mappings(self) -> list[MemoryMapping]:
        found = parse_mappings(self._system.read_lines(f"{self._folder}/maps"))
        if not found:  # as it is once a process has ended, though a zombie is left
            self._identity.require_alive()
        return found

    def read(self, address: int, size: int) -> bytes:
        content = bytearray(size)
        if self.read_into(address, memoryview(content)) < size:
            raise NotSupported(
                f"cannot read {size} bytes of memory at {address:#x} of process "
                f"{self._identity.pid}: not all of them are mapped. The program may have changed "
                "its mappings meanwhile: try again, or do without this source."
            )
        return bytes(content)

    def read_into(self, address: int, view: memoryview) -> int:
        done = 0
        while done < len(view):
            at = address + done
            if not 0 <= at < _ADDRESS_LIMIT:
                break
            try:
                count = os.preadv(self._mem, [view[done:]], at)
            except OSError as error:
                # EIO, in device memory EFAULT: what is at this address cannot be read.
                if error.errno in (errno.EIO, errno.EFAULT):
                    break
                raise translated(error, f"{self._folder}/mem", self._system.proc) from error
            if not count:
                raise self._lost()
            done += count
        return done

    def _lost(self) -> CollectorError:
        """mem_rw reads nothing where the address space is gone (fs/proc/base.c of Linux)."""
        self._identity.require_alive()
        return CollectorError(
            f"cannot go on reading the memory of process {self._identity.pid}: it has executed "
            "another program meanwhile. The next look will be at the new one."
        )

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        return self._runs(start, end, _PRESENT)

    def touched_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) that were ever used, those in swap among them."""
        return self._runs(start, end, _PRESENT_OR_SWAPPED)

    def own_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of a private mapping that the process has written to."""
        return self._runs(start, end, _OWN)

    def _runs(self, start: int, end: int, wanted: bytes) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        first, last = start // PAGE_BYTES, -(-end // PAGE_BYTES)
        for page in range(first, last, _PAGEMAP_PAGES):
            entries = self._read_pagemap(page, min(_PAGEMAP_PAGES, last - page))
            present = entries[_TOP_BYTE::_ENTRY_BYTES].translate(wanted)
            for run in _RUN.finditer(present):
                low, high = ((page + index) * PAGE_BYTES for index in run.span())
                if runs and runs[-1][1] == low:
                    runs[-1] = (runs[-1][0], high)
                else:
                    runs.append((low, high))
        if runs:
            runs[0] = (max(runs[0][0], start), runs[0][1])
            runs[-1] = (runs[-1][0], min(runs[-1][1], end))
        return runs

    def _read_pagemap(self, page: int, count: int) -> bytes:
        try:
            return os.pread(self._pagemap, count * _ENTRY_BYTES, page * _ENTRY_BYTES)
        except OSError as error:
            raise translated(error, f"{self._folder}/pagemap", self._system.proc) from error

    def close(self) -> None:
        for descriptor in (self._mem, self._pagemap):
            if descriptor >= 0:
                os.close(descriptor)
        self._mem = self._pagemap = -1

    def __enter__(self) -> ProcessMemory:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def parse_mappings(lines: Iterable[bytes]) -> list[MemoryMapping]:
    """The lines of maps (proc_pid_maps(5)); one that is not of its form is left out."""
    found = []
    for line in lines:
        fields = line.split(None, 5)
        with suppress(ValueError, IndexError):
            start, _, end = fields[0].partition(b"-")
            flags = fields[1]
            found.append(
                MemoryMapping(
                    int(start, 16),
                    int(end, 16),
                    flags[0:1] == b"r",
                    flags[1:2] == b"w",
                    flags[2:3] == b"x",
                    flags[3:4] == b"p",
                    int(fields[2], 16),
                    fields[3],
                    int(fields[4]),
                    fields[5].replace(b"\\012", b"\n") if len(fields) > 5 else b"",
                )
            )
    return found


def _require_64_bit(auxiliary: bytes, pid: int) -> None:
    """The vector is an array of pairs of the program's own word (proc_pid_auxv(5))."""
    if not auxiliary:
        raise TargetGone(
            f"process {pid} has no memory any more: it is ending. Choose a running process."
        )
    whole = len(auxiliary) // 16 * 16
    if dict(struct.iter_unpack("=QQ", auxiliary[:whole])).get(_AT_PHENT) != _PHENT_64:
        raise NotSupported(
            f"cannot read the memory of process {pid}: it is a 32-bit program, which is not "
            "covered. The rest of the capture is not affected."
        )
