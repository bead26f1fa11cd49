"""Real servers at work, whose allocators are asked again and again: answered or refused, unharmed.

A short cut of ``make soak``, which asks 200 times in all.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from leakcase_bundle.records import AllocatorWords, Consent, Cost, Gap
from leakcase_collector.probes.allocator_statistics import AllocatorStatisticsProbe
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from tests.collector.attach.borrowed import tracer
from tests.collector.probes.context import RecordingContext
from tests.live import servers
from tests.live.collecting import analyze, collect, of_kind, python_child, read

pytestmark = [pytest.mark.live, pytest.mark.slow]

SERVERS = {
    "redis": (servers.redis, "jemalloc"),
    "nginx": (servers.nginx, "glibc"),
    "memcached": (servers.memcached, "glibc"),
    "python-service": (servers.python_service, "glibc"),
    "postgresql": (servers.postgresql, "glibc"),
}
REQUESTS = int(os.environ.get("LEAKCASE_REQUESTS", "20")) // len(SERVERS)
#: Those that take seconds to start are asked in ``make soak`` alone.
SLOW = frozenset({"postgresql", "python-service"})


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one in SLOW else ()) for one in SERVERS]
)
def test_a_server_at_work_is_asked_and_goes_on_serving(name: str) -> None:
    start, allocator = SERVERS[name]
    with TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        with start(Path(place), 30) as serving:
            with ProcessIdentity(System(), serving.pid) as held:
                context = RecordingContext(serving.pid, identity=held)
                probe = AllocatorStatisticsProbe()
                predicted_ns = probe.predict(context).stop_ns
                for number in range(REQUESTS):
                    probe.begin(context, number)
            assert tracer(serving.pid) == 0
            assert serving.still_serves()
    words = context.emitted(AllocatorWords)
    assert {one.allocator for one in words} <= {allocator}
    assert set(context.gaps) <= {("failed", "no-safe-point")}
    assert 2 * len(words) >= REQUESTS
    # A busy machine prolongs a stop, as it does all else: the shortest is as long as was said.
    assert min(context.stops_ns) < 2 * predicted_ns


def test_a_capture_asks_at_both_ends_and_says_what_it_cost(tmp_path: Path) -> None:
    case = tmp_path / "x.leakcase"
    with python_child("") as target:
        done = collect("capture", target.pid, "--duration", "2500ms",
                       "--allow", "attach,read-memory", "-o", case)  # fmt: skip
        assert tracer(target.pid) == 0
    assert done.returncode == 0, done.stderr
    records, _ = read(case)
    words = of_kind(records, AllocatorWords)
    assert [one.look for one in words] == [0, 1]
    (cost,) = [one for one in of_kind(records, Cost) if one.probe == "allocator-statistics"]
    assert cost.target_stopped_ns == sum(one.stopped_ns for one in words) > 0
    assert cost.predicted_stop_ns > 0
    (asked,) = [one for one in of_kind(records, Consent) if one.probe == "allocator-statistics"]
    assert (asked.level, asked.answer, asked.how) == ("attach", "yes", "option")
    answer = analyze(case)
    assert not any("its books differ" in one["because"] for one in answer["not_seen"])


def test_without_leave_nothing_is_stopped(tmp_path: Path) -> None:
    case = tmp_path / "x.leakcase"
    with python_child("") as target:
        done = collect("capture", target.pid, "--duration", "200ms",
                       "--allow", "read-memory", "-o", case)  # fmt: skip
    assert done.returncode == 0, done.stderr
    records, _ = read(case)
    assert of_kind(records, AllocatorWords) == []
    gaps = [one.reason for one in of_kind(records, Gap) if one.probe == "allocator-statistics"]
    assert gaps == ["not-consented"]
