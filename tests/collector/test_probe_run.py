"""What a probe's mishaps cost the capture: its own figures, and no more."""

from __future__ import annotations

import errno
import os
import struct
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from leakcase_bundle.records import Gap
from leakcase_collector.errors import CollectorError, LimitReached, OutputError, TargetGone
from leakcase_collector.probe_run import ProbeRun, runs_of
from leakcase_collector.probes.base import Cadence, Probe


class Reader(Probe):
    """A probe that reads the target's words."""

    name = "status"
    level = "observe"
    cadence = Cadence.TICK
    reads = "what the target says"


def _run(step: Callable[[], object]) -> list[tuple[Any, str]]:
    records: list[Any] = []
    session: Any = SimpleNamespace(gaps=[], case=SimpleNamespace(add=records.append))
    run = ProbeRun(Reader(), session)
    run.call(lambda context, taken_ns: step(), 1)  # type: ignore[arg-type]
    assert run.runs == 1
    assert records == [gap for gap, _ in session.gaps]
    found: list[tuple[Any, str]] = session.gaps
    return found


@pytest.mark.parametrize(
    "step", [lambda: [][1], lambda: int("x" * 20), lambda: 1 // 0, lambda: struct.unpack("Q", b"")]
)
def test_what_no_parser_expects_costs_one_probes_figures(step: Callable[[], object]) -> None:
    ((gap, sentence),) = _run(step)
    assert isinstance(gap, Gap) and gap.reason == "malformed"
    assert "--without status" in sentence


def test_the_sentence_holds_nothing_of_what_was_read() -> None:
    ((_, sentence),) = _run(lambda: int("hunter2"))
    assert "hunter2" not in sentence and "ValueError" in sentence


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (errno.EMFILE, "over-limit", "all that status needs: a limit of this host is used up"),
        (errno.EACCES, "not-permitted", "the kernel refused"),
        (errno.EIO, "failed", "Input/output error"),
    ],
)
def test_what_the_system_refuses_where_a_probe_counted_on_it_is_a_gap(
    number: int, reason: str, words: str
) -> None:
    def step() -> None:
        raise OSError(number, os.strerror(number))

    ((gap, sentence),) = _run(step)
    assert (gap.reason, gap.errno) == (reason, number)
    assert words in sentence


def test_the_targets_end_is_not_taken_for_a_mishap() -> None:
    def step() -> None:
        raise TargetGone("process 7 has ended.")

    with pytest.raises(TargetGone):
        _run(step)


class Stuck(Reader):
    def __init__(self, error: Exception) -> None:
        self._error = error

    def close(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LimitReached("pid 7 still takes them out."), ["pid 7 still takes them out."]),
        (CollectorError("no matter."), []),
        (OSError(errno.EIO, "no matter"), []),
    ],
)
def test_what_could_not_be_undone_in_time_is_told_and_ends_nothing(
    error: Exception, told: list[str]
) -> None:
    def full(record: object) -> None:
        raise OutputError("the disk is full.")

    session: Any = SimpleNamespace(gaps=[], case=SimpleNamespace(add=full))
    ProbeRun(Stuck(error), session).close()
    assert [sentence for _, sentence in session.gaps] == told


class Learner(Reader):
    name = "stat"
    learns_from = ("status",)

    def __init__(self) -> None:
        self.learned: list[Any] = []

    def learn(self, record: Any) -> None:
        self.learned.append(record)


def test_a_probe_is_shown_the_records_of_those_that_it_learns_from_and_no_others() -> None:
    records: list[Any] = []
    session: Any = SimpleNamespace(gaps=[], case=SimpleNamespace(add=records.append))
    learner = Learner()
    teacher, own = runs_of([Reader(), learner], session)
    teacher.emit("seen")
    own.emit("not heard")
    assert (records, learner.learned) == (["seen", "not heard"], ["seen"])
    assert teacher.has_taught and not own.has_taught


def test_what_an_early_look_costs_is_not_the_teachers() -> None:
    session: Any = SimpleNamespace(gaps=[], case=SimpleNamespace(add=lambda record: None))
    run = ProbeRun(Reader(), session)
    for is_early in (True, False):
        run.is_early = is_early
        run.call(lambda context, taken_ns: sum(range(10_000)), 1)  # type: ignore[arg-type]
    assert 0 < run.tracing_cpu_ns < run.cpu_ns
