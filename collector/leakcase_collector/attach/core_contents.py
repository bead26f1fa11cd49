"""What a core file says about a process beside its memory: headers and notes.

Formats: elf(5), core(5); struct elf_prstatus and elf_prpsinfo of x86-64 (sys/procfs.h), NT_FILE as
fs/binfmt_elf.c of Linux writes it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, Optional

from leakcase_collector.system.memory import PAGE_BYTES, MemoryMapping

_HEADER_BYTES, _SEGMENT_BYTES = 64, 56
_ET_CORE, _EM_X86_64 = 4, 62
_PT_LOAD, _PT_NOTE = 1, 4
_NT_PRSTATUS, _NT_FPREGSET, _NT_PRPSINFO, _NT_AUXV = 1, 2, 3, 6
_NT_FILE, _NT_X86_XSTATE = 0x46494C45, 0x202
_X, _W, _R = 1, 2, 4
#: One less than PN_XNUM, from where on the count would have to stand elsewhere.
SEGMENTS_MAX = 0xFFFE


class Segment(NamedTuple):
    """A mapping, and how many of its first bytes the file holds."""

    mapping: MemoryMapping
    file_bytes: int


class ThreadNotes(NamedTuple):
    """A thread's register sets, as the kernel gives them."""

    thread_id: int
    signal: int
    general: bytes
    floating: bytes
    extended: Optional[bytes]


class ProcessNotes(NamedTuple):
    """Of ``/proc/PID/stat``, ``status``, ``cmdline`` and ``auxv``."""

    pid: int
    parent_pid: int
    group: int
    session: int
    user_id: int
    group_id: int
    state: str
    name: bytes
    arguments: bytes
    auxiliary: bytes


def notes(
    process: ProcessNotes, threads: Sequence[ThreadNotes], mappings: Sequence[MemoryMapping]
) -> bytes:
    """All notes; the first thread comes first, and what is of the whole process after it."""
    content = bytearray()
    for index, thread in enumerate(threads):
        content += _note(_NT_PRSTATUS, _prstatus(process, thread))
        if not index:
            content += _note(_NT_PRPSINFO, _prpsinfo(process))
            content += _note(_NT_AUXV, process.auxiliary)
            content += _note(_NT_FILE, _files(mappings))
        content += _note(_NT_FPREGSET, thread.floating)
        if thread.extended is not None:
            content += _note(_NT_X86_XSTATE, thread.extended, b"LINUX\0")
    return bytes(content)


def _note(kind: int, content: bytes, owner: bytes = b"CORE\0") -> bytes:
    name = owner + bytes(-len(owner) % 4)
    head = struct.pack("<III", len(owner), len(content), kind)
    return head + name + content + bytes(-len(content) % 4)


def _prstatus(process: ProcessNotes, thread: ThreadNotes) -> bytes:
    head = struct.pack("<iii hxx QQ", 0, 0, 0, thread.signal, 0, 0)
    ids = struct.pack("<iiii", thread.thread_id, process.parent_pid, process.group, process.session)
    return head + ids + bytes(4 * 16) + thread.general + struct.pack("<ixxxx", 1)


def _prpsinfo(process: ProcessNotes) -> bytes:
    return struct.pack(
        "<bcbb4xQIIiiii16s80s",
        0, process.state[:1].encode("ascii", "replace") or b"R", 0, 0, 0, process.user_id,
        process.group_id, process.pid, process.parent_pid, process.group, process.session,
        process.name[:15], process.arguments.replace(b"\0", b" ")[:79],
    )  # fmt: skip


def _files(mappings: Sequence[MemoryMapping]) -> bytes:
    named = [one for one in mappings if one.path.startswith(b"/")]
    head = struct.pack("<QQ", len(named), PAGE_BYTES)
    rows = b"".join(struct.pack("<QQQ", m.start, m.end, m.offset // PAGE_BYTES) for m in named)
    return head + rows + b"".join(m.path + b"\0" for m in named)


def headers(segments: Sequence[Segment], note_bytes: int) -> tuple[bytes, list[int]]:
    """The ELF header and the table of segments, and where in the file each segment begins.

    The notes follow the table at once.
    """
    count = len(segments) + 1
    notes_at = _HEADER_BYTES + count * _SEGMENT_BYTES
    at = _aligned(notes_at + note_bytes)
    head = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    head += struct.pack(
        "<HHIQQQIHHHHHH", _ET_CORE, _EM_X86_64, 1, 0, _HEADER_BYTES, 0, 0, _HEADER_BYTES,
        _SEGMENT_BYTES, count, 0, 0, 0,
    )  # fmt: skip
    rows = [struct.pack("<IIQQQQQQ", _PT_NOTE, 0, notes_at, 0, 0, note_bytes, 0, 4)]
    places = []
    for mapping, file_bytes in segments:
        flags = _R * mapping.readable | _W * mapping.writable | _X * mapping.executable
        size = mapping.end - mapping.start
        rows.append(
            struct.pack(
                "<IIQQQQQQ", _PT_LOAD, flags, at, mapping.start, 0, file_bytes, size, PAGE_BYTES
            )
        )
        places.append(at)
        at += _aligned(file_bytes)
    return head + b"".join(rows), places


def _aligned(size: int) -> int:
    return size + -size % PAGE_BYTES
