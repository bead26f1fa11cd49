"""The case beside each sample, which the real collector made, gives the answer that is expected.

The same as tests/live/test_samples.py without the two minutes of watching.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_bundle import Reader
from samples import runner
from samples.runner import Expected

EVERY = runner.load_expected()
LEAKS = [expected for expected in EVERY if expected.status == "leak"]
# They are in everybody's clone.
LARGEST_BYTES = 45_000

each_sample = pytest.mark.parametrize("expected", EVERY, ids=lambda expected: expected.name)
each_leak = pytest.mark.parametrize("expected", LEAKS, ids=lambda expected: expected.name)


@functools.cache
def _answer(name: str) -> Analysis:
    with (runner.SAMPLES_DIR / name / "case.leakcase").open("rb") as case:
        return analyze(case)


@each_sample
def test_the_case_of_a_sample_is_judged_as_the_sample_is(expected: Expected) -> None:
    verdict = _answer(expected.name).verdict
    assert verdict.status not in expected.never, verdict
    assert verdict.status in (expected.status, *expected.status_also), verdict
    assert verdict.kind in (expected.kind, *expected.kind_also), verdict


@each_leak
def test_the_case_of_a_leak_shows_the_rate_that_is_expected(expected: Expected) -> None:
    answer = _answer(expected.name)
    wanted: float | None = expected.rate_bytes_per_hour
    rate = answer.verdict.rate_bytes_per_hour
    if wanted is None:
        wanted = expected.rate_per_hour
        rate = max(part.rate_per_hour for part in answer.growing if part.unit == expected.unit)
    assert rate == pytest.approx(wanted, rel=expected.rate_tolerance)


@each_leak
def test_the_case_of_a_leak_ties_it_to_work_only_where_it_is(expected: Expected) -> None:
    assert _answer(expected.name).verdict.trigger in (expected.trigger, *expected.trigger_also)


@each_sample
def test_the_case_of_a_sample_is_whole_and_small(expected: Expected) -> None:
    path = runner.SAMPLES_DIR / expected.name / "case.leakcase"
    assert path.stat().st_size < LARGEST_BYTES
    with path.open("rb") as case:
        reader: Any = Reader(case)
        assert sum(1 for _ in reader) > 100
    assert reader.complete
    assert not path.with_name(f"{path.name}.map").exists()
