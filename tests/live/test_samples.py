"""Every sample, watched by the real collector and judged by the real analyzer, all at once.

What is expected of each was written down beforehand, in its EXPECTED.toml. The whole file takes as
long as the longest capture and a little more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from samples import runner
from samples.runner import Expected
from tests.live.collecting import analyze, collect

EVERY = runner.load_expected()
LEAKS = [expected for expected in EVERY if expected.status == "leak"]
# By then a spike is over, and the caches have half of their filling before them.
WARM_UP_SECONDS = 4
# Each of the two dozen collectors takes a third of a second of CPU time to start, at low priority:
# all at once they would come too late to see caches fill. The longest capture leaves time for this.
STAGGER_SECONDS = 2.0
# A sample must outlive its capture, a slow start of the collector included.
MARGIN_SECONDS = 45
ANALYSES_AT_A_TIME = 2

# The tests of this file share one fixture, which takes two minutes: under pytest-xdist they belong
# on one worker (tests/conftest.py).
pytestmark = pytest.mark.live

Answer = dict[str, Any]
each_sample = pytest.mark.parametrize("expected", EVERY, ids=lambda expected: expected.name)
each_leak = pytest.mark.parametrize("expected", LEAKS, ids=lambda expected: expected.name)


def _judge(expected: Expected, delay: float, case: Path, analyses: threading.Semaphore) -> Answer:
    time.sleep(delay)
    seconds = expected.capture_seconds
    with runner.start(expected.name, seconds + MARGIN_SECONDS) as running:
        time.sleep(WARM_UP_SECONDS)
        done = collect(
            "capture", running.pid, "--duration", f"{seconds}s", "-o", case,
            timeout=seconds + MARGIN_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert running.stop()["ended"] == "signal"
    with analyses:
        return analyze(case)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Answer]]]:
    """The analyzer's answer about each sample, or what kept it from answering."""
    folder = tmp_path_factory.mktemp("samples")
    analyses = threading.Semaphore(ANALYSES_AT_A_TIME)
    runner.build()
    longest_first = sorted(EVERY, key=lambda one: -one.capture_seconds)
    with ThreadPoolExecutor(len(EVERY)) as pool:
        yield {
            one.name: pool.submit(
                _judge, one, place * STAGGER_SECONDS, folder / f"{one.name}.leakcase", analyses
            )
            for place, one in enumerate(longest_first)
        }


@each_sample
def test_a_sample_is_judged_as_it_is(
    expected: Expected, answers: dict[str, Future[Answer]]
) -> None:
    verdict = answers[expected.name].result()["verdict"]
    assert verdict["status"] not in expected.never, verdict
    assert verdict["status"] in (expected.status, *expected.status_also), verdict
    assert verdict["kind"] in (expected.kind, *expected.kind_also), verdict


@each_leak
def test_a_leak_grows_at_the_rate_that_is_expected(
    expected: Expected, answers: dict[str, Future[Answer]]
) -> None:
    answer = answers[expected.name].result()
    wanted: float | None = expected.rate_bytes_per_hour
    rate = answer["verdict"]["rate_bytes_per_hour"]
    if wanted is None:
        wanted, rate = expected.rate_per_hour, _rate_of(answer, expected.unit)
    assert rate == pytest.approx(wanted, rel=expected.rate_tolerance)


def _rate_of(answer: Answer, unit: str | None) -> float:
    """The rate of all that is counted in this unit, not of a part of it."""
    rates = [part["rate_per_hour"] for part in answer["growing"] if part["unit"] == unit]
    assert rates, answer["growing"]
    return float(max(rates))


@each_leak
def test_a_leak_is_tied_to_work_only_where_it_is(
    expected: Expected, answers: dict[str, Future[Answer]]
) -> None:
    trigger = answers[expected.name].result()["verdict"]["trigger"]
    assert trigger in (expected.trigger, *expected.trigger_also)
