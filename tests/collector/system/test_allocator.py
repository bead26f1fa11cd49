"""Whose malloc: on real processes with every allocator, however it was linked."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakcase_collector.system.allocator import (
    FoundAllocator,
    ModuleFacts,
    allocator_facts,
    allocators,
)
from leakcase_collector.system.door import System
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.modules import MappedModule, mapped_modules, open_module
from tests.collector.system.compiled import compiled
from tests.collector.system.elf_builder import BytesReader, TinyElf
from tests.collector.system.started import started, started_python, wait_until

SYSTEM = System()
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
PRELOADS = {
    "jemalloc": ("libjemalloc.so.2", "libjemalloc2"),
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
    "mimalloc": ("libmimalloc.so.2.0", "libmimalloc2.0"),
}


def facts_of(pid: int) -> list[ModuleFacts]:
    program = SYSTEM.status(f"/proc/{pid}/exe").st_ino
    facts = []
    for module in mapped_modules(SYSTEM, pid):
        with open_module(SYSTEM, pid, module) as file:
            facts.append(allocator_facts(ElfFile(file), module, file.inode == program))
    return facts


def effective(found: list[FoundAllocator]) -> tuple[str, str, str]:
    """Kind, linkage and evidence of the one that malloc reaches; there is at most one."""
    assert [one.is_effective for one in found] == [True] + [False] * (len(found) - 1)
    return found[0].kind, found[0].linkage, found[0].evidence


@contextlib.contextmanager
def running(program: str, **options: object) -> Iterator[int]:
    with started([program], stdout=subprocess.PIPE, **options) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        yield process.pid


@pytest.mark.parametrize("strip", [False, True], ids=["whole", "stripped"])
@pytest.mark.parametrize(
    ("compiler", "flags", "expected"),
    [
        ("gcc", (), ("glibc", "shared", "library")),
        ("gcc", ("-static",), ("glibc", "static", "")),
        ("musl-gcc", (), ("musl", "shared", "library")),
        ("musl-gcc", ("-static",), ("musl", "static", "")),
    ],
    ids=["glibc", "static-glibc", "musl", "static-musl"],
)
def test_the_c_library_s_own_malloc_is_recognised(
    tmp_path: Path, compiler: str, flags: tuple[str, ...], expected: tuple[str, ...], strip: bool
) -> None:
    program = compiled(tmp_path, "p", flags=flags, compiler=compiler, strip=strip)
    with running(program) as pid:
        found = allocators(facts_of(pid))
    evidence = expected[2] or ("banner" if strip else "symbol")
    assert effective(found) == (expected[0], expected[1], evidence)
    assert len(found) == 1


def test_glibc_s_version_is_the_one_that_it_reports(tmp_path: Path) -> None:
    with running(compiled(tmp_path, "p")) as pid:
        found = allocators(facts_of(pid))
    reported = os.confstr("CS_GNU_LIBC_VERSION")
    assert reported == f"glibc {found[0].version}"


@pytest.mark.parametrize("is_told", [True, False], ids=["environment-known", "environment-hidden"])
@pytest.mark.parametrize("kind", PRELOADS)
def test_a_preloaded_allocator_comes_before_the_c_library(
    tmp_path: Path, kind: str, is_told: bool
) -> None:
    library, package = PRELOADS[kind]
    if not (LIBRARIES / library).exists():
        pytest.skip(f"{package} is not installed")
    program = compiled(tmp_path, "p")
    with running(program, env={"LD_PRELOAD": f"{LIBRARIES}/{library}"}) as pid:
        found = allocators(facts_of(pid), [f"{LIBRARIES}/{library}"] if is_told else [])
    assert effective(found) == (kind, "preloaded", "library")
    assert found[0].version is not None
    assert [(one.kind, one.linkage) for one in found[1:]] == [("glibc", "shared")]


def test_the_first_of_two_preloaded_allocators_wins(tmp_path: Path) -> None:
    names = [str(LIBRARIES / PRELOADS[kind][0]) for kind in ("tcmalloc", "mimalloc")]
    if not all(map(os.path.exists, names)):
        pytest.skip("libtcmalloc-minimal4 or libmimalloc2.0 is not installed")
    program = compiled(tmp_path, "p")
    for order in (names, names[::-1]):
        with running(program, env={"LD_PRELOAD": " ".join(order)}) as pid:
            found = allocators(facts_of(pid), order)
        assert os.path.realpath(order[0]) == found[0].path
        assert found[1].linkage == "preloaded"


@pytest.mark.parametrize("kind", PRELOADS)
def test_an_allocator_that_the_program_is_linked_with_is_found(tmp_path: Path, kind: str) -> None:
    library, package = PRELOADS[kind]
    if not (LIBRARIES / library).exists():
        pytest.skip(f"{package} is not installed")
    program = compiled(tmp_path, "p", flags=("-Wl,--no-as-needed", f"-l:{library}"))
    with running(program) as pid:
        assert effective(allocators(facts_of(pid))) == (kind, "shared", "library")


OWN_ALLOCATOR = """
void *mallctl; void *malloc(unsigned long n) { return 0; } void free(void *p) { }
"""


def test_an_allocator_that_only_a_later_plugin_needs_does_not_serve_malloc(tmp_path: Path) -> None:
    shared = ("-shared", "-fPIC")
    compiled(tmp_path, "libown.so", OWN_ALLOCATOR, (*shared, "-Wl,-soname,libown.so"))
    needs = ("-Wl,--no-as-needed", f"-L{tmp_path}", "-lown", f"-Wl,-rpath,{tmp_path}")
    plugin = compiled(tmp_path, "plugin.so", "int plugin;", (*shared, *needs))
    code = f"import ctypes, time; ctypes.CDLL('{plugin}'); print(1); time.sleep(60)"
    with started_python(code) as process:
        found = allocators(facts_of(process.pid))
    assert effective(found)[0] == "glibc"
    assert [(one.kind, one.linkage) for one in found[1:]] == [("jemalloc", "shared")]


OWN_MALLOC = """
#include <stdio.h>
#include <unistd.h>
static char pool[1 << 20]; static unsigned long used;
void *malloc(unsigned long n) { void *p = pool + used; used += (n + 15) & ~15ul; return p; }
void free(void *p) { }
void *calloc(unsigned long n, unsigned long m) { return malloc(n * m); }
void *realloc(void *p, unsigned long n) { return malloc(n); }
int main(void) { printf("%d\\n", malloc(100) != 0); fflush(stdout); sleep(60); return 0; }
"""
PREFIXED = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
const char *je_message = "<jemalloc>: Out-of-range conf value\\n";
__attribute__((noinline)) void *je_malloc(unsigned long n) { return sbrk(n); }
int main(int c, char **v) { printf("%d\\n", je_malloc(100) != 0 && je_message != 0);
  fflush(stdout); sleep(60); return 0; }
"""


@pytest.mark.parametrize("strip", [False, True], ids=["whole", "stripped"])
def test_a_malloc_that_nobody_knows_is_called_other(tmp_path: Path, strip: bool) -> None:
    with running(compiled(tmp_path, "p", OWN_MALLOC, strip=strip)) as pid:
        found = allocators(facts_of(pid))
    assert effective(found) == ("other", "static", "dynamic-symbol")
    assert [one.kind for one in found] == ["other", "glibc"]


@pytest.mark.parametrize(
    ("strip", "evidence"), [(False, "symbol"), (True, "banner")], ids=["whole", "stripped"]
)
def test_an_allocator_inside_the_program_under_its_own_names_is_static_and_not_effective(
    tmp_path: Path, strip: bool, evidence: str
) -> None:
    with running(compiled(tmp_path, "p", PREFIXED, strip=strip)) as pid:
        found = allocators(facts_of(pid))
    assert effective(found) == ("glibc", "shared", "library")
    assert [(one.kind, one.linkage, one.evidence) for one in found[1:]] == [
        ("jemalloc", "static", evidence)
    ]


@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")
def test_debian_s_redis_server_uses_jemalloc(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    with started([*command, "--bind", "127.0.0.1"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert any(b"Ready to accept" in line for line in process.stdout)
        found = allocators(facts_of(process.pid))
    assert effective(found)[0] == "jemalloc"
    assert found[0].version is not None


def test_a_loader_s_malloc_serves_callers_only_where_the_loader_is_the_c_library(
    tmp_path: Path,
) -> None:
    """Alpine's musl: the file is the loader, and its soname is what programs need."""
    source = OWN_ALLOCATOR.replace("mallctl", "{}")
    for extra, name, soname, serves in (
        ("__dls3", "ld-musl-x86_64.so.1", "libc.musl-x86_64.so.1", True),
        ("__rtld", "ld-linux-x86-64.so.2", "ld-linux-x86-64.so.2", False),
    ):
        flags = ("-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{soname}")
        path = compiled(tmp_path, name, source.replace("{}", extra), flags)
        module = MappedModule(f"/lib/{name}", 1, 0, 1, 0, False)
        facts = allocator_facts(ElfFile(BytesReader(Path(path).read_bytes())), module, False)
        assert facts.defines_malloc == serves


def test_a_program_without_any_malloc_has_no_allocator() -> None:
    """As Go's: static, with memory management of its own."""
    elf = ElfFile(BytesReader(TinyElf(kind=2, local=("runtime.mallocgc",)).build()))
    module = MappedModule("/opt/service", 1, 0x400000, 0x500000, 0x400000, False)
    assert allocators([allocator_facts(elf, module, True)]) == []


def module_facts(
    name: str, address: int, needed: tuple[str, ...] = (), kind: str | None = None
) -> ModuleFacts:
    is_program = not name.endswith((".so", ".6", ".2"))
    return ModuleFacts(
        MappedModule(f"/lib/{name}", address, address, address + 1, address, False),
        is_program,
        None if is_program else name,
        needed,
        kind is not None,
        kind,
        "library" if kind else None,
        None,
    )


def test_the_search_is_breadth_first_as_the_loader_s() -> None:
    facts = [
        module_facts("app", 1, ("libfirst.so", "libsecond.so", "libc.so.6")),
        module_facts("libfirst.so", 2, ("libje.so",)),
        module_facts("libsecond.so", 3, (), "tcmalloc"),
        module_facts("libje.so", 4, (), "jemalloc"),
        module_facts("libc.so.6", 5, (), "glibc"),
    ]
    assert allocators(facts)[0].kind == "tcmalloc"
    assert allocators(facts, ["libje.so"])[0].kind == "jemalloc"
    assert allocators(facts, ["libje.so"])[0].linkage == "preloaded"
    assert allocators(facts, ["libmissing.so"])[0].kind == "tcmalloc"


def test_needing_each_other_in_a_circle_ends() -> None:
    facts = [
        module_facts("app", 1, ("liba.so",)),
        module_facts("liba.so", 2, ("libb.so",)),
        module_facts("libb.so", 3, ("liba.so", "libc.so.6")),
        module_facts("libc.so.6", 4, (), "glibc"),
    ]
    assert allocators(facts)[0].kind == "glibc"


def test_a_loaded_process_is_settled_before_it_is_judged() -> None:
    with started(["sleep", "60"]) as process:
        wait_until(lambda: len(mapped_modules(SYSTEM, process.pid)) >= 3)
        assert effective(allocators(facts_of(process.pid)))[0] == "glibc"
