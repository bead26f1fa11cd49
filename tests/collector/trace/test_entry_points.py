"""Entry points in real processes: every allocator, however it got there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.door import System
from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.trace.entry_points import EntryPoints, find_entry_points
from tests.collector.system.compiled import ALLOCATES, compiled
from tests.collector.system.started import needs_root, started
from tests.collector.trace.disassembled import disassembled, function_addresses
from tests.collector.trace.libraries import PRELOADED, library

SYSTEM = System()
SOURCE = (Path(__file__).parent / "known_calls.c").read_text()
CORE = {"malloc", "calloc", "realloc", "posix-memalign", "free", "mmap", "munmap"}


@contextlib.contextmanager
def found(program: str, **options: Any) -> Iterator[EntryPoints]:
    """The entry points of `program`, running, after it has printed a line."""
    with started([program], stdout=subprocess.PIPE, **options) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with points_of(process.pid) as points:
            yield points


@contextlib.contextmanager
def points_of(pid: int) -> Iterator[EntryPoints]:
    with ProcessIdentity(SYSTEM, pid) as identity, find_entry_points(SYSTEM, identity) as points:
        yield points


def offsets_in(path: str, points: list[EntryPoint]) -> dict[str, int]:
    """How far behind its function's start each point of that file is."""
    addresses = function_addresses(path)
    text = next(row for row in _sections(path) if row[0] == ".text")
    inode = os.stat(path).st_ino
    here = [point for point in points if os.stat(point.path).st_ino == inode]
    return {
        point.function: point.file_offset - text[2] + text[1] - addresses[point.function][0]
        for point in here
    }


def _sections(path: str) -> list[tuple[str, int, int]]:
    """Name, address and file offset of each section, by readelf."""
    output = subprocess.run(
        ["readelf", "--wide", "--section-headers", path], check=True, capture_output=True, text=True
    ).stdout
    rows = [row.partition("]")[2].split() for row in output.splitlines() if "]" in row]
    return [(row[0], int(row[2], 16), int(row[3], 16)) for row in rows if row[1] == "PROGBITS"]


@pytest.mark.parametrize(
    ("compiler", "flags", "allocator", "file"),
    [
        ("gcc", (), "glibc", "glibc"),
        ("gcc", ("-static",), "glibc", ""),
        ("musl-gcc", (), "musl", "musl"),
        ("musl-gcc", ("-static",), "musl", ""),
    ],
    ids=["glibc", "static-glibc", "musl", "static-musl"],
)
def test_the_c_library_s_functions_are_found_each_at_a_cheap_place(
    tmp_path: Path, compiler: str, flags: tuple[str, ...], allocator: str, file: str
) -> None:
    program = compiled(tmp_path, "p", SOURCE, flags, compiler)
    with found(program) as points:
        assert points.allocator == allocator and not points.refused
        calls = Counter(point.call for point in points.points)
        assert set(calls) >= CORE and set(calls.values()) == {1}
        costly = {point.call for point in points.points if not point.emulated}
        assert costly <= {"munmap", "mremap"}
        places = offsets_in(library(file) if file else program, points.points)
        assert len(places) == len(points.points)
        assert all(0 <= offset < 64 for offset in places.values()), places
        for point in points.points:
            assert point.return_probe == (point.call not in ("free", "munmap"))
            assert (point.hit_ns == 1000) == point.emulated


@pytest.mark.parametrize("name", PRELOADED)
def test_a_preloaded_allocator_s_functions_are_found_in_its_own_file(
    tmp_path: Path, name: str
) -> None:
    program = compiled(tmp_path, "p", SOURCE)
    path = library(name)
    with found(program, env={**os.environ, "LD_PRELOAD": path}) as points:
        assert points.allocator == name
        assert {point.call for point in points.points} >= CORE
        mine = offsets_in(path, points.points)
        assert {"malloc", "calloc", "realloc", "free"} <= set(mine)
        others = {point.call for point in points.points if point.function not in mine}
        assert others <= {"mmap", "munmap", "mremap"}
        assert all(point.emulated for point in points.points if point.function in mine)


@pytest.mark.parametrize("name", PRELOADED)
def test_each_place_is_a_whole_instruction_s_first_byte_as_objdump_has_it(
    tmp_path: Path, name: str
) -> None:
    path = library(name)
    program = compiled(tmp_path, "p", SOURCE)
    with found(program, env={**os.environ, "LD_PRELOAD": path}) as points:
        addresses = function_addresses(path)
        for function, offset in offsets_in(path, points.points).items():
            start = addresses[function][0]
            bounds = (f"--start-address={start}", f"--stop-address={start + offset + 16}")
            assert start + offset in [line.address for line in disassembled(path, *bounds)]


def test_functions_of_one_address_are_watched_once(tmp_path: Path) -> None:
    program = compiled(tmp_path, "p", SOURCE)
    with found(program, env={**os.environ, "LD_PRELOAD": library("mimalloc")}) as points:
        places = [(os.stat(point.path).st_ino, point.file_offset) for point in points.points]
        assert len(places) == len(set(places))
        # aligned_alloc does no more than jump to mi_aligned_alloc, which nobody else calls.
        assert Counter(point.call for point in points.points)["aligned-alloc"] == 1


def test_an_allocator_inside_the_program_under_its_own_names_is_watched_beside_malloc(
    tmp_path: Path,
) -> None:
    """As in Rust programs with the jemalloc crate."""
    source = (
        ALLOCATES
        + r"""
    __attribute__((noinline)) void *_rjem_mallocx(unsigned long n, int flags) { return sbrk(n); }
    __attribute__((noinline)) void _rjem_sdallocx(void *p, unsigned long n, int flags) { sbrk(0); }
    int _rjem_mallctl(void) { return _rjem_mallocx(1, 0) == 0; }
    """
    )
    with found(compiled(tmp_path, "p", source)) as points:
        assert points.allocator == "glibc"
        by_function = {point.function: point.call for point in points.points}
    assert by_function["_rjem_mallocx"] == "malloc" and by_function["malloc"] == "malloc"
    assert by_function["_rjem_sdallocx"] == "free"


def test_what_nobody_calls_is_not_watched(tmp_path: Path) -> None:
    program = compiled(tmp_path, "p", SOURCE)
    with found(program, env={**os.environ, "LD_PRELOAD": library("jemalloc")}) as points:
        assert not {"mallocx", "rallocx", "sdallocx"} & {p.function for p in points.points}
    source = "extern void *mallocx(unsigned long, int);\n" + ALLOCATES.replace(
        "malloc(", "mallocx(0+"
    )
    flags = ("-xnone", library("jemalloc"))
    program = compiled(tmp_path, "q", source.replace("(0+100)", "(100, 0)"), flags)
    with found(program) as points:
        by_function = {point.function: point.call for point in points.points}
        assert by_function["mallocx"] == "malloc"


def test_operator_new_is_left_out_where_it_may_fail_with_an_exception(tmp_path: Path) -> None:
    program = compiled(tmp_path, "p", SOURCE)
    environment = {**os.environ, "LD_PRELOAD": library("tcmalloc")}
    with found(program, env=environment) as points:  # `started` limits the address space
        assert not points.watches("operator-new")
        assert ("operator-new", "no-entry-point") in points.refused
    with subprocess.Popen(
        [program], env=environment, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        with points_of(process.pid) as points:
            new = [point for point in points.points if point.call == "operator-new"]
            assert new and all(point.may_throw for point in new)
        process.kill()


def test_a_program_s_own_malloc_is_watched_and_the_c_library_s_where_it_has_none(
    tmp_path: Path,
) -> None:
    own = """
    static char store[1 << 16]; static unsigned long used;
    void *malloc(unsigned long n) { used += 128; return n > 128 ? 0 : store + used - 128; }
    void free(void *p) { if (p) store[0]++; }
    """
    program = compiled(tmp_path, "p", ALLOCATES + own)
    with found(program) as points:
        assert points.allocator == "other"
        inode = os.stat(program).st_ino
        by_call = {point.call: os.stat(point.path).st_ino for point in points.points}
        assert by_call["malloc"] == by_call["free"] == inode
        assert by_call["calloc"] == by_call["realloc"] == os.stat(library("glibc")).st_ino


@needs_root
def test_a_deleted_library_is_opened_as_it_is_mapped(tmp_path: Path) -> None:
    copied = tmp_path / "liballocator.so"
    shutil.copy(library("jemalloc"), copied)
    program = compiled(tmp_path, "p", SOURCE)
    with started(
        [program], stdout=subprocess.PIPE, env={**os.environ, "LD_PRELOAD": str(copied)}
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        inode = copied.stat().st_ino
        copied.unlink()
        shutil.copy(library("mimalloc"), copied)  # another file under its name
        with points_of(process.pid) as points:
            assert points.allocator == "jemalloc"
            malloc = next(point for point in points.points if point.call == "malloc")
            assert os.stat(malloc.path).st_ino == inode


@needs_root
def test_in_another_root_the_library_of_that_root_is_opened(tmp_path: Path) -> None:
    root = tmp_path / "root"
    program = compiled(tmp_path, "p", SOURCE)
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    libraries = [word for word in listed.split() if word.startswith("/")]
    for path in [program, *libraries]:
        inside = root / (Path(path).name if path == program else path[1:])
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, inside)
    with subprocess.Popen(
        ["chroot", str(root), "/p"], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        with points_of(process.pid) as points:
            malloc = next(point for point in points.points if point.call == "malloc")
            assert os.stat(malloc.path).st_ino in {p.stat().st_ino for p in root.rglob("libc*")}
            assert os.stat(malloc.path).st_ino != os.stat(library("glibc")).st_ino
        process.kill()


def test_a_program_without_malloc_is_refused_in_a_sentence(tmp_path: Path) -> None:
    source = """
    static long call(long n, long a, long b, long c) { long r; __asm__ volatile("syscall"
        : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory"); return r; }
    void _start(void) { call(1, 1, (long)"up\\n", 3); for (;;) call(34, 0, 0, 0); }
    """
    program = compiled(tmp_path, "p", source, ("-static", "-nostdlib", "-O1"))
    with started([program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        with pytest.raises(NotSupported, match="no malloc and free") as refusal:
            points_of(process.pid).__enter__()
    assert refusal.value.gap_detail == "no-entry-point"
    assert not [name for name in os.listdir("/proc/self/fd") if _names(name, program)]


def test_a_program_inside_valgrind_is_refused_as_a_probe_would_end_it(tmp_path: Path) -> None:
    if not shutil.which("valgrind"):
        pytest.skip("valgrind is not installed")
    program = compiled(tmp_path, "p", SOURCE)
    with subprocess.Popen(
        ["valgrind", "-q", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        with pytest.raises(NotSupported, match="inside Valgrind"), points_of(process.pid):
            pass
        process.kill()


PATCHES = """
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
static void *hook(unsigned long n) { return sbrk(n); }
__attribute__((constructor)) static void patch(void) {
    uint8_t *at = (uint8_t *)%s, jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
    void *to = hook; memcpy(jump + 2, &to, 8);
    mprotect((void *)((uintptr_t)at & ~4095ul), 8192, 7); memcpy(at, jump, sizeof jump);
}
"""


def test_code_that_something_has_patched_in_memory_is_left_alone(tmp_path: Path) -> None:
    """The kernel would carry out what the file has there, and go on in the midst of the patch."""
    calloc = compiled(tmp_path, "c", ALLOCATES + PATCHES % "calloc")
    with found(calloc) as points:
        assert ("calloc", "no-entry-point") in points.refused
        assert not points.watches("calloc") and points.watches("malloc")
    malloc = compiled(tmp_path, "m", ALLOCATES + PATCHES % "malloc")
    with pytest.raises(NotSupported, match="patched its code"):
        found(malloc).__enter__()


def test_code_that_was_moved_to_other_pages_is_left_alone(tmp_path: Path) -> None:
    """As programs do that put their code into huge pages: a probe in the file is never hit."""
    source = (
        ALLOCATES
        + """
    #define _GNU_SOURCE
    #include <stdint.h>
    #include <string.h>
    #include <sys/mman.h>
    void *mremap(void *, unsigned long, unsigned long, int, ...);
    __attribute__((constructor)) static void move(void) {
        uint8_t *page = (uint8_t *)((uintptr_t)calloc & ~4095ul);
        uint8_t *copy = mmap(0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memcpy(copy, page, 4096); mremap(copy, 4096, 4096, 3, page);
    }
    """
    )
    with found(compiled(tmp_path, "p", source)) as points:
        assert ("calloc", "no-entry-point") in points.refused
        assert points.watches("malloc")


def _names(descriptor: str, path: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == path
    except FileNotFoundError:
        return False


def test_a_function_given_by_its_address_is_watched_behind_its_context(tmp_path: Path) -> None:
    source = ALLOCATES.replace(
        "int main(void) {",
        "__attribute__((noinline)) void *taken(void *it, long n) { return malloc(n + !it); }\n"
        'int main(void) { taken(0, 3); printf("%p\\n", taken);',
    )
    program = compiled(tmp_path, "p", source)
    with started([program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        address = int(process.stdout.readline(), 16)
        with points_of(process.pid) as points:
            point = points.add_function("malloc", address, skipped=1)
            assert point is not None and point in points.points
            assert point.arguments == (6,)  # rsi
            assert os.stat(point.path).st_ino == os.stat(program).st_ino
            assert points.add_function("malloc", address, skipped=1) is None
            with pytest.raises(NotSupported, match="no file is mapped"):
                points.add_function("malloc", 0x10)


def test_only_the_files_with_points_stay_open_and_none_after_the_end(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    program = compiled(tmp_path, "p", SOURCE)
    with started([program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        with ProcessIdentity(SYSTEM, process.pid) as identity:
            points = find_entry_points(SYSTEM, identity)
            kept = {os.path.basename(point.path) for point in points.points}
            opened = {os.readlink(f"/proc/self/fd/{number}") for number in kept}
            assert opened == {os.path.realpath(library("glibc"))}
            points.close()
    assert set(os.listdir("/proc/self/fd")) == before
