"""Attached and detached again and again, killed at any moment: no target is harmed, nothing stays.

``make soak`` does 1,000 cycles, 200 of them with the tracer killed and 50 in which the target is
killed, executes itself anew or forks.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from leakcase_collector.system.allocation_tracer import AllocationTracer
from tests.collector.system.compiled import compiled
from tests.live.bpf_things import held_with_children, needs_bpf, wait_until_gone
from tests.live.tracer_targets import (
    FEW,
    FUNCTIONS,
    SOURCE,
    Counted,
    code_ranges,
    counted,
    points,
    tracing,
)

pytestmark = [pytest.mark.live, pytest.mark.slow, needs_bpf]
CYCLES = int(os.environ.get("LEAKCASE_CYCLES", "1000"))
KILLED, CHANGED = CYCLES // 5, CYCLES // 20
LONGEST_SECONDS = 0.4


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    flags = ["-O2", "-fomit-frame-pointer", "-fno-builtin", "-pthread"]
    return compiled(tmp_path_factory.mktemp("counted"), "counted", SOURCE.read_text(), flags)


@pytest.fixture
def busy(program: str) -> Iterator[Counted]:
    with counted(program, 4) as target:
        os.setpriority(os.PRIO_PROCESS, target.pid, 10)
        target.tell("busy")
        yield target


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("LEAKCASE_SEED", str(time.time_ns())))
    print(f"LEAKCASE_SEED={seed}", file=sys.stderr)
    return random.Random(seed)


def assert_unharmed(target: Counted, code: list[bytes]) -> None:
    """It runs, answers, and its code is as it was."""
    assert target.process.poll() is None
    target.tell("leak 1 50")
    deadline = time.monotonic() + 20
    while [target.code_at(point) for point in points()] != code:
        assert time.monotonic() < deadline, "a probe is left in the target"
        time.sleep(0.02)


def code_of(target: Counted) -> list[bytes]:
    return [target.code_at(point) for point in points()]


def test_a_busy_program_lives_through_many_attachments(
    busy: Counted, chance: random.Random
) -> None:
    code = code_of(busy)
    slowest_arm_ns = slowest_detach_ns = done = 0
    while done < CYCLES - KILLED - CHANGED:
        method = chance.choice(["uprobe-session"] * 8 + ["uprobe-multi", "uprobe-perf"])
        functions = FEW if method == "uprobe-perf" else FUNCTIONS
        with tracing(busy, method, functions=functions) as tracer:
            for _ in range(5):
                slowest_arm_ns = max(slowest_arm_ns, tracer.arm(event_cap=500))
                time.sleep(chance.uniform(0, 0.02))
                slowest_detach_ns = max(slowest_detach_ns, tracer.detach())
                done += 1
            held = held_with_children(os.getpid())
            assert tracer.counters().allocations > 0
            assert tracer.counters().missed == 0
        assert_unharmed(busy, code)
    wait_until_gone(held)
    print(
        f"{done} cycles; slowest to arm {slowest_arm_ns / 1e6:.0f} ms, "
        f"to detach {slowest_detach_ns / 1e6:.0f} ms",
        file=sys.stderr,
    )


def tracer_in_a_child(target: Counted, method: str) -> int:
    """The pid of a fork of us that traces the target until it is killed."""
    child = os.fork()
    if child:
        return child
    try:
        with AllocationTracer(target.pid, points(FEW), method=method) as tracer:
            tracer.set_code_ranges(code_ranges(target.pid))
            while True:
                tracer.arm(event_cap=500)
                time.sleep(0.02)
                tracer.detach()
    finally:
        os._exit(1)


def test_a_busy_program_lives_through_tracers_that_are_killed(
    busy: Counted, chance: random.Random
) -> None:
    code = code_of(busy)
    for _ in range(KILLED):
        child = tracer_in_a_child(busy, chance.choice(["uprobe-session"] * 3 + ["uprobe-perf"]))
        time.sleep(chance.uniform(0.02, LONGEST_SECONDS))
        held = held_with_children(child)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert_unharmed(busy, code)
        if held["programs"]:
            wait_until_gone(held)


def test_targets_that_end_execute_or_fork_meanwhile_do_as_they_would(
    program: str, chance: random.Random
) -> None:
    for number in range(CHANGED):
        with counted(program, 4) as target:
            os.setpriority(os.PRIO_PROCESS, target.pid, 10)
            target.tell("busy")
            method = chance.choice(["uprobe-session"] * 3 + ["uprobe-multi", "uprobe-perf"])
            with tracing(target, method, functions=FEW) as tracer:
                tracer.arm()
                time.sleep(chance.uniform(0, 0.1))
                if number % 3 == 0:
                    target.process.kill()
                    assert target.process.wait(timeout=20) == -signal.SIGKILL
                elif number % 3 == 1:
                    target.say("exec")
                    assert target.answer() == "ready"
                    assert target.tell("mix 200")["blocks"] > 0
                else:
                    target.say("fork")
                    assert target.answer() == "0"
                tracer.detach()
            if number % 3:
                assert target.process.poll() is None
                target.tell("leak 1 50")
