"""The tracer against a program that knows the truth, and what is left of it: nothing."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leakcase_collector.system.allocation_tracer import AllocationTracer, TracerLimits
from leakcase_collector.system.held_apart import Until
from leakcase_collector.system.uprobes import METHODS
from tests.collector.system.compiled import compiled
from tests.live.bpf_things import children, held_with_children, needs_bpf, wait_until_gone
from tests.live.tracer_targets import (
    FEW,
    MAPPINGS,
    SOURCE,
    Counted,
    code_ranges,
    counted,
    point_in,
    points,
    tracing,
)

pytestmark = [pytest.mark.live, needs_bpf]
SCRIPT = Path(__file__).parent / "tracer_targets.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
#: tracefs may not be mounted here, and what is mounted is not for tests to change.
WITH_TRACEFS = ["unshare", "--mount", "sh", "-c",
                'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"', "sh"]  # fmt: skip


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    flags = ["-O2", "-fomit-frame-pointer", "-fno-builtin", "-fno-optimize-sibling-calls",
             "-pthread"]  # fmt: skip
    return compiled(tmp_path_factory.mktemp("counted"), "counted", SOURCE.read_text(), flags)


@pytest.fixture
def target(program: str) -> Iterator[Counted]:
    with counted(program) as running:
        yield running


def script(*arguments: str, within: tuple[str, ...] | list[str] = ()) -> list[str]:
    return [*within, sys.executable, str(SCRIPT), *arguments]


def run_script(command: list[str]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_exact(result: dict[str, Any]) -> None:
    own, seen = result["own"], result["seen"]
    calls = dict(seen["calls"])
    # One address in glibc before 2.38.
    aligned = own.pop("aligned-alloc") + own.pop("memalign")
    assert calls.pop("aligned-alloc", 0) + calls.pop("memalign", 0) == aligned
    truth = {name: own[name] for name in calls}
    assert calls == truth
    assert (result["blocks"], result["bytes"], result["sum"]) == (
        own["blocks"], own["bytes"], own["sum"],
    )  # fmt: skip
    assert result["outstanding"] == own["blocks"]
    assert result["outstanding_bytes"] == own["bytes"]
    losses = ("lost_live", "lost_sites", "lost_samples", "missed", "reissued", "foreign", "failed")
    assert {name: seen[name] for name in losses} == dict.fromkeys(losses, 0)
    assert result["samples"] == result["sites"]


@pytest.mark.parametrize("method", METHODS)
def test_calls_and_blocks_of_four_threads_are_counted_exactly_by(method: str, program: str) -> None:
    within = WITH_TRACEFS if method == "uprobe-tracefs" else []
    result = run_script(script(method, "count", program, within=within))
    assert result["method"] == method
    assert_exact(result)


def test_within_a_pid_namespace_of_its_own_it_counts_the_same(program: str) -> None:
    within = ["unshare", "--pid", "--fork", "--mount-proc"]
    result = run_script(script("uprobe-session", "count", program, within=within))
    assert_exact(result)


def test_mappings_are_followed_as_blocks_are(target: Counted) -> None:
    with tracing(target, functions=MAPPINGS) as tracer:
        tracer.arm()
        target.tell("maps 10")
        assert tracer.counters().calls == {"mmap": 10, "mremap": 10, "munmap": 5}
        assert [block.size for block in tracer.live()] == [65536] * 5
        assert {block.call for block in tracer.live()} == {"mremap"}


def test_a_call_within_a_call_counts_once_and_its_stack_is_the_outer_callers(
    target: Counted,
) -> None:
    outer = point_in(target.program, "wrapper", "operator-new", target.pid)
    with AllocationTracer(target.pid, [*points(), outer]) as tracer:
        tracer.set_code_ranges(code_ranges(target.pid))
        tracer.arm()
        target.tell("wrapped 7")
        seen = tracer.counters()
        assert seen.calls == {"operator-new": 7}
        assert seen.nested == 7
        assert (seen.allocations, len(tracer.live())) == (7, 7)
        (sample,) = tracer.drain()
        assert sample.call == "operator-new"
        # It returns to main, not to the wrapper.
        main = point_in(target.program, "main", "other", target.pid)
        assert 0 < target.offset_of(sample.registers[16], main.path) - main.file_offset < 4096


def test_a_realloc_that_fails_leaves_its_block_and_one_to_nothing_takes_it(
    target: Counted,
) -> None:
    with tracing(target) as tracer:
        tracer.arm()
        target.tell("failing")
        (block,) = tracer.live()
        assert (block.size, block.call) == (100, "malloc")
        seen = tracer.counters()
        assert (seen.failed, seen.freed_blocks, seen.freed_bytes) == (1, 0, 0)
        target.tell("emptied")
        assert [kept.address for kept in tracer.live()] == [block.address]
        assert tracer.counters().freed_blocks == 1


def test_a_full_table_is_counted_as_a_loss(target: Counted) -> None:
    with tracing(target, limits=TracerLimits(live_blocks=64)) as tracer:
        tracer.arm()
        target.tell("leak 100 30")
        seen = tracer.counters()
        assert seen.allocations == 100
        assert (len(tracer.live()), seen.lost_live) == (64, 36)


def test_stacks_beyond_the_table_or_the_ring_are_counted_as_lost(target: Counted) -> None:
    limits = TracerLimits(sites=8, ring_bytes=65_536)
    target.tell("deep 20")  # what it leaves on the stack is a part of what tells stacks apart
    with tracing(target, limits=limits) as tracer:
        tracer.arm()
        target.tell("deep 20")
        seen = tracer.counters()
        assert len(tracer.sites()) == 8
        assert seen.lost_sites == 12
        first = len(tracer.drain())
        assert (first, seen.lost_samples) == (7, 1)
        target.tell("deep 20")
        assert len(tracer.drain()) == 8 - first


def test_an_address_handed_out_again_takes_the_place_of_its_former_block(target: Counted) -> None:
    with tracing(target, functions=FEW[:1]) as tracer:  # no free is seen
        tracer.arm()
        target.tell("churn 10 100")
        seen = tracer.counters()
        assert (seen.allocations, seen.reissued, seen.freed_blocks) == (10, 9, 9)
        assert len(tracer.live()) == 1
        assert seen.lost_live == 0


def test_the_cap_ends_the_counting_of_allocations_and_not_that_of_frees(target: Counted) -> None:
    with tracing(target) as tracer:
        tracer.arm(event_cap=50)
        assert not tracer.counters().is_capped
        target.tell("leak 120 30")
        seen = tracer.counters()
        assert (seen.allocations, seen.is_capped) == (50, True)
        assert seen.first_ns is not None and seen.last_ns is not None
        target.tell("mix 100")
        assert tracer.counters().frees > 0
        tracer.arm(event_cap=1000)
        assert not tracer.counters().is_capped
        target.tell("leak 10 30")
        assert tracer.counters().allocations == 60


def test_only_sizes_of_the_band_are_followed(target: Counted) -> None:
    with tracing(target) as tracer:
        tracer.arm(min_bytes=64, max_bytes=127)
        for size in (63, 64, 127, 128):
            target.tell(f"leak 3 {size}")
        assert sorted(block.size for block in tracer.live()) == [64] * 3 + [127] * 3
        assert tracer.counters().size_log2[6] == 6
        assert tracer.counters().passed_over == 6


@pytest.mark.parametrize("method", METHODS[:2])
def test_moves_to_sizes_beyond_the_band_hide_no_block_within_it(
    method: str, target: Counted
) -> None:
    with tracing(target, method) as tracer:
        tracer.arm(max_bytes=15)  # what is moved is nearly always larger
        target.tell("mix 300")
        seen = tracer.counters()
        assert seen.nested == 0, "no function of the program's calls another"
        assert seen.passed_over > 100


def test_each_stack_is_sampled_once_from_where_its_caller_stands(target: Counted) -> None:
    target.tell("deep 5")
    with tracing(target) as tracer:
        tracer.arm()
        target.tell("deep 5")
        target.tell("deep 5")
        samples = tracer.drain()
        assert len(samples) == len({sample.key for sample in samples}) == 5
        assert {site.allocations for site in tracer.sites().values()} == {2}
        code = code_ranges(target.pid)
        for sample in samples:
            assert any(start <= sample.registers[16] < end for start, end in code)
            assert sample.registers[0] == sample.address
            with open(f"/proc/{target.pid}/mem", "rb") as memory:
                memory.seek(sample.sp + len(sample.stack) - 256)
                # The outer end does not change between calls; the inner one does.
                assert memory.read(256) == sample.stack[-256:]
        depths = sorted(sample.sp for sample in samples)
        assert len(set(depths)) == 5


@pytest.mark.parametrize("stack_bytes", [4096, 16384, 32768])
def test_as_much_of_the_stack_is_copied_as_is_asked_for(stack_bytes: int, target: Counted) -> None:
    limits = TracerLimits(stack_bytes=stack_bytes)
    with tracing(target, limits=limits, functions=FEW) as tracer:
        tracer.arm()
        target.tell("wide")
        (sample,) = tracer.drain()
        # The last piece may not fit.
        assert stack_bytes - 1024 <= len(sample.stack) <= stack_bytes


def test_pages_that_were_never_touched_do_not_end_the_copy_of_a_stack(target: Counted) -> None:
    limits = TracerLimits(stack_bytes=32768)
    with tracing(target, limits=limits, functions=FEW) as tracer:
        tracer.arm()
        target.tell("hollow")
        (sample,) = tracer.drain()
        assert sample.stack[6_000:8_000] == bytes(2000)
        words = struct.unpack(f"<{len(sample.stack) // 8}Q", sample.stack)
        code = code_ranges(target.pid)
        returns = [place * 8 for place, word in enumerate(words)
                   if any(start <= word < end for start, end in code)]  # fmt: skip
        assert max(returns) > 20_000


def test_two_tracers_of_one_process_do_not_wait_for_each_other(target: Counted) -> None:
    with tracing(target, functions=FEW) as first:
        first.arm()
        with tracing(target, functions=MAPPINGS) as second:
            second.arm()
            target.tell("leak 3 100")
            target.tell("maps 4")
            first.detach()
            second.detach()
            assert first.counters().calls["malloc"] == 3
            assert second.counters().calls["mmap"] == 4


def test_what_died_after_the_window_is_not_still_live(target: Counted) -> None:
    with tracing(target) as tracer:
        tracer.arm()
        target.tell("mix 300")
        cohort = tracer.live()
        counted_then = tracer.counters().allocations
        tracer.stop_allocations()
        target.tell("mix 100")  # on the first slots of those that were used before
        assert tracer.counters().allocations == counted_then
        kept = {*cohort} & {*tracer.live()}
        assert 0 < len(kept) < len(cohort)
        gone = {*list(kept)[:3]}
        tracer.forget(block.address for block in gone)
        assert kept & {*tracer.live()} == kept - gone
        target.tell("mix 300")
        assert not {*cohort} & {*tracer.live()}, "the slots are the very same, moved blocks or not"


@pytest.mark.parametrize("method", METHODS[:3])
def test_detached_nothing_is_left_in_the_kernel_or_in_the_targets_code(
    method: str, target: Counted
) -> None:
    code = [target.code_at(point) for point in points(FEW)]
    with tracing(target, method, functions=FEW) as tracer:
        for _ in range(2):
            tracer.arm()
            target.tell("mix 50")
            assert [target.code_at(point) for point in points(FEW)] != code
            held = held_with_children(os.getpid())
            assert bool(held["links"]) == (method != "uprobe-perf")
            tracer.detach()
            assert [target.code_at(point) for point in points(FEW)] == code
    wait_until_gone(held)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_tracer_leaves_nothing_behind(method: str, target: Counted) -> None:
    code = [target.code_at(point) for point in points(FEW)]
    within = WITH_TRACEFS if method == "uprobe-tracefs" else []
    with subprocess.Popen(
        script(method, str(target.pid), within=within), stdout=subprocess.PIPE, text=True,
        env=ENVIRONMENT,
    ) as tracer:  # fmt: skip
        assert tracer.stdout is not None
        assert tracer.stdout.readline() == "armed\n"
        target.tell("mix 100")
        held = held_with_children(tracer.pid)
        tracer.send_signal(signal.SIGKILL)
    wait_until_gone(held)
    deadline = time.monotonic() + 10
    while [target.code_at(point) for point in points(FEW)] != code:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    target.tell("mix 100")


def uprobe_events() -> list[str]:
    """What tracefs lists; it is the same wherever it is mounted."""
    command = [*WITH_TRACEFS, "cat", "/sys/kernel/tracing/uprobe_events"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_events_in_tracefs_go_with_their_killed_tracer(target: Counted) -> None:
    command = script("uprobe-tracefs", str(target.pid), within=WITH_TRACEFS)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as tracer:
        assert tracer.stdout is not None
        assert tracer.stdout.readline() == b"armed\n"
        holders = tuple(f"leakcase_{pid}_" for pid in children(tracer.pid))
        mine = {line for line in uprobe_events() if any(holder in line for holder in holders)}
        assert len(mine) == 3
        tracer.kill()
    deadline = time.monotonic() + 10
    while mine & set(uprobe_events()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_events_of_a_tracer_killed_with_all_its_processes_are_removed_by_the_next(
    program: str,
) -> None:
    left = "p:leakcase/leakcase_4194305_0 /bin/true:0x1000"  # beyond the largest pid
    write = [*WITH_TRACEFS, "sh", "-c", 'echo "$0" >>/sys/kernel/tracing/uprobe_events', left]
    subprocess.run(write, check=True, timeout=10)
    name = left.split()[0]
    assert any(line.startswith(name) for line in uprobe_events())
    run_script(script("uprobe-tracefs", "once", program, within=WITH_TRACEFS))
    assert not any(line.startswith(name) for line in uprobe_events())


def test_probes_are_taken_out_in_time_though_their_tracer_is_stopped(target: Counted) -> None:
    place = points(FEW)[0]
    code = target.code_at(place)
    with AllocationTracer(target.pid, [place], until=Until(most_seconds=1)) as tracer:
        tracer.arm()
        assert target.code_at(place) != code
        deadline = time.monotonic() + 10
        while target.code_at(place) != code:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        target.tell("leak 3 100")
        assert tracer.counters().allocations == 0
        tracer.arm()
        target.tell("leak 3 100")
        assert tracer.counters().allocations == 3


def test_a_target_that_is_killed_meanwhile_is_no_error(target: Counted) -> None:
    with tracing(target) as tracer:
        tracer.arm()
        target.tell("leak 5 100")
        target.process.kill()
        target.process.wait(timeout=10)
        tracer.detach()
        assert tracer.counters().allocations == 5
        assert len(tracer.live()) == 5


def test_a_target_that_executes_itself_anew_is_not_harmed(target: Counted) -> None:
    with tracing(target) as tracer:
        tracer.arm()
        target.say("exec")
        assert target.answer() == "ready"
        target.tell("mix 100")
        tracer.detach()
    assert target.tell("mix 100")["blocks"] > 0


@pytest.mark.parametrize("method", METHODS[:3])
def test_a_child_of_the_target_is_neither_counted_nor_harmed(method: str, target: Counted) -> None:
    with tracing(target, method, functions=FEW) as tracer:
        tracer.arm()
        target.say("fork")
        assert target.answer() == "0"
        assert tracer.counters().allocations < 20
        target.tell("leak 5 100")
        assert [block.size for block in tracer.live()].count(100) == 5
