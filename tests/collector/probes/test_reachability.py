"""The probe that tells what leaked: what it writes, what it needs room for, what it leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path

from leakcase_bundle.records import HeapUnreachable
from leakcase_collector.probes.base import Cadence
from leakcase_collector.probes.reachability import ReachabilityProbe
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from tests.collector.probes.context import RecordingContext, run
from tests.collector.system.compiled import compiled
from tests.collector.system.started import started

BLOCKS, SIZE = 1_009, 120
LOSES = f"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char *volatile kept[{BLOCKS}];
int main(void) {{
    for (int i = 0; i < {BLOCKS}; i++) {{
        kept[i] = memset(malloc(500), 1, 500);
        memset(malloc({SIZE}), 1, {SIZE});
    }}
    puts("ready"); fflush(stdout); sleep(60); return 0;
}}
"""


def context_of(pid: int, identity: ProcessIdentity, system: System) -> RecordingContext:
    return RecordingContext(pid, system=system, identity=identity)


def looked_at(program: str, system: System) -> RecordingContext:
    with started([program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        with ProcessIdentity(System(), process.pid) as identity:
            return run(ReachabilityProbe(), context_of(process.pid, identity, system))


def test_what_was_lost_is_told_by_size(tmp_path: Path) -> None:
    seen = looked_at(compiled(tmp_path, "loses", LOSES), System())
    (record,) = seen.emitted(HeapUnreachable)
    assert (record.unreachable_chunks, record.unreachable_bytes) == (BLOCKS, BLOCKS * (SIZE + 8))
    assert (record.chunk_bytes, record.class_chunks) == ([SIZE + 8], [BLOCKS])
    assert record.class_bytes == [record.unreachable_bytes]
    assert record.direct_chunks == BLOCKS
    assert record.complete and record.swapped_bytes == 0
    assert record.looked_at_chunks > 2 * BLOCKS
    assert record.passes == 2 and record.threads == 1
    assert record.read_bytes >= 2 * record.looked_at_bytes
    assert seen.gaps == []


def test_another_allocator_leaves_a_gap_and_no_number(tmp_path: Path) -> None:
    source = '#include <unistd.h>\nint main(void) { write(1, ".\\n", 2); sleep(60); return 0; }'
    seen = looked_at(compiled(tmp_path, "without", source), System())
    assert seen.records == []
    assert seen.gaps == [("not-supported", "heap-not-found")]


def test_its_cost_is_said_by_the_size_of_the_target(tmp_path: Path) -> None:
    def predicted(pages: int) -> int:
        (tmp_path / "1").mkdir(exist_ok=True)
        (tmp_path / "1" / "statm").write_text(f"9 {pages} 0 1 0 1 0\n")
        context = RecordingContext(1, system=System(proc=str(tmp_path)))
        return ReachabilityProbe().predict(context).cpu_ns

    assert predicted(100) < predicted(10_000) < predicted(100_000)
    assert ReachabilityProbe.cadence is Cadence.END
    assert ReachabilityProbe.opt_in
