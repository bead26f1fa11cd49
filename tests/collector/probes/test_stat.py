from __future__ import annotations

from pathlib import Path

import pytest

from leakcase_bundle.records import StatSeries
from leakcase_collector.probes.stat import (
    MAX_SCHEDSTAT_THREADS,
    StatProbe,
    parse_schedstat,
    parse_stat,
)
from tests.collector.probes.children import python
from tests.collector.probes.context import RecordingContext, run
from tests.collector.probes.recording import machine, recorded

MS = 1_000_000
START_THREADS = """
import threading
for _ in range({}): threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_the_fields_are_those_of_the_man_page() -> None:
    content = b"4711 (x) S 1 1 1 0 -1 4194304 1939 11 17 13 3 5 0 0 20 0 4 0 219466 1 1 1\n"
    figures = parse_stat(content)
    assert figures.minor_faults == 1939
    assert figures.major_faults == 17
    assert figures.user_cpu_ns == 30 * MS
    assert figures.system_cpu_ns == 50 * MS
    assert figures.threads == 4


@pytest.mark.parametrize("name", [b"a b", b"a) S 1 1", b"((", b"))", b"", b"a\nb", b"\xff\xfe"])
def test_a_name_with_blanks_and_parentheses_does_not_shift_the_fields(name: bytes) -> None:
    plain = recorded("stat-linux-6.18.txt")
    assert parse_stat(plain.replace(b"(python3)", b"(" + name + b")")) == parse_stat(plain)


@pytest.mark.parametrize("recording", ["stat-kernel-thread.txt", "stat-zombie.txt"])
def test_kernel_threads_and_zombies_have_all_fields(recording: str) -> None:
    assert None not in parse_stat(recorded(recording))


def test_schedstat_is_three_numbers_or_nothing() -> None:
    assert parse_schedstat(b"1135935 576671 1\n") == 1135935
    assert parse_schedstat(b"1135935 57") is None
    assert parse_schedstat(b"") is None


def test_touched_pages_and_used_time_show_in_the_next_row() -> None:
    pages = 3001
    work = f"""
print('ready', flush=True); input()
import mmap, time
m = mmap.mmap(-1, {pages} * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
if hasattr(mmap, 'MADV_NOHUGEPAGE'): m.madvise(mmap.MADV_NOHUGEPAGE)
for o in range(0, len(m), mmap.PAGESIZE): m[o] = 1
end = time.thread_time() + 0.2
while time.thread_time() < end: pass
"""
    with python(work) as child:
        context = RecordingContext(child.pid)
        probe = StatProbe()
        probe.begin(context, 0)
        probe.sample(context, 1)
        child.tell()
        probe.sample(context, 2)
    before, after = context.rows_of(StatSeries)
    grown = {name: (after[name] or 0) - (before[name] or 0) for name in after}
    assert pages <= grown["minor_faults"] < pages + 500
    assert grown["run_ns"] >= 200 * MS
    # Ticks are exact to one tick at either end.
    assert abs(grown["user_cpu_ns"] + grown["system_cpu_ns"] - grown["run_ns"]) <= 30 * MS


def test_the_time_of_all_threads_counts_and_follows_them() -> None:
    spin = """
import threading, time
def spin():
    end = time.thread_time() + 0.05
    while time.thread_time() < end: pass
    hold.wait()
hold = threading.Event()
for _ in range(3): threading.Thread(target=spin, daemon=True).start()
time.sleep(0.3)
"""
    with python(spin) as child:
        context = run(StatProbe(), RecordingContext(child.pid), samples=2)
    for row in context.rows_of(StatSeries):
        assert row["run_ns"] is not None
        assert row["run_ns"] >= 150 * MS


def test_a_thread_that_is_replaced_between_samples_is_noticed() -> None:
    replace = """
import threading
stop = threading.Event()
first = threading.Thread(target=stop.wait, daemon=True); first.start()
print('ready', flush=True); input()
stop.set(); first.join()
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
    with python(replace) as child:
        context = RecordingContext(child.pid)
        probe = StatProbe()
        probe.begin(context, 0)
        probe.sample(context, 1)
        child.tell()
        probe.sample(context, 2)
    assert all(row["run_ns"] is not None for row in context.rows_of(StatSeries))


def test_with_too_many_threads_the_fine_time_is_unknown_and_the_rest_is_not() -> None:
    with python(START_THREADS.format(MAX_SCHEDSTAT_THREADS)) as child:
        context = run(StatProbe(), RecordingContext(child.pid))
    (row,) = context.rows_of(StatSeries)
    assert row["run_ns"] is None
    assert row["minor_faults"] is not None


def _recorded_process(tmp_path: Path, files: dict[str, bytes]) -> RecordingContext:
    content = recorded("stat-linux-6.18.txt").replace(b" 20 0 4 0 ", b" 20 0 1 0 ")
    system = machine(tmp_path, {"/proc/4711/stat": content, **files})
    return run(StatProbe(), RecordingContext(4711, system))


def test_a_kernel_without_schedstat_is_a_gap_and_the_rest_is_seen(tmp_path: Path) -> None:
    context = _recorded_process(tmp_path, {})
    assert context.gaps == [("not-supported", "schedstat")]
    (row,) = context.rows_of(StatSeries)
    assert row["run_ns"] is None
    assert row["minor_faults"] == 1939


def test_a_kernel_that_keeps_no_run_times_prints_zeros_which_are_not_taken(tmp_path: Path) -> None:
    zeros = {f"/proc/4711/{place}": b"0 0 0\n" for place in ("schedstat", "task/4711/schedstat")}
    context = _recorded_process(tmp_path, zeros)
    assert context.gaps == []
    assert context.rows_of(StatSeries)[0]["run_ns"] is None
