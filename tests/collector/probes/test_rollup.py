from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings

from leakcase_bundle.records import RollupSeries
from leakcase_collector.probes.rollup import COLUMNS, RollupProbe, parse_rollup
from tests.collector.probes.children import python
from tests.collector.probes.context import RecordingContext, run
from tests.collector.probes.recording import machine, recorded
from tests.collector.probes.texts import changed

MB = 1 << 20
ROLLUP = recorded("smaps_rollup-linux-6.18.txt")


def test_a_recorded_rollup_has_every_column_in_bytes() -> None:
    columns = parse_rollup(ROLLUP)
    assert set(columns) == set(COLUMNS.values())
    assert columns["rss_bytes"] == 1840 * 1024
    assert columns["pss_bytes"] == 180 * 1024
    assert columns["pss_file_bytes"] == 72 * 1024
    assert columns["private_dirty_bytes"] == 108 * 1024
    assert columns["swap_bytes"] == 0


def test_columns_that_came_with_linux_5_9_are_unknown_before_it() -> None:
    older = b"\n".join(line for line in ROLLUP.split(b"\n") if not line.startswith(b"Pss_"))
    columns = parse_rollup(older)
    assert "pss_anon_bytes" not in columns
    assert columns["pss_bytes"] == 180 * 1024


@settings(max_examples=200, deadline=None)
@given(changed(ROLLUP))
def test_any_text_is_parsed_into_figures_that_a_case_can_hold(text: bytes) -> None:
    for value in parse_rollup(text).values():
        assert value is None or 0 <= value < 1 << 63


def test_a_kernel_before_4_14_leaves_one_gap_and_is_not_asked_again(tmp_path: Path) -> None:
    system = machine(tmp_path, {"/proc/4711/statm": b"10 5 1 1 0 1 0\n"})
    probe, context = RollupProbe(), RecordingContext(4711, system)
    probe.begin(context, 0)
    assert context.gaps == [("not-supported", "smaps_rollup")]
    (tmp_path / "proc/4711/smaps_rollup").write_bytes(ROLLUP)
    probe.sample(context, 1)
    probe.finish(context, 2)
    assert context.rows == []


TOUCH = """
print('ready', flush=True); input()
import mmap
m = mmap.mmap(-1, 31 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
m[:] = bytes([1]) * len(m)
"""


def test_touched_shared_memory_shows_to_the_byte_as_the_processs_own_share() -> None:
    with python(TOUCH) as child:
        probe, context = RollupProbe(), RecordingContext(child.pid)
        probe.begin(context, 0)
        child.tell()
        probe.finish(context, 1)
    before, after = context.rows_of(RollupSeries)
    assert (after["pss_shmem_bytes"] or 0) - (before["pss_shmem_bytes"] or 0) == 31 * MB
    assert (after["read_ns"] or 0) > 0
    assert after["taken_ns"] is not None and before["taken_ns"] is not None
    assert after["taken_ns"] > before["taken_ns"]


def test_every_call_writes_a_row() -> None:
    with python("") as child:
        context = run(RollupProbe(), RecordingContext(child.pid), samples=2)
    assert len(context.rows_of(RollupSeries)) == 4
    assert context.gaps == []
