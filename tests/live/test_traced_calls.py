"""Calls that are counted at the entry points found are those that the program made, to the one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.system.allocation_tracer import AllocationTracer
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.trace.entry_points import find_entry_points
from tests.collector.system.compiled import compiled
from tests.collector.system.started import needs_root
from tests.collector.trace.libraries import PRELOADED, library

pytestmark = needs_root

SYSTEM = System()
SOURCES = Path(__file__).parents[1] / "collector" / "trace"

#: What known_calls.c does; memalign and its kin are told apart only where the library does.
CALLS = {"malloc": 1000, "calloc": 53, "realloc": 61, "mmap": 11}
ALIGNED = ("posix-memalign", "aligned-alloc", "memalign")
ALIGNED_CALLS = 29 + 31 + 37
BYTES = (
    sum(range(100, 1100)) + 53 * 120 + sum(range(2000, 2061)) + 29 * 200 + 31 * 640 + 37 * 333
) + 11 * 8192
KEPT = {"malloc": 1000 - 400 - 61, "calloc": 53, "realloc": 61, "mmap": 11 - 7}
#: What known_news.cc does.
NEWS, DELETES = 1000 + 53 + 29 + 31, 400 + 17 + 13


class Counted:
    """What the tracer says of one run of a program that waits for a byte, works and says so."""

    def __init__(self, arguments: Sequence[str], preloaded: str | None, method: str | None) -> None:
        environment = {**os.environ, "LD_PRELOAD": preloaded} if preloaded else None
        with subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as process:
            try:
                self._count(process, method)
            finally:
                process.kill()

    def _count(self, process: subprocess.Popen[bytes], method: str | None) -> None:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        with (
            ProcessIdentity(SYSTEM, process.pid) as identity,
            find_entry_points(SYSTEM, identity) as points,
        ):
            try:
                tracer = AllocationTracer(process.pid, points.points, method=method)
                with tracer:
                    tracer.arm()
                    process.stdin.write(b"x")
                    process.stdin.flush()
                    assert process.stdout.readline() == b"done\n"
                    tracer.stop_allocations()
                    tracer.detach()
                    self.counters = tracer.counters()
                    self.kept = tracer.live()
            except (NotPermitted, NotSupported) as error:
                pytest.skip(str(error))
        process.stdin.close()
        assert process.wait(10) == 0


def assert_known_calls(found: Counted) -> None:
    calls = found.counters.calls
    assert {name: calls.get(name, 0) for name in CALLS} == CALLS
    assert sum(calls.get(name, 0) for name in ALIGNED) == ALIGNED_CALLS
    assert found.counters.allocated_bytes == BYTES
    by_call = Counter(block.call for block in found.kept)
    assert {name: by_call[name] for name in KEPT} == KEPT
    assert sum(by_call[name] for name in ALIGNED) == ALIGNED_CALLS


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", ()), ("gcc", ("-static",)), ("musl-gcc", ()), ("musl-gcc", ("-static",))],
    ids=["glibc", "static-glibc", "musl", "static-musl"],
)
def test_each_call_of_the_c_library_s_malloc_is_counted_once(
    tmp_path: Path, compiler: str, flags: tuple[str, ...]
) -> None:
    source = (SOURCES / "known_calls.c").read_text()
    program = compiled(tmp_path, "p", source, ("-fno-builtin", *flags), compiler)
    found = Counted([program], None, None)
    assert_known_calls(found)
    if not flags and compiler == "gcc":
        assert found.counters.calls["free"] == 400  # free(NULL) costs nothing and counts nothing


@pytest.mark.parametrize(
    ("name", "method"), [*((name, None) for name in PRELOADED), ("mimalloc", "uprobe-perf")]
)
def test_each_call_of_another_allocator_is_counted_once(
    tmp_path: Path, name: str, method: str | None
) -> None:
    source = (SOURCES / "known_calls.c").read_text()
    program = compiled(tmp_path, "p", source, ("-fno-builtin",))
    assert_known_calls(Counted([program], library(name), method))


def compiled_cpp(directory: Path, source: str) -> str:
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed")
    program = str(directory / "p")
    command = ["g++", "-std=c++17", "-O1", "-fno-builtin", "-o", program, str(SOURCES / source)]
    subprocess.run(command, check=True)
    return program


@pytest.mark.parametrize("name", ["", *PRELOADED])
def test_each_operator_new_and_delete_is_counted_once(tmp_path: Path, name: str) -> None:
    program = compiled_cpp(tmp_path, "known_news.cc")
    found = Counted([program], library(name) if name else None, None)
    assert found.counters.allocations == NEWS
    assert found.counters.freed_blocks == DELETES
    assert len(found.kept) == NEWS - DELETES
    own = {block.call for block in found.kept} == {"operator-new"}
    assert own == bool(name)  # the C++ library's own calls malloc


@pytest.mark.parametrize("method", [None, "uprobe-multi"], ids=["best", "multi"])
@pytest.mark.parametrize("name", ["jemalloc", "tcmalloc"])
def test_an_operator_new_that_fails_still_throws_to_its_caller(
    tmp_path: Path, name: str, method: str | None
) -> None:
    # Were its return watched, the exception would end the program; `Counted` asserts that it
    # came to its own end. (mimalloc's, written in C, aborts by itself.)
    Counted([compiled_cpp(tmp_path, "failing_news.cc")], library(name), method)
