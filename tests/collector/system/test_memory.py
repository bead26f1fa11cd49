"""A real process's memory: equal to what it wrote, and left as it was."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakcase_collector.errors import CollectorError, NotPermitted, NotSupported, TargetGone
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import PAGE_BYTES, ProcessMemory, parse_mappings
from tests.collector.system.started import (
    NOBODY,
    as_nobody,
    needs_root,
    started,
    started_python,
    wait_until,
)

# 64 pages between two that cannot be read; every fourth page is written, the others never touched.
PAGES = 64
CODE = f"""
import ctypes, mmap, sys
size = {PAGE_BYTES}
whole = mmap.mmap(-1, ({PAGES} + 2) * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
start = ctypes.addressof(ctypes.c_char.from_buffer(whole))
libc = ctypes.CDLL(None)
for page in range(0, {PAGES}, 4):
    whole[(page + 1) * size : (page + 1) * size + 4] = b"%04d" % page
libc.munmap(ctypes.c_void_p(start), size)
libc.munmap(ctypes.c_void_p(start + ({PAGES} + 1) * size), size)
print(start + size, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def target() -> Iterator[tuple[int, int]]:
    """The pid of a process, and where in it the pages are."""
    with started(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())


@contextlib.contextmanager
def memory_of(pid: int) -> Iterator[ProcessMemory]:
    with ProcessIdentity(System(), pid) as identity, ProcessMemory(System(), identity) as memory:
        yield memory


def status_kb(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise AssertionError(name)


def test_bytes_are_those_that_the_program_wrote() -> None:
    with target() as (pid, start), memory_of(pid) as memory:
        for page in range(0, PAGES, 4):
            assert memory.read(start + page * PAGE_BYTES, 4) == b"%04d" % page


def test_pages_that_were_never_touched_are_not_resident_and_stay_so() -> None:
    expected_pages = range(0, PAGES, 4)
    with target() as (pid, start), memory_of(pid) as memory:
        before = status_kb(pid, "VmRSS")
        expected = [
            (start + page * PAGE_BYTES, start + (page + 1) * PAGE_BYTES) for page in expected_pages
        ]
        end = start + PAGES * PAGE_BYTES
        for _ in range(2):
            assert memory.resident_runs(start, end) == expected
            for low, high in expected:
                memory.read(low, high - low)
        assert memory.resident_runs(start + 100, start + 200) == [(start + 100, start + 200)]
        assert memory.resident_runs(start + PAGE_BYTES, start + 4 * PAGE_BYTES) == []
        assert status_kb(pid, "VmRSS") - before < PAGES // 2 * PAGE_BYTES // 1024


def test_a_read_that_meets_a_hole_is_short_or_refused() -> None:
    with target() as (pid, start), memory_of(pid) as memory:
        end = start + PAGES * PAGE_BYTES
        assert memory.resident_runs(start - 2 * PAGE_BYTES, start) == []
        buffer = bytearray(4 * PAGE_BYTES)
        assert memory.read_into(end - PAGE_BYTES, memoryview(buffer)) == PAGE_BYTES
        assert memory.read_into(end, memoryview(buffer)) == 0
        assert memory.read_into(0, memoryview(buffer)) == 0
        assert memory.read_into((1 << 64) - 16, memoryview(buffer)) == 0
        with pytest.raises(NotSupported, match="not all of them are mapped"):
            memory.read(end - 8, 16)


def test_mappings_are_read_afresh() -> None:
    with target() as (pid, start), memory_of(pid) as memory:
        lines = Path(f"/proc/{pid}/maps").read_bytes().splitlines()
        mappings = memory.mappings()
        assert len(mappings) == len(lines)
        holding = next(m for m in mappings if m.start <= start < m.end)
        assert holding.writable
        assert holding.is_private
        assert not holding.executable
        assert mappings is not memory.mappings()


def test_lines_of_maps_that_are_none_are_left_out() -> None:
    lines = [
        b"7f00-7f01 r--p 00001000 fd:01 77                         /usr/lib/a b\\012c.so",
        b"7f01-7f02 rw-s 00000000 00:00 0 ",
        b"",
        b"what is this line",
        b"7f02 rw-p 0 0 0",
    ]
    first, second = parse_mappings(lines)
    assert first == (0x7F00, 0x7F01, True, False, False, True, 4096, b"fd:01", 77,
                     b"/usr/lib/a b\nc.so")  # fmt: skip
    assert second.path == b""
    assert not second.is_private


def test_a_process_that_ended_is_gone() -> None:
    with target() as (pid, start), memory_of(pid) as memory:
        memory.read(start, 4)
        os.kill(pid, 9)
        wait_until(lambda: b") Z" in Path(f"/proc/{pid}/stat").read_bytes())
        with pytest.raises(TargetGone):
            memory.read(start, 4)
        with pytest.raises(TargetGone):
            memory.mappings()
        with pytest.raises(TargetGone):
            ProcessMemory(System(), memory._identity)


def test_a_process_that_executes_another_program_is_told_from_one_that_ended() -> None:
    code = "import os; print(); input(); os.execv('/bin/sleep', ['sleep', '60'])"
    with started_python(code, stdin=subprocess.PIPE) as process, memory_of(process.pid) as memory:
        address = next(m.start for m in memory.mappings() if m.writable)
        memory.read(address, 8)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        wait_until(lambda: os.readlink(f"/proc/{process.pid}/exe").endswith("sleep"))
        with pytest.raises(CollectorError, match="executed another program") as caught:
            memory.read(address, 8)
        assert not isinstance(caught.value, TargetGone)
        with memory_of(process.pid) as anew:
            assert any(b"sleep" in mapping.path for mapping in anew.mappings())


def _open(pid: int) -> str:
    try:
        with memory_of(pid):
            return "opened"
    except NotPermitted as error:
        return error.gap_reason


@needs_root
def test_memory_of_another_user_and_of_an_undumpable_program_is_refused() -> None:
    with target() as (pid, _):
        assert as_nobody(lambda: _open(pid)) == "not-permitted"
    # PR_SET_DUMPABLE is 4 (prctl(2)); whoever may read it otherwise is the control.
    for dumpable, answer in ((1, "opened"), (0, "not-permitted")):
        code = f"import ctypes, os; os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        code += f"ctypes.CDLL(None).prctl(4, {dumpable}); print(); input()"
        with started_python(code, stdin=subprocess.PIPE) as process:
            asked = process.pid
            assert as_nobody(lambda pid=asked: _open(pid)) == answer
            assert _open(asked) == "opened"


def test_a_32_bit_program_is_refused(tmp_path: Path) -> None:
    """A recorded process, for few machines run such programs: AT_PHENT is 32 in pairs of 4."""
    folder = tmp_path / "4711"
    folder.mkdir()
    (folder / "stat").write_bytes(Path("/proc/self/stat").read_bytes())
    (folder / "status").write_bytes(b"Tgid:\t4711\n")
    (folder / "mem").write_bytes(b"")
    (folder / "pagemap").write_bytes(b"")
    system = System(proc=str(tmp_path))
    identity = ProcessIdentity(system, 4711)
    (folder / "auxv").write_bytes(struct.pack("=8I", 32, 1 << 31, 4, 32, 3, 0x8048034, 0, 0))
    with pytest.raises(NotSupported, match="32-bit"):
        ProcessMemory(system, identity)
    (folder / "auxv").write_bytes(b"")
    with pytest.raises(TargetGone, match="is ending"):
        ProcessMemory(system, identity)
    (folder / "auxv").write_bytes(struct.pack("=4Q", 4, 56, 0, 0))
    ProcessMemory(system, identity).close()
