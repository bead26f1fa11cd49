from __future__ import annotations

import mmap

import pytest

from leakcase_bundle.records import StatusSeries
from leakcase_collector.errors import TargetGone
from leakcase_collector.probes.status import StatusProbe, parse_status
from tests.collector.probes.children import python
from tests.collector.probes.context import RecordingContext, run
from tests.collector.probes.recording import recorded

KB = 1024
MIB = 1024 * 1024


def test_every_column_of_a_modern_kernel_is_found() -> None:
    figures = parse_status(recorded("status-linux-6.18.txt"))
    columns = set(StatusSeries.__dataclass_fields__) - {"taken_ns"}
    assert set(figures) == columns
    assert None not in figures.values()
    assert figures["virtual_bytes"] == 237808 * KB
    assert figures["threads"] == 4


def test_an_old_kernel_leaves_unknown_what_it_does_not_print() -> None:
    figures = parse_status(recorded("status-linux-3.10.txt"))
    assert figures["rss_bytes"] == 54300 * KB
    assert figures["swap_bytes"] == 128 * KB
    assert figures["voluntary_switches"] == 1500
    assert figures["involuntary_switches"] == 12
    for newer in ("rss_anon_bytes", "rss_file_bytes", "rss_shmem_bytes", "huge_bytes"):
        assert newer not in figures


def test_a_name_that_looks_like_a_line_is_not_taken_for_one() -> None:
    # The kernel prints a newline in a name as two characters (proc_pid_status(5)).
    content = b"Name:\ta\\nVmRSS:    9 kB\nVmRSS:\t      12 kB\nThreads:\t3\n"
    assert parse_status(content) == {"rss_bytes": 12 * KB, "threads": 3}


@pytest.mark.parametrize("recording", ["status-kernel-thread.txt", "status-zombie.txt"])
def test_without_an_address_space_sizes_are_absent_not_zero(recording: str) -> None:
    figures = parse_status(recorded(recording))
    assert set(figures) == {"threads", "voluntary_switches", "involuntary_switches"}


def test_a_number_too_large_for_a_case_is_unknown() -> None:
    assert parse_status(b"Name:\tx\nVmRSS:\t99999999999999999999 kB\n") == {"rss_bytes": None}


def test_memory_that_a_process_touches_shows_in_the_next_row() -> None:
    touch = f"import mmap; m = mmap.mmap(-1, {32 * MIB}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)"
    code = f"print('ready', flush=True); input(); {touch}\n" + (
        f"for o in range(0, {32 * MIB}, {mmap.PAGESIZE}): m[o] = 1"
    )
    with python(code) as child:
        context = RecordingContext(child.pid)
        probe = StatusProbe()
        probe.sample(context, 1)
        child.tell()
        probe.sample(context, 2)
    before, after = context.rows_of(StatusSeries)
    assert before["rss_anon_bytes"] is not None and after["rss_anon_bytes"] is not None
    growth = after["rss_anon_bytes"] - before["rss_anon_bytes"]
    assert 32 * MIB <= growth < 34 * MIB


def test_a_process_that_ended_is_gone_even_for_an_open_descriptor() -> None:
    with python("") as child:
        context = RecordingContext(child.pid)
        probe = StatusProbe()
        probe.sample(context, 1)
    with pytest.raises(TargetGone):
        probe.sample(context, 2)


def test_a_zombie_gives_a_row_without_memory() -> None:
    with python("") as child:
        child.kill_without_reaping()
        context = run(StatusProbe(), RecordingContext(child.pid))
    (row,) = context.rows_of(StatusSeries)
    assert "rss_bytes" not in row
    assert row["threads"] == 1
