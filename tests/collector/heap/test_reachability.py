"""What nothing refers to any more: as many blocks as the program lost, and no other."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from leakcase_collector.errors import OverBudget
from leakcase_collector.heap import reachability
from leakcase_collector.heap.census import Budget
from leakcase_collector.heap.reachability import Means, Unreachable, find_unreachable, look_once
from leakcase_collector.heap.roots import thread_states
from leakcase_collector.system import native
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory
from tests.collector.heap import subjects
from tests.collector.heap.subjects import VERSIONS
from tests.collector.system.started import started

HERE = Path(__file__).parent
PROGRAM_SECONDS = 100
needs_native = pytest.mark.skipif(native.load() is None, reason="the native part is not built")


def built(folder: Path, source: str, *flags: str) -> Path:
    """The compiled program; skips the test where there is no compiler for it."""
    compiler = "g++" if source.endswith("cpp") else "gcc"
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    target = folder / ("-".join((Path(source).stem, *flags)).replace("=", "-"))
    command = [compiler, "-O1", "-g", "-pthread", "-o", str(target), *flags, str(HERE / source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode and flags:
        pytest.skip(f"{compiler} has no {' '.join(flags)}: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return target


@contextlib.contextmanager
def running(program: Path) -> Iterator[tuple[int, bytes]]:
    """Its pid, and the line that it prints when it is ready."""
    with started([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.pid, process.stdout.readline()


def looked(pid: int, look: Callable[..., Any], *arguments: Any) -> Any:
    system = System()
    budget = Budget(1 << 40, 60_000_000_000)
    with ProcessIdentity(system, pid) as held, ProcessMemory(system, held) as memory:
        return look(memory, budget, lambda: thread_states(system, pid), *arguments)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("references"), "references.cpp")


@pytest.fixture(scope="module")
def idle(program: Path) -> Iterator[tuple[int, int, int]]:
    """Its pid, the blocks that it lost, and the bytes of their chunks."""
    with running(program) as (pid, line):
        blocks, size = map(int, line.split())
        yield pid, blocks, size


def test_as_many_blocks_are_unreachable_as_the_program_lost(idle: tuple[int, int, int]) -> None:
    pid, blocks, size = idle
    found: Unreachable = looked(pid, find_unreachable, Means(native.load()))
    assert (len(found.blocks), sum(b.size_bytes for b in found.blocks)) == (blocks, size)
    assert (found.passes, found.unsteady_chunks) == (2, 0)
    assert found.last.is_complete
    assert found.last.threads == 5
    assert found.last.chunks - blocks > 200_000, "it holds on to more"


def test_of_what_was_lost_together_only_the_first_is_lost_directly(
    idle: tuple[int, int, int],
) -> None:
    pid, _, _ = idle
    blocks = looked(pid, look_once, Means(native.load())).blocks
    # Of the six kinds the ring has no first one. Tables of 300,000 bytes are lost as one, too, and
    # objects of C++ that refer to themselves (std::map, std::list) are still one.
    direct = [block for block in blocks if not block.is_indirect]
    losses = 20 + 4
    assert losses <= len(direct) <= 5 * losses


@needs_native
def test_both_twins_find_the_same_blocks_with_the_same_content(
    idle: tuple[int, int, int],
) -> None:
    pid, blocks, _ = idle
    by_c = looked(pid, look_once, Means(native.load()))
    by_python = looked(pid, look_once, Means(None))
    assert list(by_c.blocks) == list(by_python.blocks)
    assert len({block.content for block in by_c.blocks}) > blocks // 2, "contents tell them apart"
    assert by_c[:-1] == by_python[:-1]


def _outside(program: Sequence[str], pattern: str) -> int:
    done = subprocess.run(
        program, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROGRAM_SECONDS
    )
    said = re.findall(pattern, done.stdout + done.stderr)
    assert said, done.stderr[-2000:]
    return sum(int(number.replace(",", "")) for number in said)


def test_leak_sanitizer_finds_the_same_within_a_hundredth(
    tmp_path: Path, idle: tuple[int, int, int]
) -> None:
    program = built(tmp_path, "references.cpp", "-fsanitize=leak")
    theirs = _outside([str(program)], r"SUMMARY: \w+: \d+ byte\(s\) leaked in (\d+) allocation")
    assert theirs == pytest.approx(idle[1], rel=0.01)


def test_valgrind_finds_the_same_within_a_hundredth(
    program: Path, idle: tuple[int, int, int]
) -> None:
    if not shutil.which("valgrind"):
        pytest.skip("valgrind is not installed")
    if not list(Path("/usr/include").glob("valgrind/memcheck.h")):
        pytest.skip("valgrind's header was not there when the program was compiled")
    command = ["valgrind", "--leak-check=no", str(program)]
    # Blocks that only pointers into their middle lead to are "possibly" lost to it.
    theirs = _outside(command, r"(?:definitely|indirectly|possibly) lost: [\d,]+ bytes in ([\d,]+)")
    assert theirs == pytest.approx(idle[1], rel=0.01)


def test_sixteen_threads_that_move_and_free_lists_lose_nothing(tmp_path: Path) -> None:
    with running(built(tmp_path, "churn.c")) as (pid, line):
        assert line == b"ready\n"
        found = [looked(pid, find_unreachable, Means(native.load())) for _ in range(3)]
    assert [len(one.blocks) for one in found] == [0, 0, 0]
    assert max(one.passes for one in found) > 1, "single looks were mistaken: else this proves none"


@needs_native
@pytest.mark.parametrize("version", VERSIONS)
def test_blocks_that_stacks_and_data_refer_to_are_found_under_every_glibc(version: str) -> None:
    if subjects.program(version) is None:
        pytest.skip(f"glibc {version} could not be fetched")
    with subjects.subject("idle", 3, version=version) as running, running.memory() as memory:
        threads = partial(thread_states, System(), running.pid)
        look = look_once(memory, Budget(1 << 40, 60_000_000_000), threads, Means(native.load()))
    assert look.chunks > 15_000
    assert list(look.blocks) == []


def test_a_block_that_is_lost_between_two_looks_does_not_count_yet(tmp_path: Path) -> None:
    source = tmp_path / "loses.c"
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
        'int main(void) { puts("ready"); fflush(stdout);\n'
        "for (;;) { memset(malloc(1000), 1, 1000); usleep(20000); } }\n"
    )
    program = tmp_path / "loses"
    subprocess.run(["gcc", "-O0", "-o", str(program), str(source)], check=True, timeout=60)
    with running(program) as (pid, _):
        time.sleep(0.5)
        found: Unreachable = looked(pid, find_unreachable, Means(native.load()))
    assert 10 < len(found.blocks) < len(found.last.blocks)
    assert {block.size_bytes for block in found.blocks} == {1008}


def test_pages_that_were_never_touched_stay_so(idle: tuple[int, int, int]) -> None:
    def figures() -> tuple[str, ...]:
        text = Path(f"/proc/{idle[0]}/smaps_rollup").read_text(encoding="ascii")
        tables = re.findall(r"VmPTE:.*", Path(f"/proc/{idle[0]}/status").read_text("ascii"))
        return (*re.findall(r"^Rss:.*", text, re.MULTILINE), *tables)

    # Each of its threads has a stack of megabytes of which it uses a few pages.
    assert "VmPTE" in figures()[1]
    before = figures()
    looked(idle[0], look_once, Means(native.load()))
    assert figures() == before


def test_without_the_native_part_a_large_heap_is_not_begun(
    idle: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reachability, "PYTHON_LIMIT_BYTES", 1 << 20)
    with pytest.raises(OverBudget, match="without the native part"):
        looked(idle[0], look_once, Means(None))


def test_it_is_not_begun_where_its_tables_could_exhaust_the_host(
    idle: tuple[int, int, int],
) -> None:
    with pytest.raises(OverBudget, match="of this host's memory 3 MiB may be used"):
        looked(idle[0], look_once, Means(native.load(), 3 << 20))
