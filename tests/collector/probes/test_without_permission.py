"""What probes say about a process of another user: gaps, never zeros, and never an error."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from leakcase_bundle.records import CgroupSeries, StatSeries, StatusSeries, Target
from leakcase_collector.probes.cgroup import CgroupProbe
from leakcase_collector.probes.identity import IdentityProbe
from leakcase_collector.probes.limits import LimitsProbe
from leakcase_collector.probes.settings import SettingsProbe
from leakcase_collector.probes.stat import StatProbe
from leakcase_collector.probes.status import StatusProbe
from leakcase_collector.probes.threads import ThreadsProbe
from tests.collector.probes.children import python
from tests.collector.probes.context import RecordingContext, run

NOBODY = 65534
PROBES = (
    IdentityProbe,
    StatusProbe,
    StatProbe,
    CgroupProbe,
    LimitsProbe,
    ThreadsProbe,
    SettingsProbe,
)


def _seen_by_nobody(pid: int) -> dict[str, Any]:
    """What the probes see of `pid` in a forked child that has become nobody."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(readable)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            context = RecordingContext(pid)
            for probe in PROBES:
                run(probe(), context, samples=2)
            target = context.emitted(Target)[0]
            seen = {
                "gaps": context.gaps,
                "executable": target.executable,
                "uid": target.uid,
                "rows": [series.__name__ for series, _ in context.rows],
                "rss_bytes": context.rows_of(StatusSeries)[0]["rss_bytes"],
            }
            os.write(writable, json.dumps(seen).encode())
        finally:
            os._exit(0)
    os.close(writable)
    try:
        with open(readable, "rb") as pipe:
            return json.loads(pipe.read())  # type: ignore[no-any-return]
    finally:
        os.waitpid(child, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_process_is_watched_but_for_what_is_private() -> None:
    with python("") as child:
        seen = _seen_by_nobody(child.pid)
    assert ["not-permitted", "exe"] in seen["gaps"]
    assert ["not-permitted", "environ"] in seen["gaps"]
    assert seen["executable"] is None
    assert seen["uid"] == 0
    assert seen["rss_bytes"] > 0
    for series in (StatusSeries, StatSeries):
        assert seen["rows"].count(series.__name__) == 2
    cgroup_gap = ["not-supported", "cgroup"] in seen["gaps"]
    assert cgroup_gap or seen["rows"].count(CgroupSeries.__name__) == 2
    # The rest is public.
    assert {detail for _, detail in seen["gaps"]} <= {"exe", "environ", "cgroup"}


def test_a_process_that_is_stopped_is_still_watched() -> None:
    with python("") as child:
        os.kill(child.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 5
        context = RecordingContext(child.pid)
        while time.monotonic() < deadline:
            IdentityProbe().begin(context, time.monotonic_ns())
            if context.emitted(Target)[-1].state == "stopped":
                break
        for probe in PROBES:
            run(probe(), context)
    assert context.emitted(Target)[-1].state == "stopped"
    assert context.rows_of(StatusSeries)[-1]["rss_bytes"]
