"""Real servers under load, watched for two minutes, all at once: no false leak, and a true one.

The servers are those of the distribution. None that is missing counts as seen: the test is skipped
with the reason, and in CI, which has them all, fails.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from leakcase_bundle.records import CollectorSeries, Gap
from tests.live import processes, servers, workloads_service
from tests.live.collecting import analyze, collect, of_kind, read

WATCHED_SECONDS = 120
WARM_UP_SECONDS = 10
# Programs that start at once on two cores take some seconds to do so.
MARGIN_SECONDS = 60
FORGOTTEN_BYTES_PER_HOUR = (
    servers.ORDERS_PER_SECOND * workloads_service.FORGOTTEN_BYTES_PER_REQUEST * 3600
)
NO_LEAK = frozenset({"stable", "bounded", "retention", "undecided"})

# The tests of this file share one fixture, which takes two minutes: under pytest-xdist they belong
# on one worker (tests/conftest.py).
pytestmark = pytest.mark.live


@dataclass(frozen=True)
class Subject:
    """A server and what is known of it beforehand.

    package: a pattern of Debian's name for it. fills: watched from its empty start on.
    """

    name: str
    start: servers.Start
    statuses: frozenset[str]
    allocator: str
    package: str | None
    fills: bool = False


@dataclass
class Seen:
    """What two minutes with one server gave."""

    answer: dict[str, Any]
    gaps: list[Gap]
    serves: bool
    kernel_rss_bytes: int
    collector_cpu_share: float
    case_bytes: int
    capture_seconds: float
    exit_status: int
    stderr: str = field(repr=False)


SUBJECTS = (
    Subject("redis-filled", servers.redis, NO_LEAK, "jemalloc", "redis-tools", fills=True),
    Subject(
        "redis-filling", partial(servers.redis, cap="512mb"),
        frozenset({"bounded", "undecided"}), "jemalloc", "redis-tools", fills=True,
    ),
    Subject("memcached", servers.memcached, NO_LEAK, "glibc", "memcached", fills=True),
    Subject("nginx-worker", servers.nginx, NO_LEAK, "glibc", "nginx"),
    Subject("postgresql-backend", servers.postgresql, NO_LEAK, "glibc", r"postgresql-\d+"),
    Subject("python-service", servers.python_service, NO_LEAK, "glibc", None),
    Subject(
        "python-service-leaking", partial(servers.python_service, forgets=True),
        frozenset({"leak"}), "glibc", None,
    ),
)  # fmt: skip


def _look(
    subject: Subject, serving: processes.Serving, case: Path, analyses: threading.Semaphore
) -> Seen:
    if not subject.fills:
        time.sleep(WARM_UP_SECONDS)
    begun = time.monotonic()
    done = collect(
        "capture", serving.pid, "--duration", f"{WATCHED_SECONDS}s", "-o", case,
        timeout=WATCHED_SECONDS + MARGIN_SECONDS,
    )  # fmt: skip
    seconds = time.monotonic() - begun
    kernel_rss_bytes = _rss_bytes(serving.pid)
    serves = serving.still_serves()
    with analyses:
        answer = analyze(case)
    records, _ = read(case)
    return Seen(
        answer=answer,
        gaps=of_kind(records, Gap),
        serves=serves,
        kernel_rss_bytes=kernel_rss_bytes,
        collector_cpu_share=_cpu_share(of_kind(records, CollectorSeries)),
        case_bytes=case.stat().st_size,
        capture_seconds=seconds,
        exit_status=done.returncode,
        stderr=done.stderr,
    )


def _rss_bytes(pid: int) -> int:
    """proc_pid_smaps(5) is exact where the counters of status may lag."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Rss: +(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _cpu_share(series: list[CollectorSeries]) -> float:
    """Of one core, from the first of the collector's own figures to the last."""
    taken = [ns for one in series for ns in one.taken_ns or ()]
    used = [ns for one in series for ns in one.cpu_ns or ()]
    first, last = used[0], used[-1]
    assert first is not None and last is not None and taken[0] is not None
    assert taken[-1] is not None
    return (last - first) / (taken[-1] - taken[0])


Looks = dict[str, Callable[[], Seen]]


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looks]:
    """What was seen of each server: call it to have it, or the reason why not."""
    cases = tmp_path_factory.mktemp("servers")
    analyses = threading.Semaphore(2)
    seconds = WARM_UP_SECONDS + WATCHED_SECONDS + MARGIN_SECONDS
    with ExitStack() as stack:
        # Not below pytest's own folder, which other users cannot reach.
        root = Path(
            stack.enter_context(TemporaryDirectory(prefix="leakcase-test-", dir="/var/tmp"))
        )
        root.chmod(0o755)
        pool = stack.enter_context(ThreadPoolExecutor(len(SUBJECTS)))
        found: Looks = {}
        for subject in SUBJECTS:
            folder = root / subject.name
            folder.mkdir()
            try:
                serving = stack.enter_context(subject.start(folder, seconds))
            except processes.CannotServe as reason:
                found[subject.name] = partial(_missing, str(reason))
                continue
            case = cases / f"{subject.name}.leakcase"
            found[subject.name] = pool.submit(_look, subject, serving, case, analyses).result
        yield found


def _missing(reason: str) -> Seen:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


each_server = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)


@each_server
def test_a_real_server_is_judged_as_it_is(subject: Subject, looks: Looks) -> None:
    seen = looks[subject.name]()
    print(_row(subject, seen))
    verdict = seen.answer["verdict"]
    assert verdict["status"] in subject.statuses, verdict
    assert verdict["headline"]
    assert (verdict["confidence"] > 0) == (verdict["status"] != "undecided")


def _row(subject: Subject, seen: Seen) -> str:
    verdict = seen.answer["verdict"]
    rate = verdict["rate_bytes_per_hour"]
    return (
        f"{subject.name}: {verdict['status']}/{verdict['kind']} ({verdict['confidence']}), "
        f"{'-' if rate is None else f'{rate / 2**20:.1f} MiB/h'}, "
        f"RSS {seen.kernel_rss_bytes / 2**20:.1f} MiB, "
        f"collector {seen.collector_cpu_share:.2%} of a core, case {seen.case_bytes} bytes, "
        f"{seen.capture_seconds:.1f} s: {verdict['headline']}"
    )


@each_server
def test_a_capture_of_a_real_server_succeeds_and_no_probe_fails(
    subject: Subject, looks: Looks
) -> None:
    seen = looks[subject.name]()
    assert seen.exit_status == 0, seen.stderr
    assert "Traceback" not in seen.stderr
    assert [gap for gap in seen.gaps if gap.reason == "failed"] == []
    assert seen.answer["capture"]["complete"]
    assert seen.answer["capture"]["end"] == "duration"


@each_server
def test_the_same_process_still_serves_after_it_was_watched(subject: Subject, looks: Looks) -> None:
    assert looks[subject.name]().serves


@each_server
def test_the_program_its_package_and_its_allocator_are_known(
    subject: Subject, looks: Looks
) -> None:
    target = looks[subject.name]().answer["target"]
    assert target["allocator"] == subject.allocator
    if subject.package is None:
        assert target["runtime"] == "cpython"
    elif Path("/var/lib/dpkg/status").exists():
        assert re.fullmatch(subject.package, target["package"])
        assert target["package_version"]


@each_server
def test_the_parts_of_memory_add_up_to_what_the_kernel_says(subject: Subject, looks: Looks) -> None:
    seen = looks[subject.name]()
    memory = seen.answer["memory"]
    # What is unreachable is part of what is live, and what is in swap is not resident.
    apart = {"resident_bytes", "unreachable_bytes", "swap_bytes"}
    parts = sum(size or 0 for name, size in memory.items() if name not in apart)
    assert parts == pytest.approx(memory["resident_bytes"], rel=0.03)
    assert memory["resident_bytes"] == pytest.approx(seen.kernel_rss_bytes, rel=0.03)


def test_the_planted_leak_of_the_python_service_is_found_with_kind_and_rate(looks: Looks) -> None:
    verdict = looks["python-service-leaking"]().answer["verdict"]
    assert verdict["kind"] == "heap"
    assert verdict["rate_bytes_per_hour"] == pytest.approx(FORGOTTEN_BYTES_PER_HOUR, rel=0.10)


def test_a_cache_below_its_known_cap_is_said_to_be_so(looks: Looks) -> None:
    verdict = looks["redis-filling"]().answer["verdict"]
    assert any("--maxmemory" in reason for reason in verdict["reasons"]), verdict
