from __future__ import annotations

import resource

from leakcase_bundle.records import Limits
from leakcase_collector.probes.limits import LimitsProbe, parse_limits
from tests.collector.probes.children import python
from tests.collector.probes.context import RecordingContext, run
from tests.collector.probes.recording import recorded


def test_every_limit_is_found_and_unlimited_is_none() -> None:
    limits = parse_limits(recorded("limits-linux-6.18.txt"))
    assert limits == {
        "address_space_bytes": None,
        "data_bytes": None,
        "stack_bytes": 8388608,
        "resident_bytes": None,
        "locked_memory_bytes": 8388608,
        "open_files": 20000,
        "processes": 96365,
        "core_bytes": 0,
    }


def test_a_limit_beyond_any_memory_counts_as_none() -> None:
    line = b"Max address space         18446744073709547520 unlimited            bytes     \n"
    assert parse_limits(line) == {"address_space_bytes": None}


def test_a_table_that_is_not_understood_is_not_known_rather_than_unlimited() -> None:
    assert parse_limits(b"Limit  Soft  Hard\nMin open files  3  4\n") == {}


def test_limits_set_by_a_process_are_reported() -> None:
    mib = 1024 * 1024
    code = (
        "import resource as r\n"
        f"r.setrlimit(r.RLIMIT_AS, ({997 * mib}, r.RLIM_INFINITY))\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (61, 67))\n"
    )
    with python(code) as child:
        context = run(LimitsProbe(), RecordingContext(child.pid))
        stack_bytes, _ = resource.prlimit(child.pid, resource.RLIMIT_STACK)
    (limits,) = context.emitted(Limits)
    assert limits.known
    assert limits.address_space_bytes == 997 * mib
    assert limits.open_files == 61
    assert limits.stack_bytes == (None if stack_bytes == resource.RLIM_INFINITY else stack_bytes)
    assert limits.data_bytes is None
