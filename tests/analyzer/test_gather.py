"""What is read of a case: columns, absent values, bounds, and what a hostile case cannot do."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from leakcase_analyzer import columns, gather_groups
from leakcase_analyzer.columns import ColumnStore
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.gather import MOST_RECORDS, read_evidence
from leakcase_bundle import records as kinds
from tests.analyzer.cases import MIB, SECOND_NS, START_NS, Capture, as_file, heap_leak


def evidence_of(case: Capture, folder: Path) -> Evidence:
    return read_evidence(as_file(case, folder))


def test_an_absent_value_is_not_zero(tmp_path: Path) -> None:
    case = Capture(seconds=30)
    case.swap_bytes = None
    assert case.file_bytes is not None
    case.file_bytes[3] = np.nan
    status = evidence_of(case, tmp_path).columns("status")
    assert status is not None
    assert status.get("swap_bytes") is None
    files = status.get("rss_file_bytes")
    assert files is not None and np.isnan(files[3]) and files[4] == 8 * MIB


def test_a_case_without_a_series_has_none_of_its_columns(tmp_path: Path) -> None:
    assert evidence_of(Capture(seconds=30), tmp_path).columns("cgroup") is None


def test_times_are_seconds_since_the_first_sample(tmp_path: Path) -> None:
    case = Capture(seconds=30)
    case.mark(7.5, "deploy")
    found = evidence_of(case, tmp_path)
    status = found.columns("status")
    assert status is not None
    assert status.seconds.tolist() == list(range(31))
    assert [(seconds, str(mark.label)) for seconds, mark in found.marks] == [(7.5, "deploy")]
    assert found.window_seconds == 30


def test_values_that_nothing_measured_can_have_are_not_measured(tmp_path: Path) -> None:
    case = Capture(seconds=30)
    assert case.anonymous_bytes is not None
    case.anonymous_bytes[5] = -4096
    case.anonymous_bytes[6] = 2.0**62
    status = evidence_of(case, tmp_path).columns("status")
    anonymous = None if status is None else status.get("rss_anon_bytes")
    assert anonymous is not None
    assert np.isnan(anonymous[[5, 6]]).all()
    assert np.isfinite(anonymous[[4, 7]]).all()


def test_single_large_mappings_are_not_added_to_their_group(tmp_path: Path) -> None:
    case = heap_leak(seconds=30)
    group = kinds.Region(snapshot=0, kind="anonymous", count=2, size_bytes=7, rss_bytes=7)
    single = kinds.Region(
        snapshot=0, kind="anonymous", count=1, size_bytes=5, rss_bytes=5, start_address=4096
    )
    shot = kinds.RegionSnapshot(0, case.at(0), "smaps", mappings=2, read_ns=1, complete=True)
    case.mappings = []
    case.extra = [shot, group, single]
    (found,) = evidence_of(case, tmp_path).snapshots
    assert sum(size.size_bytes for size in found.groups().values()) == 7


def test_groups_that_differ_in_protection_only_are_one(tmp_path: Path) -> None:
    case = Capture(seconds=30)
    shot = kinds.RegionSnapshot(0, case.at(0), "smaps", mappings=2, read_ns=1, complete=True)
    case.extra = [
        shot,
        kinds.Region(0, "anonymous", 1, 5, writable=True, rss_bytes=4, swap_bytes=1),
        kinds.Region(0, "anonymous", 1, 6, writable=False, rss_bytes=6),
    ]
    (found,) = evidence_of(case, tmp_path).snapshots
    (size,) = found.groups().values()
    assert (size.count, size.size_bytes, size.rss_bytes, size.swap_bytes) == (2, 11, 10, 1)
    assert size.held_bytes == 11


def test_first_and_last_snapshot_survive_when_there_are_too_many(tmp_path: Path) -> None:
    case = Capture(seconds=30)
    for number in range(5 * gather_groups.MOST_SNAPSHOTS):
        taken = case.at(number / 100)
        case.extra.append(kinds.RegionSnapshot(number, taken, "maps", 1, 1, True))
        case.extra.append(kinds.Region(number, "anonymous", 1, number + 1))
    shots = evidence_of(case, tmp_path).snapshots
    assert len(shots) <= gather_groups.MOST_SNAPSHOTS
    sizes = [size.size_bytes for shot in shots for size in shot.groups().values()]
    assert (sizes[0], sizes[-1]) == (1, 5 * gather_groups.MOST_SNAPSHOTS)
    assert sizes == sorted(sizes)


def test_first_and_last_groups_survive_when_there_are_too_many(tmp_path: Path) -> None:
    case = Capture(seconds=30)
    case.extra = [
        kinds.DescriptorGroup(case.at(number / 100), "socket", number + 1)
        for number in range(5 * gather_groups.MOST_SNAPSHOTS)
    ]
    groups = evidence_of(case, tmp_path).descriptor_groups
    assert groups.first[0].count == 1
    assert groups.last[0].count == 5 * gather_groups.MOST_SNAPSHOTS


def test_records_beyond_the_bound_are_counted_as_left_out(tmp_path: Path) -> None:
    case = Capture(seconds=30)
    for second in range(MOST_RECORDS + 5):
        case.gap("gpu", "not-supported") if second else None
    found = evidence_of(case, tmp_path)
    assert len(found.gaps) == MOST_RECORDS
    assert found.reading.left_out_records == 4


def test_a_region_of_no_snapshot_is_left_out(tmp_path: Path) -> None:
    case = Capture(seconds=30)
    case.extra.append(kinds.Region(99, "anonymous", 1, 1))
    found = evidence_of(case, tmp_path)
    assert found.snapshots == ()
    assert found.reading.left_out_records == 1


def test_threads_started_between_dropped_rows_are_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(columns, "MAX_ROWS", 64)
    store = ColumnStore(("created",), running_totals=("created",))
    for first in range(0, 1000, 10):
        taken: list[int | None] = [(first + i) * SECOND_NS for i in range(10)]
        store.add(kinds.ThreadSeries(taken_ns=taken, created=[3] * 10))
    found = store.columns(0, -np.inf, np.inf)
    assert len(found) <= 64
    assert store.stride == 16
    assert found.growth("created") == 3 * (found.seconds[-1] - found.seconds[0])


@pytest.mark.parametrize("batch", [1, 7, 60, 997])
def test_a_long_series_keeps_every_nth_row_whatever_its_frames_are(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "MAX_ROWS", 100)
    store = ColumnStore(("alive",))
    rows = 2000
    for first in range(0, rows, batch):
        part = range(first, min(first + batch, rows))
        store.add(kinds.ThreadSeries(taken_ns=[i * SECOND_NS for i in part], alive=list(part)))
    found = store.columns(0, -np.inf, np.inf)
    assert 25 <= len(found) <= 100
    assert np.diff(found.seconds).tolist() == [store.stride] * (len(found) - 1)
    assert found.values["alive"].tolist() == found.seconds.tolist()


def test_a_case_of_two_million_rows_takes_bounded_memory() -> None:
    """Rows that do not change compress to nothing, so a small file can hold very many."""
    store = ColumnStore(("threads", "rss_bytes"))
    rows = 1 << 16
    record = kinds.StatusSeries(
        taken_ns=[START_NS + i for i in range(rows)], threads=[1] * rows, rss_bytes=[None] * rows
    )
    tracemalloc.start()
    try:
        for _ in range(32):
            store.add(record)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store.columns(0, -np.inf, np.inf)) <= columns.MAX_ROWS
    assert peak < 3 * (columns.MAX_ROWS + rows) * 8 * 2


def test_gpu_memory_of_several_regions_is_added_by_instant(tmp_path: Path) -> None:
    case = Capture(seconds=30)
    for second in range(3):
        for region, size in (("vram", 5), ("gtt", 7)):
            case.extra.append(
                kinds.GpuMemory(case.at(second), "fdinfo", "amdgpu", region, 1, size + second)
            )
    found = evidence_of(case, tmp_path).gpu["fdinfo"]
    assert found.values["held_bytes"].tolist() == [12, 14, 16]


def test_a_damaged_case_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    raw = bytearray(as_file(heap_leak(), tmp_path).getvalue())
    raw[len(raw) // 2] ^= 0xFF
    found = read_evidence(io.BytesIO(bytes(raw)))
    assert not found.reading.complete
    assert not found.reading.truncated
    assert found.reading.problem_count >= 1
    assert found.columns("status") is not None


def test_every_column_that_is_kept_is_one_of_its_record() -> None:
    from leakcase_analyzer.gather import RUNNING_TOTALS, SERIES
    from leakcase_bundle.schema import spec_of

    for cls, (_, names) in SERIES.items():
        declared: dict[str, Any] = {field.name: field.shape for field in spec_of(cls).fields}
        assert {declared[name] for name in names} == {"column"}
    assert set(RUNNING_TOTALS) <= {name for name, _ in SERIES.values()}


def test_mapping_kinds_of_the_format_have_words() -> None:
    from leakcase_analyzer.findings.regions import KIND_WORDS
    from leakcase_bundle.vocabulary import VOCABULARIES

    unnamed = {"other", "device", "vdso", "io-uring"}
    assert VOCABULARIES["region_kind"] - set(KIND_WORDS) == unnamed


def test_probes_and_reasons_of_the_format_have_words() -> None:
    from leakcase_analyzer.findings.blind_heap import HEAP_PROBES
    from leakcase_analyzer.findings.blind_spots import LOSSES, PROBES, REASONS
    from leakcase_analyzer.findings.blind_trace import TRACE_PROBES
    from leakcase_bundle.vocabulary import VOCABULARIES

    assert set(PROBES) | set(HEAP_PROBES) | set(TRACE_PROBES) == VOCABULARIES["probe"]
    assert set(REASONS) == VOCABULARIES["gap_reason"]
    assert set(LOSSES) == VOCABULARIES["loss"]


def test_every_reason_of_the_judge_has_words() -> None:
    from leakcase_analyzer.findings.trends import REASONS
    from leakcase_analyzer.series.persistence import Reason

    assert set(REASONS) == set(get_args(Reason))


def test_kinds_that_nothing_judges_are_not_kept(tmp_path: Path) -> None:
    case = Capture(seconds=30)
    case.extra = [kinds.Consent("trace", "no", "no-terminal")] * (MOST_RECORDS + 5)
    assert evidence_of(case, tmp_path).reading.left_out_records == 0
