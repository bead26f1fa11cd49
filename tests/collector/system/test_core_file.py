"""Core files that are whole, cut off, damaged, or none at all."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from pathlib import Path

import pytest

from leakcase_collector.errors import CollectorError, NotSupported
from leakcase_collector.system.core_file import AT_EXECFN, CoreError, CoreFile
from leakcase_collector.system.core_memory import CoreMemory
from leakcase_collector.system.memory import parse_mappings
from tests.collector.cores import by_gdb, needs_gdb, stopped
from tests.collector.system.compiled import compiled
from tests.collector.system.started import started

pytestmark = needs_gdb
PT_NOTE = 4
VALUES = (0, 1, 0x7F, 0x80, 0xFF)
NOTES = {"registers": (1, "NT_PRSTATUS"), "files": (0x46494C45, "NT_FILE")}


class Recorded:
    """A core file, and what its process was at that moment."""

    def __init__(self, folder: Path) -> None:
        self.program = compiled(folder, "allocates")
        with started([self.program, "one", "two"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline()
            stopped(process.pid)
            self.pid = process.pid
            self.mappings = parse_mappings(Path(f"/proc/{self.pid}/maps").read_bytes().splitlines())
            heap = next(m for m in self.mappings if m.path == b"[heap]")
            with open(f"/proc/{self.pid}/mem", "rb") as memory:
                memory.seek(heap.start)
                self.heap = heap.start, memory.read(heap.end - heap.start)
            self.path = by_gdb(self.pid, folder)
        self.content = self.path.read_bytes()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("core"))


def test_it_tells_who_the_process_was(recorded: Recorded) -> None:
    with CoreFile(str(recorded.path)) as core:
        assert core.process is not None
        assert (core.process.pid, core.process.parent_pid) == (recorded.pid, os.getpid())
        assert core.process.name == b"allocates"
        # gdb tells the program alone where it did not start it; the kernel tells the arguments.
        assert core.process.arguments == recorded.program.encode()[:79]
        (thread,) = core.threads
        assert thread.thread_id == recorded.pid
        stack = next(m for m in recorded.mappings if m.path == b"[stack]")
        assert stack.start <= thread.stack_pointer < stack.end
        assert stack.start <= core.auxiliary[AT_EXECFN] < stack.end


def test_its_mappings_are_those_of_the_process(recorded: Recorded) -> None:
    # gdb leaves [vvar] out, which is no memory; [heap] is a name that no core file tells.
    kept = [m for m in recorded.mappings if m.readable and not m.path.startswith(b"[vvar")]
    with CoreFile(str(recorded.path)) as core:
        found = {m.start: m for m in CoreMemory(core).mappings()}
        for mapping in kept:
            here = found.pop(mapping.start)
            assert (here.end, here.writable) == (mapping.end, mapping.writable)
            assert here.path == (b"" if mapping.path == b"[heap]" else mapping.path)
            assert here.offset == mapping.offset
            assert here.executable or not mapping.executable
        assert [m for m in found.values() if m.start < 1 << 47] == []


def test_its_memory_is_that_of_the_process_and_what_it_left_out_is_a_hole(
    recorded: Recorded,
) -> None:
    start, content = recorded.heap
    end = start + len(content)
    code = next(m for m in recorded.mappings if m.executable and b"/libc" in m.path)
    with CoreFile(str(recorded.path)) as core:
        memory = CoreMemory(core)
        assert memory.read(start, len(content)) == content
        assert memory.resident_runs(start - 4096, end + 4096) == [(start, end)]
        assert memory.resident_runs(start + 8, start + 16) == [(start + 8, start + 16)]
        assert memory.read_into(end - 8, memoryview(bytearray(16))) == 8
        assert memory.resident_runs(code.start, code.end) == []
        assert memory.left_out_bytes == 0
        with pytest.raises(NotSupported, match="core file does not hold all of them"):
            memory.read(code.start, 16)


def written(folder: Path, content: bytes) -> str:
    path = folder / "given"
    path.write_bytes(content)
    return str(path)


def test_one_that_was_cut_off_anywhere_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    needed = max(row[2] + row[5] for row in segments(recorded.content))
    lengths = [0, 3, 15, 63, 64, 200, 4096, needed // 2, needed - 4096, needed - 1]
    for length in lengths:
        with pytest.raises(CoreError, match=r"^cannot read .*given as a core file: .*\."):
            CoreFile(written(tmp_path, recorded.content[:length]))
    with pytest.raises(CoreError, match=r"it was cut off: \d+ bytes are needed.*ulimit -c"):
        CoreFile(written(tmp_path, cut_after_the_notes(recorded.content)))


def cut_after_the_notes(content: bytes) -> bytes:
    """As the kernel leaves it at a limit: the notes come first, and memory is missing."""
    rows = segments(content)
    index, note = next((i, row) for i, row in enumerate(rows) if row[0] == PT_NOTE)
    start = 64 + 56 * len(rows)
    moved = bytearray(content[:start] + content[note[2] : note[2] + note[5]])
    struct.pack_into("<Q", moved, 64 + 56 * index + 8, start)
    return bytes(moved)


def segments(content: bytes) -> list[tuple[int, ...]]:
    (count,) = struct.unpack_from("<H", content, 56)
    return list(struct.iter_unpack("<IIQQQQQQ", content[64 : 64 + 56 * count]))


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (0, b"\x7fELG", "does not start with an ELF header"),
        (4, b"\x01", "not of a 64-bit little-endian machine"),
        (5, b"\x02", "not of a 64-bit little-endian machine"),
        (16, b"\x02", "an ELF file of another kind"),
        (18, b"\x03\x00", "a machine other than x86-64 and aarch64"),
        (54, b"\x20", "table of segments is damaged"),
        (56, b"\x00\x00", "table of segments is damaged"),
        (32, b"\xff" * 8, "points beyond its end"),
    ],
)
def test_a_header_of_something_else_is_named(
    recorded: Recorded, tmp_path: Path, offset: int, value: bytes, said: str
) -> None:
    content = bytearray(recorded.content)
    content[offset : offset + len(value)] = value
    with pytest.raises(CoreError, match=said):
        CoreFile(written(tmp_path, bytes(content)))


def test_what_is_no_file_or_not_there_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in ((tmp_path, "no regular"), (tmp_path / "pipe", "no regular")):
        with pytest.raises(CoreError, match=said):
            CoreFile(str(path))
    with pytest.raises(CoreError, match="No such file"):
        CoreFile(str(tmp_path / "nothing"))
    with pytest.raises(CoreError, match="ELF file of another kind"):
        CoreFile("/proc/self/exe")


@pytest.mark.parametrize("note", NOTES)
def test_one_without_a_note_that_is_needed_is_refused(
    recorded: Recorded, tmp_path: Path, note: str
) -> None:
    number, name = NOTES[note]
    renamed = struct.pack("<I", number) + b"CORE\0"
    assert renamed in recorded.content
    content = recorded.content.replace(renamed, struct.pack("<I", 0x7777) + b"CORE\0")
    with pytest.raises(CoreError, match=name):
        CoreFile(written(tmp_path, content))


def test_one_that_does_not_tell_its_process_is_read_all_the_same(
    recorded: Recorded, tmp_path: Path
) -> None:
    content = recorded.content.replace(struct.pack("<I", 3) + b"CORE\0", b"\x77\0\0\0CORE\0")
    with CoreFile(written(tmp_path, content)) as core:
        assert core.process is None
        assert CoreMemory(core).read(recorded.heap[0], 64) == recorded.heap[1][:64]


def test_damage_anywhere_in_headers_and_notes_is_an_error_or_harmless(
    recorded: Recorded, tmp_path: Path
) -> None:
    rows = segments(recorded.content)
    note = next(row for row in rows if row[0] == PT_NOTE)
    places = [(0, 64), (64, 64 + 56 * len(rows)), (note[2], note[2] + note[5])]
    seeded = random.Random(4711)
    refused = 0
    for _ in range(400):
        content = bytearray(recorded.content)
        for _ in range(seeded.randint(1, 4)):
            content[seeded.randrange(*seeded.choice(places))] = seeded.choice(VALUES)
        try:
            with CoreFile(written(tmp_path, bytes(content))) as core:
                memory = CoreMemory(core)
                for mapping in memory.mappings():
                    for start, end in memory.resident_runs(mapping.start, mapping.end):
                        memory.read(start, min(end - start, 4096))
        except CollectorError:
            refused += 1
    assert 50 < refused < 400
