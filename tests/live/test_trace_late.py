"""On a host so busy that beats are missed, what tracing prepares does not wait for further ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from leakcase_bundle.records import TraceWindow
from leakcase_collector.probes.allocation_trace import AllocationTraceProbe
from leakcase_collector.probes.base import CaptureOptions
from leakcase_collector.system.clock import NS_PER_SECOND, monotonic_ns
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from samples import runner
from tests.collector.probes.context import RecordingContext
from tests.collector.system.started import needs_root

pytestmark = [pytest.mark.live, needs_root]

SYSTEM = System()


@pytest.fixture(scope="module")
def leaking() -> Iterator[runner.Running]:
    runner.build()
    with runner.start("small-block-leak", 60) as running:
        yield running


def watched_after_a_beat(pid: int, late_seconds: float) -> tuple[RecordingContext, set[str]]:
    """What is watched by a capture that has come so far so late, and has ended then."""
    probe = AllocationTraceProbe()
    probe.configure(
        CaptureOptions(trace="bursts", max_slowdown=0.5, duration_ns=60 * NS_PER_SECOND)
    )
    with ProcessIdentity(SYSTEM, pid) as identity:
        context = RecordingContext(pid, SYSTEM, identity, interval_ns=10 * NS_PER_SECOND)
        context.started_ns -= int(late_seconds * NS_PER_SECOND)
        try:
            probe.begin(context, monotonic_ns())
            probe.sample(context, context.started_ns)
            probe.finish(context, monotonic_ns())
        finally:
            probe.close()
    return context, {str(window.watched) for window in context.emitted(TraceWindow)}


def test_who_begins_late_watches_mappings_from_the_first_beat_on(leaking: runner.Running) -> None:
    on_time, early = watched_after_a_beat(leaking.pid, 0)
    late, all_kinds = watched_after_a_beat(leaking.pid, 60)
    assert early == {"allocator"}
    assert all_kinds == {"allocator", "mappings"}
    # Who watched mappings for less than half of the capture says so, as does who did not at all.
    assert ("no-time", None) in on_time.gaps and ("no-time", None) in late.gaps
