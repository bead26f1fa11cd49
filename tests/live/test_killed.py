"""SIGKILL to the collector at random moments: every case opens and is answered.

A short cut of ``make soak``, which does it 200 times.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from leakcase_bundle.records import CaseEnd, CaseHeader, StatusSeries
from tests.live.collecting import COLLECT, analyze, of_kind, python_child, read

pytestmark = pytest.mark.live

KILLS = int(os.environ.get("LEAKCASE_KILLS", "12"))
AT_ONCE = 4
LONGEST_SECONDS = 12.0


def _kill_once(pid: int, case: Path, after_seconds: float) -> float | None:
    """Kill a capture of `pid` after a while; returns how old its last sample was then, in seconds;
    None where none was written yet."""
    capture = subprocess.Popen(
        [*COLLECT, "capture", str(pid), "--duration", "60s", "--interval", "100ms",
         "-o", str(case)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(after_seconds)
    capture.kill()
    killed_ns = time.monotonic_ns()
    assert capture.wait(timeout=10) == -9
    if not case.exists() or case.stat().st_size < 64:
        return None
    records, reader = read(case)
    assert reader.problems == []
    assert reader.truncated
    assert of_kind(records, CaseHeader)
    assert not of_kind(records, CaseEnd)
    samples = [
        taken_ns for series in of_kind(records, StatusSeries) for taken_ns in series.taken_ns
    ]
    answer = analyze(case)
    assert answer["verdict"]["status"] in ("undecided", "stable", "bounded")
    assert any("cut" in missing["what"] + missing["because"] for missing in answer["not_seen"])
    return (killed_ns - samples[-1]) / 1e9 if samples else None


def test_a_case_whose_collector_was_killed_opens_and_is_answered(tmp_path: Path) -> None:
    seed = int(os.environ.get("LEAKCASE_SEED", str(time.time_ns())))
    print(f"LEAKCASE_SEED={seed}", file=sys.stderr)
    rng = random.Random(seed)
    moments = [rng.uniform(0.15, LONGEST_SECONDS) for _ in range(KILLS)]
    with python_child("") as target, ThreadPoolExecutor(AT_ONCE) as pool:
        lost_seconds = list(
            pool.map(
                lambda item: _kill_once(target.pid, tmp_path / f"{item[0]}.leakcase", item[1]),
                enumerate(moments),
            )
        )
    known = [lost for lost in lost_seconds if lost is not None]
    # A busy machine needs seconds to start the program.
    assert len(known) >= KILLS // 4
    # Frames are written every two seconds in so short a capture: that much may be lost, and what
    # a busy machine makes of it.
    assert max(known) < 5.0, sorted(known)


def test_nothing_of_a_killed_collector_stays_behind(tmp_path: Path) -> None:
    with python_child("") as target:
        _kill_once(target.pid, tmp_path / "x.leakcase", 3.0)
        listening = Path("/proc/net/unix").read_text()
        assert f"@leakcase/mark/{target.pid}/" not in listening
        assert target.poll() is None
    assert {p.name for p in tmp_path.iterdir()} == {"x.leakcase", "x.leakcase.map"}
