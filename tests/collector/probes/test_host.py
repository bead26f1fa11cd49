from __future__ import annotations

from pathlib import Path

import pytest

from leakcase_bundle.records import HostSeries
from leakcase_collector.probes.figures import parse_pressure
from leakcase_collector.probes.host import HostProbe, parse_meminfo
from tests.collector.probes.context import SECOND_NS, RecordingContext, run
from tests.collector.probes.recording import machine, recorded

KB = 1024
PRESSURE = (
    b"some avg10=1.23 avg60=0.50 avg300=0.10 total=4711\n"
    b"full avg10=0.00 avg60=0.00 avg300=0.00 total=42\n"
)
MEMINFO = recorded("meminfo-linux-6.18.txt")


def test_every_column_of_a_modern_kernel_is_found() -> None:
    figures = parse_meminfo(MEMINFO)
    columns = set(HostSeries.__dataclass_fields__)
    assert set(figures) == columns - {"taken_ns", "pressure_some_us", "pressure_full_us"}
    assert None not in figures.values()
    assert figures["total_bytes"] == 24684084 * KB
    assert figures["huge_page_bytes"] == 2048 * KB


def test_an_old_kernel_does_not_say_what_is_available_and_counts_huge_pages() -> None:
    figures = parse_meminfo(recorded("meminfo-linux-3.10.txt"))
    assert "available_bytes" not in figures
    assert figures["cached_bytes"] == 721248 * KB
    assert figures["slab_unreclaimable_bytes"] == 47900 * KB
    assert (figures["huge_pages_total"], figures["huge_pages_free"]) == (4, 3)


def test_pressure_is_the_total_of_each_line() -> None:
    assert parse_pressure(PRESSURE) == (4711, 42)
    assert parse_pressure(PRESSURE[:50]) == (4711, None)
    assert parse_pressure(b"") == (None, None)


@pytest.mark.parametrize(("interval_s", "ticks", "rows"), [(1, 60, 13), (10, 6, 7), (5, 12, 13)])
def test_the_host_is_read_every_five_seconds_and_at_the_end(
    tmp_path: Path, interval_s: int, ticks: int, rows: int
) -> None:
    files = {"/proc/meminfo": MEMINFO, "/proc/pressure/memory": PRESSURE}
    context = RecordingContext(4711, machine(tmp_path, files), interval_ns=interval_s * SECOND_NS)
    run(HostProbe(), context, samples=ticks)
    taken = [row["taken_ns"] or 0 for row in context.rows_of(HostSeries)]
    assert len(taken) == rows
    assert all(later - earlier >= 5 * SECOND_NS for earlier, later in zip(taken, taken[1:]))
    row = context.rows_of(HostSeries)[-1]
    assert (row["pressure_some_us"], row["pressure_full_us"]) == (4711, 42)


def test_ticks_that_come_a_little_early_do_not_stretch_the_interval(tmp_path: Path) -> None:
    context = RecordingContext(4711, machine(tmp_path, {"/proc/meminfo": MEMINFO}))
    probe = HostProbe()
    probe.begin(context, 0)
    for second in range(11):
        probe.sample(context, second * SECOND_NS - 3_000_000 * (second % 2))
    assert len(context.rows_of(HostSeries)) == 3


def test_a_host_without_pressure_figures_is_a_gap_and_the_rest_is_seen(tmp_path: Path) -> None:
    context = run(HostProbe(), RecordingContext(1, machine(tmp_path, {"/proc/meminfo": MEMINFO})))
    assert context.gaps == [("not-supported", "pressure")]
    assert context.rows_of(HostSeries)[0].get("pressure_some_us") is None
    assert context.rows_of(HostSeries)[0]["total_bytes"] == 24684084 * KB


def test_this_host_has_memory() -> None:
    context = run(HostProbe(), RecordingContext(1))
    row = context.rows_of(HostSeries)[0]
    assert row["total_bytes"] and row["free_bytes"] and row["total_bytes"] > row["free_bytes"]
