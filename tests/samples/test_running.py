"""Every sample runs at once for 17 s; what it says about itself is held against /proc."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from samples import runner
from samples.runner import Expected, Truth

EVERY = runner.load_expected()
LEAKS = [expected for expected in EVERY if expected.status == "leak"]
STEADY_LEAKS = [expected for expected in LEAKS if expected.trigger == "constant"]
WATCHED_SECONDS = 17
# The last seconds, when every cache is full and the spike is over.
SETTLED_SECONDS = 4
# Resident memory comes in pages, and glibc asks for its top in 132 KiB, of which it touches little.
GRAIN_BYTES = 16 * 4096

pytestmark = pytest.mark.live


@dataclasses.dataclass(frozen=True)
class Look:
    """What /proc shows of a process at one moment."""

    taken_seconds: float
    anonymous_bytes: int
    shared_memory_bytes: int
    file_bytes: int
    threads: int
    descriptors: int

    def amount(self, expected: Expected) -> int:
        """The figure that shows this sample's kind of growth."""
        return {
            "threads": self.threads,
            "fds": self.descriptors,
            "shared-memory": self.shared_memory_bytes,
            "file-mapping": self.file_bytes,
        }.get(expected.kind, self.anonymous_bytes)

    def resident_bytes(self) -> int:
        return self.anonymous_bytes + self.shared_memory_bytes + self.file_bytes


@dataclasses.dataclass(frozen=True)
class Watched:
    """A whole run of one sample."""

    looks: list[Look]
    truth: Truth


def look(pid: int) -> Look:
    """Reads proc_pid_smaps(5) rather than status, whose counters some kernels keep roughly."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    figures = {name: int(kb) * 1024 for name, kb in re.findall(r"^(\w+): +(\d+) kB$", text, re.M)}
    return Look(
        taken_seconds=time.monotonic(),
        anonymous_bytes=figures["Anonymous"] + figures["Swap"],
        shared_memory_bytes=figures["Pss_Shmem"],
        file_bytes=figures["Rss"] - figures["Anonymous"] - figures["Pss_Shmem"],
        threads=len(os.listdir(f"/proc/{pid}/task")),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
    )


@pytest.fixture(scope="module")
def watched() -> Iterator[dict[str, Watched]]:
    runner.build()
    with contextlib.ExitStack() as stack:
        running = {
            one.name: stack.enter_context(runner.start(one.name, WATCHED_SECONDS + 20))
            for one in EVERY
        }
        looks: dict[str, list[Look]] = {name: [] for name in running}
        begun = time.monotonic()
        for second in range(1, WATCHED_SECONDS + 1):
            time.sleep(max(0.0, begun + second - time.monotonic()))
            for name, sample in running.items():
                looks[name].append(look(sample.pid))
        yield {name: Watched(looks[name], sample.stop()) for name, sample in running.items()}


@pytest.mark.parametrize("expected", EVERY, ids=lambda expected: expected.name)
def test_a_sample_names_itself_and_says_what_it_leaked(
    expected: Expected, watched: dict[str, Watched]
) -> None:
    truth = watched[expected.name].truth
    assert truth["sample"] == expected.name
    assert truth["ended"] == "signal"
    assert truth["elapsed_seconds"] == pytest.approx(WATCHED_SECONDS, abs=3)
    assert (truth["leaked_count"] > 0) == (expected.status == "leak")
    assert (truth["leaked_bytes"] > 0) == ((expected.rate_bytes_per_hour or 0) > 0)


@pytest.mark.parametrize("expected", STEADY_LEAKS, ids=lambda expected: expected.name)
def test_a_leak_states_the_rate_that_is_expected_of_it(
    expected: Expected, watched: dict[str, Watched]
) -> None:
    truth = watched[expected.name].truth
    leaked = expected.what_is_leaked
    assert leaked is not None
    due = truth["elapsed_seconds"] * leaked.blocks_per_second
    # Two events may be due in one tick (a file and a pipe's two ends make three).
    assert truth["leaked_count"] == pytest.approx(due, abs=3, rel=0.005)
    if leaked.resident_bytes is not None:
        assert truth["leaked_bytes"] == truth["leaked_count"] * leaked.resident_bytes


@pytest.mark.parametrize("expected", STEADY_LEAKS, ids=lambda expected: expected.name)
def test_proc_shows_the_rate_that_is_expected(
    expected: Expected, watched: dict[str, Watched]
) -> None:
    first, *_, last = watched[expected.name].looks
    leaked = expected.what_is_leaked
    assert leaked is not None
    grown = last.amount(expected) - first.amount(expected)
    events = (last.taken_seconds - first.taken_seconds) * leaked.blocks_per_second
    per_event = leaked.resident_bytes or 1
    grain = GRAIN_BYTES if leaked.resident_bytes else 2
    assert grown == pytest.approx(events * per_event, rel=0.02, abs=grain + per_event)


@pytest.mark.parametrize("expected", STEADY_LEAKS, ids=lambda expected: expected.name)
def test_a_leak_is_at_work_from_the_first_second_on(
    expected: Expected, watched: dict[str, Watched]
) -> None:
    amounts = [one.amount(expected) for one in watched[expected.name].looks]
    half = len(amounts) // 2
    early, late = amounts[half] - amounts[0], amounts[-1] - amounts[-1 - half]
    assert early == pytest.approx(late, rel=0.15, abs=GRAIN_BYTES if early > 1000 else 3)


@pytest.mark.parametrize("expected", LEAKS, ids=lambda expected: expected.name)
def test_nothing_but_the_expected_kind_grows(
    expected: Expected, watched: dict[str, Watched]
) -> None:
    first, *_, last = watched[expected.name].looks
    if expected.kind != "threads":
        assert last.threads == first.threads
    if expected.kind != "fds":
        assert last.descriptors == first.descriptors
    grown = last.resident_bytes() - first.resident_bytes()
    of_its_kind = last.amount(expected) - first.amount(expected)
    stacks = 16_384 * of_its_kind if expected.kind == "threads" else 0
    allowed = stacks + 2 * GRAIN_BYTES
    assert grown - (0 if expected.unit else of_its_kind) == pytest.approx(0, abs=allowed)


def test_active_leak_grows_at_work_and_not_at_rest(watched: dict[str, Watched]) -> None:
    (expected,) = (one for one in EVERY if one.trigger == "active")
    assert expected.rate_bytes_per_hour is not None
    looks = watched[expected.name].looks
    at_work, at_rest = looks[:11], looks[12:]
    grown = at_work[-1].anonymous_bytes - at_work[0].anonymous_bytes
    seconds = at_work[-1].taken_seconds - at_work[0].taken_seconds
    # It works for half of the time.
    assert grown / seconds == pytest.approx(2 * expected.rate_bytes_per_hour / 3600, rel=0.04)
    assert at_rest[-1].anonymous_bytes == at_rest[0].anonymous_bytes


@pytest.mark.parametrize(
    "name",
    ["filling-cache", "spike-retained", "stable", "python-lru-cache", "python-stable"],
)
def test_an_innocent_has_settled_within_the_first_seconds(
    name: str, watched: dict[str, Watched]
) -> None:
    settled = watched[name].looks[-SETTLED_SECONDS:]
    amounts = [one.resident_bytes() for one in settled]
    assert max(amounts) - min(amounts) <= GRAIN_BYTES


def test_the_caches_did_fill_before_they_stopped(watched: dict[str, Watched]) -> None:
    for name in ("filling-cache", "python-lru-cache"):
        amounts = [one.anonymous_bytes for one in watched[name].looks]
        assert amounts[8] - amounts[2] > 0.4 * (amounts[-1] - amounts[0]) > 5_000_000


def test_the_spike_stays_resident_though_nearly_all_of_it_is_freed(
    watched: dict[str, Watched],
) -> None:
    amounts = [one.anonymous_bytes for one in watched["spike-retained"].looks]
    assert amounts[-1] > 0.97 * max(amounts) > 75_000_000


def test_the_sawtooth_returns_to_its_floor(watched: dict[str, Watched]) -> None:
    amounts = [one.anonymous_bytes for one in watched["sawtooth"].looks]
    # Five looks in five seconds hold a whole tooth of 4.6 s, wherever they begin.
    teeth = [amounts[begin : begin + 5] for begin in (0, 5, 10)]
    for tooth in teeth:
        assert 20_000_000 < max(tooth) < 33_000_000
        assert min(tooth) < 0.45 * max(tooth)


def test_the_mapped_file_becomes_resident_but_no_further_than_its_mapping(
    watched: dict[str, Watched],
) -> None:
    first, *_, last = watched["mapped-file-scan"].looks
    seconds = last.taken_seconds - first.taken_seconds
    # Read-ahead brings pages in some 64 KiB at a time.
    assert last.file_bytes - first.file_bytes == pytest.approx(251 * 4096 * seconds, rel=0.05)


@pytest.mark.parametrize("name", ["stable", "python-stable"])
def test_a_sample_ends_by_itself_when_its_time_is_over(name: str) -> None:
    expected = next(one for one in EVERY if one.name == name)
    run = subprocess.run(
        runner.command(expected, seconds=0.5),
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    begin, end = (json.loads(line) for line in run.stdout.splitlines())
    assert begin["sample"] == end["sample"] == name
    assert end["ended"] == "time"
    assert end["elapsed_seconds"] == pytest.approx(0.5, abs=0.3)
    assert run.stderr == ""


@pytest.mark.parametrize("expected", EVERY, ids=lambda expected: expected.name)
def test_a_sample_limits_its_own_address_space(expected: Expected) -> None:
    runner.build()
    # Not through runner.start, which sets the same limit from outside.
    process = subprocess.Popen(
        runner.command(expected, seconds=5), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        begin = json.loads(process.stdout.readline())
        assert begin == {"pid": process.pid, "sample": expected.name}
        limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
    finally:
        process.terminate()
        process.communicate(timeout=10)
    limit = re.search(r"^Max address space +(\d+) +(\d+) ", limits, re.M)
    assert limit is not None
    assert limit.groups() == (str(expected.limit_bytes),) * 2


@pytest.mark.parametrize("name", ["tmpfs-growth", "file-mapping-growth", "mapped-file-scan"])
def test_a_file_is_gone_when_its_sample_has_ended(name: str) -> None:
    runner.build()
    with runner.start(name, seconds=10) as running:
        paths = [folder / f"leakcase-sample-{running.pid}" for folder in runner.FILE_FOLDERS]
        time.sleep(0.3)
        assert [path.exists() for path in paths].count(True) == 1
    assert not any(path.exists() for path in paths)


def test_a_run_that_reaches_a_limit_says_so() -> None:
    expected = next(one for one in EVERY if one.name == "descriptor-leak")
    process = subprocess.Popen(
        runner.command(expected, seconds=10), stdout=subprocess.PIPE, text=True
    )
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (11, 11))
    output, _ = process.communicate(timeout=15)
    truth = json.loads(output.splitlines()[-1])
    assert truth["ended"] == "limit"
    # 11 less stdin, stdout and stderr; a pipe needs two.
    assert truth["leaked_count"] in (7, 8)


def test_wrong_use_is_refused_with_a_line_of_usage() -> None:
    run = subprocess.run(
        [str(runner.BUILD_DIR / "stable"), "--minutes", "1"],
        capture_output=True,
        text=True,
        timeout=5,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("usage: stable [--seconds N]")
