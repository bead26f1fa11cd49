"""What holds for every test.

Where LEAKCASE_CI=1 is set, a test that is skipped has failed: a proof that silently does not run
is no proof. Elsewhere a skip says what is missing.

Under pytest-xdist a file's tests stay together, as they may share a fixture that watches something
for minutes, and those that wait more than they compute come first. (``--dist loadgroup`` of xdist
3.8 has no effect under pytest 9, and ``loadfile`` knows no exceptions: hence our own scheduler.)
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any, Union

import pytest

STRICT = os.environ.get("LEAKCASE_CI") == "1"
FIRST = ("live", "packaging")
#: Files whose tests share nothing and take long.
APART = ("tests/packaging/test_pythons.py",)


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent.name not in FIRST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One worker for a file, but one for each test of the files that are `APART`."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return nodeid if file.endswith(APART) else file

    return ByFile(config, log)
