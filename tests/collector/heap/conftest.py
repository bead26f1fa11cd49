"""Tests that look into running programs are `live`: once, on the newest Python, is enough of them.

What is pure (layouts, twins, labels, type information) runs on every Python, as all else here.
"""

from __future__ import annotations

import pytest

LIVE = (
    "test_busy.py",
    "test_cpython.py",
    "test_cpython_refusals.py",
    "test_idle.py",
    "test_kept.py",
    "test_objects.py",
    "test_reachability.py",
    "test_roots.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in LIVE and item.path.parent.name == "heap":
            item.add_marker(pytest.mark.live)
