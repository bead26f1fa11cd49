"""What is traced side by side, at the capture's end."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from leakcase_collector.errors import LimitReached
from leakcase_collector.probes.allocation_trace import AllocationTraceProbe
from tests.collector.probes.context import RecordingContext


def test_one_that_fails_at_the_end_keeps_no_other_from_telling_what_it_saw() -> None:
    told: list[str] = []

    def fails() -> None:
        told.append("first")
        raise LimitReached("no.")

    probe = AllocationTraceProbe()
    ways = [SimpleNamespace(finish=way) for way in (fails, lambda: told.append("second"))]
    probe._tracing = ways  # type: ignore[assignment]
    with pytest.raises(LimitReached):
        probe.finish(RecordingContext(os.getpid()), 1)
    assert told == ["first", "second"]
