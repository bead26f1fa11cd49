"""What is said of real processes, recorded with their truth (recordings/README.md)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from leakcase_analyzer.series.activity import segments
from leakcase_analyzer.series.growth import Growth, judge
from leakcase_analyzer.series.samples import Floats
from leakcase_analyzer.series.trigger import trigger

pytestmark = pytest.mark.filterwarnings("error")
RECORDINGS = Path(__file__).parent / "recordings"
KB = 1024.0


def recorded(name: str) -> dict[str, Floats]:
    with (RECORDINGS / f"{name}.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]}


def judged(name: str, start: int, seconds: int, books: bool = False) -> Growth:
    columns = recorded(name)
    part = slice(start, start + seconds + 1)
    return judge(
        columns["t_ms"][part] / 1e3,
        columns["anon_kb"][part] * KB,
        cpu_seconds=columns["cpu_us"][part] / 1e6,
        in_use_bytes=columns["in_use_kb"][part] * KB if books else None,
        free_bytes=columns["free_kb"][part] * KB if books else None,
        managed_runtime=name.startswith("node"),
    )


# The programs leak these on top of their churn; malloc rounds blocks up by eight bytes or so.
@pytest.mark.parametrize(
    ("name", "rate"),
    [("leak-small-13", 48_611), ("leak-large-13", 104_729), ("leak-small-14", 7_919)],
)
def test_planted_leaks_under_churn_are_called_at_their_rate(name: str, rate: float) -> None:
    growth = judged(name, 100, 200)
    assert growth.status == "leak"
    assert growth.rate_per_second == pytest.approx(rate, rel=0.1)
    assert growth.rate_low is not None and growth.rate_high is not None
    assert growth.rate_low <= rate * 1.05 and rate <= growth.rate_high


@pytest.mark.parametrize("seconds", [60, 120])
@pytest.mark.parametrize(
    "name", ["active-and-idle", "churn-cycles", "churn-malloc", "churn-objects", "nginx",
             "node-service", "short-threads", "spikes", "thread-pool"],
)  # fmt: skip
def test_innocents_are_never_called_in_any_window(name: str, seconds: int) -> None:
    statuses = {judged(f"{name}-14", start, seconds).status for start in range(0, 180, 20)}
    assert "leak" not in statuses


def test_redis_that_reached_its_bound_is_bounded_or_undecided_but_no_leak() -> None:
    full = recorded("redis-fills-to-maxmemory-14")["anon_kb"]
    reached = int(np.argmax(full > 0.95 * full.max()))
    growth = judged("redis-fills-to-maxmemory-14", max(0, reached - 60), 120)
    assert growth.status in ("bounded", "undecided")


def test_a_leak_that_resident_memory_cannot_show_is_seen_in_the_books() -> None:
    blind = judged("leak-into-kept-memory-14", 60, 120)
    told = judged("leak-into-kept-memory-14", 60, 120, books=True)
    assert blind.status == "stable"
    assert (told.status, told.reason) == ("leak", "steady-in-use")


def test_kept_free_memory_is_retention_by_the_books() -> None:
    growing = judged("retention-14", 60, 120, books=True)
    level = judged("retention-kept-14", 60, 120, books=True)
    assert (growing.status, growing.reason) == ("retention", "retention-growing")
    assert (level.status, level.reason) == ("retention", "retention-level")


@pytest.mark.parametrize(
    ("name", "column", "rate"),
    [("thread-leak-14", "threads", 0.5), ("descriptor-leak-14", "descriptors", 3.0)],
)
def test_threads_and_descriptors_that_leak_are_called(name: str, column: str, rate: float) -> None:
    columns = recorded(name)
    growth = judge(columns["t_ms"][:61] / 1e3, columns[column][:61], unit="count")
    assert growth.status == "leak"
    assert growth.rate_per_second == pytest.approx(rate, rel=0.05)


def test_a_thread_pool_that_filled_up_is_bounded() -> None:
    columns = recorded("thread-pool-14")
    growth = judge(columns["t_ms"][:61] / 1e3, columns["threads"][:61], unit="count")
    assert growth.status == "bounded"


@pytest.mark.parametrize("name", ["leak-when-active-13", "leak-when-active-14"])
def test_a_leak_of_active_times_is_told_from_its_cpu_time(name: str) -> None:
    columns = recorded(name)
    t = columns["t_ms"][:181] / 1e3
    found = segments(t, columns["cpu_us"][:181] / 1e6)
    answer = trigger(t, columns["anon_kb"][:181] * KB, found)
    assert answer.when == "active"


def test_an_innocent_that_works_in_turns_has_no_trigger() -> None:
    columns = recorded("active-and-idle-14")
    t = columns["t_ms"][100:281] / 1e3
    found = segments(t, columns["cpu_us"][100:281] / 1e6)
    assert found is not None
    assert trigger(t, columns["anon_kb"][100:281] * KB, found).when == "unknown"
