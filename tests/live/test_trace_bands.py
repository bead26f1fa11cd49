"""Windows of the sizes that grow, on a real program: which blocks they hold, and what is told."""

from __future__ import annotations

from itertools import count

import pytest

from leakcase_bundle.records import TraceSites, TraceWindow
from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.probes.subject import LiveSubject
from leakcase_collector.redact import Redactor
from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND, monotonic_ns
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.trace.assembly import Assembly
from leakcase_collector.trace.bands import SizeGrowth
from leakcase_collector.trace.bursts import Bursts
from samples import runner
from tests.collector.probes.context import RecordingContext
from tests.collector.system.started import needs_root

pytestmark = [pytest.mark.live, needs_root]
SYSTEM = System()
HOUR_NS = 3600 * NS_PER_SECOND
#: A twelfth of the sample's blocks have 1,009 bytes; the chunk of one has 1,024.
ASKED_BYTES, CHUNK_BYTES = 1009, 1024
WINDOWS = 9


@pytest.fixture(scope="module")
def told() -> RecordingContext:
    """A capture of an hour, in which time flies between the windows; they are short."""
    runner.build()
    with (
        runner.start("small-block-leak", 30) as running,
        ProcessIdentity(SYSTEM, running.pid) as identity,
    ):
        context = RecordingContext(running.pid, SYSTEM, identity, interval_ns=100 * NS_PER_MS)
        sizes = SizeGrowth()
        for chunks in (100, 900):
            sizes.take_look({CHUNK_BYTES: (chunks, CHUNK_BYTES * chunks)})
        subject = LiveSubject(SYSTEM, running.pid, identity)
        try:
            assembly = Assembly(SYSTEM, identity, subject, Redactor(), "bursts", None)
        except (NotPermitted, NotSupported) as error:
            pytest.skip(str(error))
        try:
            bursts = Bursts(context, assembly, assembly.blocks, HOUR_NS, 0.2, count(), sizes)
            started_ns = monotonic_ns()
            for minute in range(60):
                bursts.step(started_ns + minute * 60 * NS_PER_SECOND)
                if len(context.emitted(TraceWindow)) == WINDOWS:
                    break
        finally:
            assembly.close()
    return context


def test_after_the_first_most_windows_are_of_what_grows_and_each_fourth_of_all(
    told: RecordingContext,
) -> None:
    narrow = [window.largest_bytes is not None for window in told.emitted(TraceWindow)]
    assert narrow == [False, *[True, True, True, False] * 2]


def test_a_narrow_window_holds_blocks_of_its_sizes_and_says_which(told: RecordingContext) -> None:
    seen, frees, others = 0, 0, set()
    for window, sites in zip(told.emitted(TraceWindow), told.emitted(TraceSites)):
        sizes = set(sites.kept_smallest_bytes + sites.kept_largest_bytes) - {0}
        if window.largest_bytes is None:
            others |= sizes - {ASKED_BYTES}
            continue
        assert window.smallest_bytes <= ASKED_BYTES <= window.largest_bytes < CHUNK_BYTES
        assert sizes <= {ASKED_BYTES}
        assert window.allocated_bytes == ASKED_BYTES * window.allocations
        seen += window.allocations
        frees += window.frees
    assert 0 < seen < frees, "those are of all sizes"
    assert others
