"""A core file instead of a process: the same figures, whoever wrote it, and nothing else needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leakcase_bundle import Reader
from leakcase_bundle.records import (
    CaseEnd,
    CaseHeader,
    Consent,
    HeapCensus,
    HeapClasses,
    HeapSizes,
    HeapUnreachable,
    PythonTypes,
    Target,
)
from leakcase_collector.errors import NotSupported
from leakcase_collector.heap.census import Budget, Census, take_census
from leakcase_collector.heap.cpython import count_objects
from leakcase_collector.heap.steps import best_step
from leakcase_collector.probes.core_subject import CoreSubject
from leakcase_collector.probes.python_types import find_python
from leakcase_collector.system.core_file import CoreFile
from leakcase_collector.system.core_memory import CoreMemory
from leakcase_collector.system.door import System
from tests.collector.cores import by_gdb, by_kernel, kernel_writes_here, needs_gdb, stopped
from tests.collector.heap.pythons import census as python_census
from tests.collector.heap.pythons import counts
from tests.collector.heap.subjects import subject
from tests.collector.system.compiled import compiled
from tests.collector.system.started import started, started_python

# It looks into running programs too, to compare: once is enough, on the newest Python.
pytestmark = pytest.mark.live

WRITERS = [pytest.param("gdb", marks=needs_gdb)]
if kernel_writes_here():
    WRITERS.append(pytest.param("kernel"))

#: Loses chains of three blocks, of which only the first is referred to by nothing at all.
KEPT, CHAINS = 1_013, 419
LOSES = f"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char *volatile kept[{KEPT}];
static void *volatile last;
static void lose(void) {{
    void *chain = 0;
    for (int i = 0; i < 3; i++) {{
        void **block = calloc(1, 120);
        *block = chain;
        last = chain = block;
    }}
    last = 0;
}}
int main(void) {{
    for (int i = 0; i < {KEPT}; i++) kept[i] = memset(malloc(500), 1, 500);
    for (int i = 0; i < {CHAINS}; i++) lose();
    memset(malloc(3000), 1, 3000);
    puts("ready"); fflush(stdout); sleep(60); return 0;
}}
"""


def core_of(program: str, folder: Path) -> Path:
    with started([program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        return by_gdb(process.pid, folder)


def records(case: Path) -> list[Any]:
    with case.open("rb") as file:
        return list(Reader(file))


def one(found: list[Any], kind: type[Any]) -> Any:
    (record,) = (record for record in found if isinstance(record, kind))
    return record


def captured(core: Path, case: Path, *options: str) -> list[Any]:
    done = collect("--core", str(core), "-o", str(case), *options)
    assert done.returncode == 0, done.stderr
    return records(case)


def collect(*options: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, for the collector gives way to all others and stays so."""
    command = [sys.executable, "-m", "leakcase_collector", "capture", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


# --- the same as on the process itself ------------------------------------------------------------


def books(census: Census) -> list[Any]:
    """All that a census tells of blocks; what is resident is another thing in a core file."""
    names = ("system_bytes", "heaps", "in_use_chunks", "in_use_bytes", "cached_chunks")
    names += ("cached_bytes", "fast_bytes", "free_chunks", "free_bytes", "top_bytes")
    arenas = [[getattr(arena, name) for name in names] for arena in census.arenas]
    return [arenas, census.in_use_sizes(), census.mapped, census.is_complete]


@needs_gdb
def test_a_census_of_the_core_is_that_of_the_process(tmp_path: Path) -> None:
    with subject("idle", 1) as program:
        truth = program.figures("idle")
        stopped(program.pid)
        live = program.census()
        path = by_gdb(program.pid, tmp_path)
    with CoreFile(str(path)) as core:
        census = take_census(CoreMemory(core), Budget(1 << 40, 60_000_000_000), best_step()[1])
    assert books(census) == books(live)
    sizes = census.in_use_sizes()
    assert {int(size): sizes[int(size)] for size in truth} == {int(k): v for k, v in truth.items()}
    assert census.is_complete and len(census.mapped) == 10
    path.unlink()


@needs_gdb
def test_objects_of_python_in_the_core_are_those_of_the_process(tmp_path: Path) -> None:
    code = "class Session: pass\nkept = [Session() for _ in range(4321)]\nprint()\ninput()"
    with started_python(code, stdin=subprocess.PIPE) as process:
        stopped(process.pid)
        live = python_census(process.pid)
        path = by_gdb(process.pid, tmp_path)
    with CoreFile(str(path)) as core, CoreSubject(System(), core) as found:
        image = find_python(found)
        assert image is not None
        dead = count_objects(found.memory(), image)
    assert counts(dead, "gc")["Session"] == 4321
    assert dead.types == live.types
    assert (dead.tracked, dead.pools) == (live.tracked, live.pools)


# --- as a capture ---------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", WRITERS)
def test_what_was_lost_before_the_end_is_told(writer: str, tmp_path: Path) -> None:
    program = compiled(tmp_path, "loses", LOSES)
    core = by_kernel(program, tmp_path) if writer == "kernel" else core_of(program, tmp_path)
    found = captured(core, tmp_path / "case")
    lost = one(found, HeapUnreachable)
    assert lost.complete and lost.passes == 1 and lost.swapped_bytes == 0
    # The last chain may still be referred to from what is left of a call on the stack.
    assert lost.chunk_bytes[0] == 128 and 0 <= 3 * CHAINS - lost.class_chunks[0] <= 3
    assert 0 <= CHAINS + 1 - lost.direct_chunks <= 2
    assert (lost.threads, lost.running_threads) == (1, 0)
    sizes = one(found, HeapSizes)
    in_use = dict(zip(sizes.chunk_bytes, sizes.in_use_chunks, strict=True))
    assert (in_use[512], in_use[128]) == (KEPT, 3 * CHAINS)
    assert one(found, HeapCensus).complete


@needs_gdb
def test_the_case_says_that_it_is_of_a_core_and_names_nobody(tmp_path: Path) -> None:
    program = compiled(tmp_path, "mysecretserver", LOSES)
    with started([program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        core = by_gdb(process.pid, tmp_path)
    found = captured(core, tmp_path / "case")
    header, target = one(found, CaseHeader), one(found, Target)
    assert isinstance(found[0], CaseHeader)
    assert header.core is True and header.levels == ["read-memory"] and header.interval_ns == 0
    assert (target.pid, target.threads) == (process.pid, 1)
    assert (target.start_ticks, target.age_ns, target.uid) == (None, None, None)
    assert target.name == "mysecretserver" and str(target.executable).endswith("/mysecretserver")
    assert str(tmp_path.name) not in str(found)
    asked = [(c.level, c.answer, c.how, c.probe) for c in found if isinstance(c, Consent)]
    probes = ("heap-census", "python-types", "managed-heap", "heap-labels", "reachability")
    assert asked == [("read-memory", "yes", "option", probe) for probe in probes]
    assert found[-1] == CaseEnd(found[-1].taken_ns, "duration")


@needs_gdb
def test_classes_and_types_are_named_unless_that_is_not_wanted(tmp_path: Path) -> None:
    code = "class Session: pass\nkept = [Session() for _ in range(3000)]\nprint()\ninput()"
    with started_python(code, stdin=subprocess.PIPE) as process:
        core = by_gdb(process.pid, tmp_path)
    types = one(captured(core, tmp_path / "named"), PythonTypes)
    rows = zip(types.names, types.sources, types.counts, strict=True)
    assert ("Session", "gc", 3000) in rows
    without = captured(core, tmp_path / "unnamed", "--no-symbols", "--without", "reachability")
    assert "Session" not in str(without)
    assert not [r for r in without if isinstance(r, (PythonTypes, HeapUnreachable))]


@needs_gdb
def test_classes_of_cpp_are_named_by_the_file_that_was_mapped(tmp_path: Path) -> None:
    source = """
    #include <cstdio>
    #include <unistd.h>
    struct Job { virtual ~Job() {} long room[9]; };
    static Job *kept[777];
    int main() {
        for (auto &job : kept) job = new Job;
        puts("ready"); fflush(stdout); sleep(60);
    }
    """
    (tmp_path / "jobs.cc").write_text(source)
    program = str(tmp_path / "jobs")
    subprocess.run(["g++", "-O1", "-o", program, str(tmp_path / "jobs.cc")], check=True)
    with started([program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        core = by_gdb(process.pid, tmp_path)
    classes = one(captured(core, tmp_path / "case"), HeapClasses)
    assert dict(zip(classes.names, classes.counts, strict=True)) == {"3Job": 777}


@needs_gdb
def test_a_file_of_another_build_is_never_taken_for_the_one_that_was_mapped(
    tmp_path: Path,
) -> None:
    program = compiled(tmp_path, "loses", LOSES, flags=["-Wl,--build-id"])
    with started([program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        path = by_gdb(process.pid, tmp_path)
    with CoreFile(str(path)) as core:
        found = CoreSubject(System(), core)
        found.close()
        module = found.program_files()[0]
        assert (module.path, module.inode) == (program, found.program_inode())
        found.open_program_file(module).close()
        changed = LOSES.replace("3000", "4000")
        compiled(tmp_path, "loses", changed, flags=["-Wl,--build-id"])
        with pytest.raises(NotSupported, match="another build"):
            found.open_program_file(module)


def test_the_command_line_takes_a_process_or_a_core_file(tmp_path: Path) -> None:
    both = collect("1", "--core", "core")
    assert both.returncode == 2 and "a process or a core file, not both" in both.stderr
    case = tmp_path / "case"
    done = collect("--core", sys.executable, "-o", str(case))
    assert done.returncode == 2
    assert done.stderr.startswith("leakcase-collect: cannot read") and done.stderr.count("\n") == 1
    assert not case.exists() and not (tmp_path / "case.map").exists()


@needs_gdb
def test_an_existing_case_is_not_overwritten_and_json_tells_the_outcome(tmp_path: Path) -> None:
    core = core_of(compiled(tmp_path, "allocates"), tmp_path)
    case = tmp_path / "case"
    told = json.loads(collect("--core", str(core), "-o", str(case), "--json").stdout)
    assert (told["case"], told["end"], told["exit_status"]) == (str(case), "duration", 0)
    assert told["core_bytes"] == core.stat().st_size and told["gaps"] == []
    before = case.read_bytes()
    assert collect("--core", str(core), "-o", str(case)).returncode == 2
    assert case.read_bytes() == before
