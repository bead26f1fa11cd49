"""A thread in which a function was called goes on as if nothing had been, whatever became of it."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Iterator

import pytest

from leakcase_collector.attach.machine_code import Call, Look, Slot, SlotAddress, Text
from leakcase_collector.errors import CollectorError, OverBudget
from leakcase_collector.system.apart import run_apart
from tests.collector.attach.borrowed import (
    Running,
    answering,
    call,
    die,
    mapped_bytes,
    program,
    running,
    state,
    tracer,
)
from tests.collector.system.started import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

THREADS = ("main", "registers", "sleeper", "poller", "reader")
CALLS = 10
REQUESTS = int(os.environ.get("LEAKCASE_REQUESTS", "20"))


@pytest.fixture(scope="module")
def target() -> Iterator[Running]:
    program()
    with running() as found:
        yield found


def unharmed(target: Running) -> None:
    """Every thread has gone on, and none has seen anything that should not be."""
    before = target.report("write")
    wait_until(
        lambda: all(
            after.rounds > before[name].rounds
            for name, after in target.report("write").items()
            if name != "handled"
        )
    )
    after = target.report()
    assert {name: after[name].wrongs for name in THREADS[1:]} == dict.fromkeys(THREADS[1:], 0)
    assert state(target.pid) in "SR"
    assert tracer(target.pid) == 0


def test_a_function_of_eight_arguments_gets_them_all_and_answers(target: Running) -> None:
    slots, _ = call(target, "main", answering(target, "add_eight", 1, 2, 3, 4, 5, 6, 7, 8))
    assert slots[0] == sum(n * n for n in range(1, 9))


def test_results_addresses_and_texts_are_handed_on(target: Running) -> None:
    """The second call gets the first one's result, and the addresses of a slot and of a text."""
    add = target.where["add_eight"]
    steps = [
        Call(add, (5, 0, 0, 0, 0, 0, 0, 0), Slot(1)),
        Call(add, (Slot(1), 0, 0, 0, 0, 0, 0, 0), Slot(2)),
        Call(add, (SlotAddress(3), 0, 0, 0, 0, 0, 0, 0), Slot(4)),
        Call(add, (Text(b"word"), 0, 0, 0, 0, 0, 0, 0), Slot(5)),
        Look(),
    ]
    slots, _ = call(target, "main", steps)
    assert slots[1:3] == [5, 5]
    assert slots[4] % 8 == 0 and slots[5] > slots[4]


def test_what_follows_a_zero_is_left_out_where_that_is_said(target: Running) -> None:
    steps = [
        Call(target.where["add_eight"], (0,) * 8, Slot(0), ends_if_zero=True),
        Call(target.where["crash"]),
    ]
    assert call(target, "main", [*steps, Look()])[0] == []
    unharmed(target)


@pytest.mark.parametrize("thread", THREADS)
def test_a_thread_goes_on_with_all_that_it_had(target: Running, thread: str) -> None:
    """Registers, flags, red zone, vectors; waits are made again, for no longer than was left."""
    mapped = mapped_bytes(target.pid)
    for _ in range(CALLS):
        slots, stopped_ns = call(target, thread, answering(target, "add_eight", *range(8)))
        assert slots[0] == sum(n * (n + 1) for n in range(8))
        assert 0 < stopped_ns < 1_000_000_000
    assert mapped_bytes(target.pid) == mapped
    unharmed(target)


def test_signals_that_come_meanwhile_are_delivered_later(target: Running) -> None:
    with running() as alarmed:
        alarmed.ask("alarms")
        for _ in range(CALLS):
            call(alarmed, "main", answering(alarmed, "work", 5))
        before = alarmed.report()["handled"].rounds
        wait_until(lambda: alarmed.report()["handled"].rounds > before)
        unharmed(alarmed)


def test_a_function_that_waits_for_ever_is_taken_back(target: Running) -> None:
    target.ask("forget")
    with pytest.raises(OverBudget, match="was taken back"):
        call(target, "registers", answering(target, "wait_for_ever"), limit_ns=100_000_000)
    # All others went on after the limit, not when that thread was taken back a second later.
    assert target.report()["ticker"].wrongs < 900_000_000
    unharmed(target)


def test_a_function_that_works_for_too_long_ends_by_itself(target: Running) -> None:
    """It is left alone: it may hold a lock, which it gives back when it ends."""
    target.ask("forget")
    started = time.monotonic()
    with pytest.raises(OverBudget, match="ends by itself"):
        call(target, "registers", answering(target, "work", 1_700), limit_ns=100_000_000)
    assert target.report()["ticker"].wrongs < 900_000_000
    rounds = target.report()["registers"].rounds
    assert time.monotonic() - started < 1.65, "it was not waited for to its end"
    wait_until(lambda: target.report()["registers"].rounds > rounds)
    unharmed(target)


def test_a_function_that_crashes_is_undone(target: Running) -> None:
    with pytest.raises(CollectorError, match="signal 11"):
        call(target, "registers", answering(target, "crash"))
    assert target.ask("handler")["kept"] == (1,), "the program's own handler is still there"
    unharmed(target)


@pytest.mark.parametrize("thread", THREADS)
def test_a_thread_finds_back_when_its_keeper_is_killed(target: Running, thread: str) -> None:
    with pytest.raises(CollectorError, match="without an answer"):
        call(target, thread, answering(target, "work", 30), look=die)
    unharmed(target)


def test_no_moment_is_wrong_to_end_the_keeper() -> None:
    """Some of the ends meet a system call of ours, for which there is the frame on the stack."""
    seed = int(os.environ.get("LEAKCASE_SEED", str(time.time_ns())))
    print(f"LEAKCASE_SEED={seed}", file=sys.stderr)
    rng = random.Random(seed)
    with running() as target:
        for _ in range(REQUESTS):
            steps = answering(target, "work", 1)
            with contextlib.suppress(CollectorError):
                call(target, rng.choice(THREADS), steps, dies_after=rng.uniform(0.001, 0.01))
        before = target.report("write")
        wait_until(
            lambda: all(
                after.rounds > before[name].rounds
                for name, after in target.report("write").items()
                if name != "handled"
            )
        )
        # A wait that was continued once already cannot be continued again: it ends with EINTR.
        after = target.report()
        assert after["registers"].wrongs == after["reader"].wrongs == 0


def test_work_apart_hands_on_errors_and_ends_in_time() -> None:
    def refuse() -> None:
        raise OverBudget("too dear.")

    with pytest.raises(OverBudget, match="too dear"):
        run_apart(refuse, 5)
    started = time.monotonic()
    with pytest.raises(CollectorError, match="longer than it may"):
        run_apart(lambda: time.sleep(30), 0.3)
    assert time.monotonic() - started < 5
