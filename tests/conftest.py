"""What holds for every test: where LEAKCASE_CI=1 is set, a test that is skipped has failed.

A proof that silently does not run is no proof. Elsewhere a skip says what is missing here.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any, Union

import pytest

STRICT = os.environ.get("LEAKCASE_CI") == "1"


def _fail_if_skipped(report: Union[pytest.TestReport, pytest.CollectReport]) -> None:
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped where every test must run: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    outcome = yield
    _fail_if_skipped(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, None]:
    outcome = yield
    _fail_if_skipped(outcome.get_result())
