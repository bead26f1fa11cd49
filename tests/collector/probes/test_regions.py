from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakcase_bundle.records import Region, RegionSnapshot
from leakcase_collector.errors import NotSupported
from leakcase_collector.probes.region_text import (
    FIGURES,
    Entry,
    SmapsParser,
    parse_file_systems,
    parse_stack_limit,
    parse_thread_count,
)
from leakcase_collector.probes.regions import GROUPS_AT_ENDS, RegionsProbe
from tests.collector.probes.children import Child, python
from tests.collector.probes.context import RecordingContext, run
from tests.collector.probes.recording import machine, recorded
from tests.collector.probes.texts import changed, pieces

MB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
SMAPS = recorded("smaps-linux-6.18.txt")
RSS, PRIVATE_DIRTY = FIGURES.index(b"Rss:"), FIGURES.index(b"Private_Dirty:")


def entries_of(text: bytes, chunk_bytes: int = 4096) -> tuple[list[Entry], SmapsParser]:
    parser = SmapsParser()
    return list(parser.entries(pieces(text, chunk_bytes))), parser


def kilobytes(text: bytes, key: bytes) -> int:
    """The sum of a key over a text of smaps, line by line: slow and plain."""
    lines = text.split(b"\n")
    return sum(int(line.split()[1]) for line in lines if line.startswith(key))


# --- the text -----------------------------------------------------------------------------------


def test_every_figure_of_a_recorded_smaps_adds_up() -> None:
    entries, parser = entries_of(SMAPS)
    assert len(entries) == 37
    assert parser.malformed == 0
    assert all(parser.known)
    for position, key in enumerate(FIGURES):
        assert sum(entry.figures[position] for entry in entries) == kilobytes(SMAPS, key), key
    assert {entry.line.path for entry in entries} >= {b"[heap]", b"[stack]", b"/usr/bin/sleep"}
    assert [entry.flags for entry in entries if entry.line.path == b"[stack]"][0].split()[
        0
    ] == b"rd"


@given(st.integers(1, 9000))
@settings(max_examples=60, deadline=None)
def test_it_does_not_matter_where_the_kernel_ends_a_chunk(chunk_bytes: int) -> None:
    assert entries_of(SMAPS, chunk_bytes)[0] == entries_of(SMAPS, len(SMAPS))[0]


def test_a_figure_that_the_kernel_does_not_offer_is_not_a_zero() -> None:
    newer = (b"ShmemPmdMapped:", b"FilePmdMapped:", b"Shared_Hugetlb:", b"Private_Hugetlb:")
    lines = [line for line in SMAPS.split(b"\n") if not line.startswith(newer)]
    entries, parser = entries_of(b"\n".join(lines))
    assert len(entries) == 37
    assert {key for key, known in zip(FIGURES, parser.known) if not known} == set(newer)


def test_a_key_that_only_some_entries_have_disturbs_no_other_figure() -> None:
    named = SMAPS.replace(b"\nSize:", b"\nName:           [anon:pool]\nSize:", 3)
    plain, _ = entries_of(SMAPS)
    mixed, parser = entries_of(named)
    assert [entry.figures for entry in mixed] == [entry.figures for entry in plain]
    assert parser.malformed == 0


def test_an_entry_cut_off_is_counted_as_not_understood() -> None:
    entries, parser = entries_of(SMAPS[: len(SMAPS) // 2])
    assert 0 < len(entries) < 37
    assert parser.malformed == 1


def test_a_text_without_ends_does_not_pile_up() -> None:
    entries, parser = entries_of(b"Rss: 0 kB\n" * 300_000, 65536)
    assert entries == []
    assert parser.malformed > 0


@settings(max_examples=200, deadline=None)
@given(changed(SMAPS[:4000]), st.integers(1, 5000))
def test_any_text_of_smaps_is_read_without_a_complaint(text: bytes, chunk_bytes: int) -> None:
    for entry in entries_of(text, chunk_bytes)[0]:
        assert len(entry.figures) == len(FIGURES)
        assert entry.line.start < entry.line.end


def test_file_systems_are_known_by_the_device_numbers_that_maps_prints() -> None:
    mountinfo = (
        b"22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        b"30 24 0:26 / /dev/shm rw,nosuid shared:4 master:1 - tmpfs tmpfs rw\n"
        b"31 24 0:32 / /dev/hugepages rw - hugetlbfs hugetlbfs rw,pagesize=2M\n"
        b"36 27 254:1 / / rw - ext4 /dev/vda1 rw\n"
    )
    tmpfs, huge = parse_file_systems(mountinfo.split(b"\n"))
    assert tmpfs == {b"00:1a"}
    assert huge == {b"00:20"}


@settings(max_examples=100, deadline=None)
@given(changed(b"30 24 0:26 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw\n"))
def test_any_text_of_small_files_is_read(text: bytes) -> None:
    parse_file_systems(text.split(b"\n"))
    for number in (parse_stack_limit(b"Max stack size" + text), parse_thread_count(b")" + text)):
        assert number is None or number >= 0


def test_stack_limit_and_threads_are_found_in_recordings() -> None:
    assert parse_stack_limit(recorded("limits-linux-6.18.txt")) == 8 * MB
    assert (
        parse_stack_limit(b"Max stack size            unlimited            unlimited  bytes\n")
        is None
    )
    assert parse_thread_count(recorded("stat-linux-6.18.txt")) == 4


# --- the probe on recordings ----------------------------------------------------------------------


def regions_of(context: RecordingContext, snapshot: int) -> list[Region]:
    """The groups of one snapshot, without the large single mappings."""
    regions: list[Region] = context.emitted(Region)
    return [r for r in regions if r.snapshot == snapshot and r.start_address is None]


def by_kind(regions: list[Region]) -> dict[str, tuple[int, int]]:
    """Kind to count and size."""
    out: dict[str, tuple[int, int]] = {}
    for region in regions:
        count, size = out.get(region.kind, (0, 0))
        out[region.kind] = (count + region.count, size + region.size_bytes)
    return out


def test_without_smaps_the_sizes_come_from_maps_and_a_gap_says_so(tmp_path: Path) -> None:
    system = machine(tmp_path, {"/proc/4711/maps": recorded("maps-jvm-17-threads-19.txt")})
    context = run(RegionsProbe(), RecordingContext(4711, system))
    assert context.gaps == [("not-supported", "smaps")]
    snapshots = context.emitted(RegionSnapshot)
    assert [s.source for s in snapshots] == ["maps"] * 3
    assert [s.mappings for s in snapshots] == [213] * 3
    assert all(s.complete for s in snapshots)
    regions = regions_of(context, 0)
    assert all(region.rss_bytes is None and region.huge_bytes is None for region in regions)
    assert sum(region.count for region in regions) == 213


def test_recorded_smaps_become_groups_with_tokens_instead_of_paths(tmp_path: Path) -> None:
    files = {
        "/proc/4711/smaps": SMAPS,
        "/proc/4711/limits": recorded("limits-linux-6.18.txt"),
        "/proc/4711/stat": recorded("stat-linux-6.18.txt"),
    }
    system = machine(tmp_path, files, {"/proc/4711/exe": "/usr/bin/sleep"})
    context = run(RegionsProbe(), RecordingContext(4711, system))
    regions = regions_of(context, 0)
    assert sum(r.rss_bytes or 0 for r in regions) == 1024 * kilobytes(SMAPS, b"Rss:")
    program = [r for r in regions if r.kind == "program-code"]
    assert [(r.count, r.writable, r.executable) for r in program] == [(4, False, True)]
    assert {r.path for r in program} == {"/usr/bin/sleep"}
    data = [r.path or "" for r in regions if r.kind == "file-data"]
    assert data and not any("LC_" in path for path in data)
    assert all(path.startswith("/usr/lib/") for path in data)


def test_mappings_that_may_not_be_read_do_not_stop_a_prediction(tmp_path: Path) -> None:
    system = machine(tmp_path, {"/proc/4711/statm": b"9000 1000 1 1 0 1 0\n"})
    predicted = RegionsProbe().predict(RecordingContext(4711, system))
    assert 0 < predicted.lock_ns < 1_000_000 < predicted.cpu_ns


def test_the_lock_is_predicted_for_the_largest_mapping(tmp_path: Path) -> None:
    gigabyte = 1 << 30
    maps = b"".join(
        b"%x-%x rw-p 00000000 00:00 0\n" % (n << 40, (n << 40) + size)
        for n, size in enumerate((gigabyte, 3 * gigabyte, 4096), 1)
    )
    pages = 4 * gigabyte // PAGE
    files = {"/proc/4711/maps": maps, "/proc/4711/statm": b"1 %d 1 1 0 1 0\n" % pages}
    predicted = RegionsProbe().predict(RecordingContext(4711, machine(tmp_path, files)))
    assert 0.74 < predicted.lock_ns / (pages * 90) < 0.76


def test_a_process_without_mappings_is_refused_in_a_sentence(tmp_path: Path) -> None:
    context = RecordingContext(4711, machine(tmp_path, {"/proc/4711/smaps": b""}))
    with pytest.raises(NotSupported, match="shows no mappings"):
        RegionsProbe().begin(context, 0)


def test_between_the_ends_fewer_groups_are_written(tmp_path: Path) -> None:
    text = b"".join(
        b"%x-%x r--p 00000000 08:01 %d /srv/%d\n" % (n << 16, (n << 16) + 4096, n, n)
        for n in range(1, 1001)
    )
    system = machine(tmp_path, {"/proc/4711/maps": text})
    context = run(RegionsProbe(), RecordingContext(4711, system))
    counts = [len(regions_of(context, snapshot)) for snapshot in range(3)]
    assert counts == [301, 33, 301]
    folded = [s.groups_folded for s in context.emitted(RegionSnapshot)]
    assert folded == [700, 968, 700]
    assert context.losses == [("regions", 700), ("regions", 700)]
    for snapshot in range(3):
        assert sum(r.size_bytes for r in regions_of(context, snapshot)) == 1000 * 4096


# --- live ---------------------------------------------------------------------------------------


@pytest.fixture
def disk_directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        yield path


@pytest.fixture
def shm_file() -> Iterator[str]:
    fd, path = tempfile.mkstemp(dir="/dev/shm", prefix="leakcase-test-")
    os.close(fd)
    yield path
    os.unlink(path)


MAP_MANY = """
import ctypes, mmap, os, sys, threading
def mapped(fd, pages, flags=mmap.MAP_SHARED, protection=3):
    size = pages * mmap.PAGESIZE
    if fd >= 0: os.ftruncate(fd, size)
    m = mmap.mmap(fd, size, flags=flags, prot=protection)
    m[:] = b"x" * size
    return m
print('ready', flush=True); sys.stdin.readline()
# First: a stack right below a mapping of data would become one mapping with it.
for _ in range(9): threading.Thread(target=threading.Event().wait, daemon=True).start()
gone = os.open(sys.argv[1] + "/gone", os.O_RDWR | os.O_CREAT)
kept = os.open(sys.argv[1] + "/kept", os.O_RDWR | os.O_CREAT)
os.unlink(sys.argv[1] + "/gone")
keep = [
    mapped(os.memfd_create("pool"), 3),
    mapped(gone, 5), mapped(kept, 7),
    mapped(os.open(sys.argv[2], os.O_RDWR), 11),
    mapped(-1, 13, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS),
    mapped(-1, 17, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7),
    mapped(-1, (64 << 20) // mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
]
"""


def grown(
    before: list[Region], after: list[Region], kind: str, figure: str = "size_bytes"
) -> Optional[int]:
    def total(regions: list[Region]) -> int:
        return sum(getattr(region, figure) for region in regions if region.kind == kind)

    return total(after) - total(before)


def watched(child: Child) -> RecordingContext:
    """A snapshot, the child's work, another snapshot."""
    context = RecordingContext(child.pid)
    probe = RegionsProbe()
    probe.begin(context, 0)
    child.tell()
    probe.finish(context, 0)
    return context


def test_what_a_process_maps_is_found_by_kind_to_the_byte(
    disk_directory: str, shm_file: str
) -> None:
    with python(MAP_MANY, arguments=[disk_directory, shm_file]) as child:
        context = watched(child)
        with open(f"/proc/{child.pid}/smaps", "rb") as file:
            truth = file.read()
    before, after = regions_of(context, 0), regions_of(context, 1)
    for figure in ("size_bytes", "rss_bytes"):
        assert grown(before, after, "memfd", figure) == 3 * PAGE
        assert grown(before, after, "deleted-file", figure) == 5 * PAGE
        assert grown(before, after, "shared-file", figure) == 7 * PAGE
        assert grown(before, after, "tmpfs-file", figure) == 11 * PAGE
        assert grown(before, after, "shared-anonymous", figure) == 13 * PAGE
        assert grown(before, after, "jit-code", figure) == 17 * PAGE
    stacks = [region for region in after if region.kind == "thread-stack"]
    assert [region.count for region in stacks] == [9]
    grown_rss = grown(before, after, "anonymous", "rss_bytes")
    assert grown_rss is not None and 64 * MB <= grown_rss < 66 * MB
    large = [r for r in context.emitted(Region) if r.snapshot == 1 and r.start_address]
    assert max(r.rss_bytes or 0 for r in large) >= 64 * MB
    # Every byte of every figure, against the plain sum over the same process's text.
    assert sum(r.rss_bytes or 0 for r in after) == 1024 * kilobytes(truth, b"Rss:")
    assert sum(r.private_dirty_bytes or 0 for r in after) == 1024 * kilobytes(
        truth, b"Private_Dirty:"
    )
    assert sum(r.size_bytes for r in after) == 1024 * kilobytes(truth, b"Size:")
    assert context.gaps == []


ALTERNATE = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
pages = 20001
base = libc.mmap(None, 4096 * pages, 3, 0x22, -1, 0)
for page in range(1, pages, 2):
    assert libc.mprotect(base + 4096 * page, 4096, int(sys.argv[1])) == 0
"""


@pytest.mark.skipif(PAGE != 4096, reason="written for pages of 4096 bytes")
def test_twenty_thousand_mappings_are_all_counted_and_none_is_called_a_stack() -> None:
    with python(ALTERNATE, arguments=["0"]) as child:
        context = RecordingContext(child.pid)
        probe = RegionsProbe()
        predicted = probe.predict(context)
        probe.begin(context, 0)
    (snapshot,) = context.emitted(RegionSnapshot)
    assert snapshot.complete and 20_001 <= snapshot.mappings < 20_200
    kinds = by_kind(regions_of(context, 0))
    assert "thread-stack" not in kinds
    assert kinds["reserved"][0] >= 10_000
    assert kinds["anonymous"][0] >= 10_000
    assert len(regions_of(context, 0)) < GROUPS_AT_ENDS
    assert predicted.cpu_ns > 200_000_000
    assert context.losses == []


ARENAS = """
import ctypes, sys, threading
threads, blocks = map(int, sys.argv[1:])
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = ctypes.c_void_p
hold = threading.Event()
def allocate():
    for _ in range(blocks): libc.malloc(ctypes.c_size_t(1000))
    done.release(); hold.wait()
done = threading.Semaphore(0)
threads = [threading.Thread(target=allocate, daemon=True) for _ in range(threads)]
for thread in threads: thread.start()
for _ in threads: done.acquire()
"""


def test_heaps_of_thread_arenas_are_told_from_stacks() -> None:
    with python(ARENAS, {"MALLOC_ARENA_MAX": "4"}, ["3", "64"]) as child:
        context = RecordingContext(child.pid)
        RegionsProbe().begin(context, 0)
    kinds = by_kind(regions_of(context, 0))
    assert kinds["arena-heap"][0] == 3
    assert kinds["thread-stack"][0] == 3


@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="heaps are smaller on 32-bit machines")
def test_a_heap_that_is_full_is_still_one_of_an_arena() -> None:
    # 68 MB in blocks of 1,000 bytes: one heap of 64 MiB is full, the rest is in a second one.
    with python(ARENAS, {"MALLOC_ARENA_MAX": "4"}, ["1", "68000"]) as child:
        context = RecordingContext(child.pid)
        RegionsProbe().begin(context, 0)
    (heaps,) = [r for r in regions_of(context, 0) if r.kind == "arena-heap"]
    assert heaps.count in (1, 2)  # one where they lie beside each other
    assert 68_000 * 1008 < (heaps.rss_bytes or 0) < 68_000 * 1024


BEHIND_A_LIBRARY = """
import _ctypes, ctypes, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
READ, WRITE, EXECUTE, PRIVATE, FIXED, ANONYMOUS = 1, 2, 4, 2, 16, 32
file = os.open(_ctypes.__file__, os.O_RDONLY)
at = libc.mmap(None, 12 << 20, 0, PRIVATE | ANONYMOUS, -1, 0)
libc.mmap(at, 4096, READ | EXECUTE, PRIVATE | FIXED, file, 0)
libc.mmap(at + 4096, 4096, READ | WRITE, PRIVATE | FIXED, file, 0)
libc.mmap(at + 8192, 9 << 20, READ | WRITE, PRIVATE | FIXED | ANONYMOUS, -1, 0)
ctypes.memset(at + 8192, 1, 9 << 20)
"""


def test_memory_that_a_program_maps_right_behind_a_library_is_not_the_librarys() -> None:
    with python(BEHIND_A_LIBRARY) as child:
        context = RecordingContext(child.pid)
        RegionsProbe().begin(context, 0)
    data = [r for r in regions_of(context, 0) if r.kind == "library-data"]
    assert data
    assert all((r.anonymous_bytes or 0) < 2 * MB for r in data), data
