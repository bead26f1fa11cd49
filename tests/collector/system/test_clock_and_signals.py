"""The sampling rhythm, the wish to stop, and our own cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from leakcase_collector.system import clock
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.signals import StopRequest, process_exists
from tests.collector.system.started import started

MS = 1_000_000


def test_beats_fall_on_the_grid_and_never_early() -> None:
    start = clock.monotonic_ns()
    rhythm = clock.Rhythm(start, 15 * MS)
    numbers = []
    for _ in range(6):
        tick = rhythm.wait()
        assert clock.monotonic_ns() >= tick.due_ns == start + tick.number * 15 * MS
        numbers.append(tick.number)
    assert numbers == sorted(set(numbers))
    assert rhythm.missed_total == numbers[-1] - numbers[0] - 5 + numbers[0]


def test_beats_that_are_past_are_skipped_and_counted() -> None:
    rhythm = clock.Rhythm(clock.monotonic_ns(), 20 * MS)
    first = rhythm.wait()
    time.sleep(0.11)
    tick = rhythm.wait()
    assert tick.missed == tick.number - first.number - 1 >= 4
    assert rhythm.missed_total >= tick.missed


def test_a_descriptor_that_becomes_readable_ends_the_sleep_and_uses_up_no_beat() -> None:
    read_fd, write_fd = os.pipe()
    try:
        rhythm = clock.Rhythm(clock.monotonic_ns() + 50 * MS, 10_000 * MS, [read_fd])
        os.write(write_fd, b"x")
        woken = rhythm.wait()
        assert woken.woken_by == (read_fd,)
        os.read(read_fd, 1)
        beat = rhythm.wait()
        assert (beat.number, beat.missed, beat.woken_by) == (woken.number, 0, ())
    finally:
        os.close(read_fd)
        os.close(write_fd)


def test_the_end_of_the_target_ends_the_sleep() -> None:
    with started(["sleep", "0.1"]) as process, ProcessIdentity(System(), process.pid) as identity:
        assert identity.pidfd is not None
        started_ns = clock.monotonic_ns()
        rhythm = clock.Rhythm(started_ns + 20_000 * MS, 1000 * MS, [identity.pidfd])
        assert rhythm.wait().woken_by == (identity.pidfd,)
        assert clock.monotonic_ns() - started_ns < 10_000 * MS


def test_a_signal_ends_the_sleep_and_is_noted() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        rhythm = clock.Rhythm(clock.monotonic_ns() + 20_000 * MS, 1000 * MS, [stop.wake_fd])
        child = os.fork()
        if child == 0:
            time.sleep(0.05)
            os.kill(os.getppid(), signal.SIGTERM)
            os._exit(0)
        assert stop.count == 0
        assert rhythm.wait().woken_by == (stop.wake_fd,)
        assert stop.signal_number == signal.SIGTERM
        os.waitpid(child, 0)
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.count, stop.signal_number) == (2, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_exists_until_it_is_reaped() -> None:
    with started(["sleep", "60"]) as process:
        assert process_exists(process.pid)
        process.kill()
        process.wait()
        assert not process_exists(process.pid)
    assert not process_exists(0)
    assert not process_exists(-1)
    assert not process_exists(1 << 40)


def test_the_wall_anchor_lies_between_its_neighbours() -> None:
    before = (time.monotonic_ns(), time.time_ns())
    anchor = clock.wall_anchor()
    after = (time.monotonic_ns(), time.time_ns())
    assert before[0] <= anchor.taken_ns <= after[0]
    assert before[1] <= anchor.wall_ns <= after[1]
    assert 0 <= anchor.uncertainty_ns <= after[0] - before[0]


def test_a_start_time_lands_on_the_monotonic_clock() -> None:
    with started(["sleep", "60"]) as process, ProcessIdentity(System(), process.pid) as identity:
        age_ns = clock.monotonic_ns() - clock.monotonic_of_ticks(identity.start_ticks)
        assert 0 <= age_ns < 10_000 * MS


def test_our_own_cost_is_measured() -> None:
    cpu, thread = clock.own_cpu_ns(), clock.thread_cpu_ns()
    rss = clock.own_rss_bytes(System())
    deadline = time.monotonic() + 5
    while clock.own_cpu_ns() - cpu < 20 * MS and time.monotonic() < deadline:
        pass
    assert clock.own_cpu_ns() - cpu >= clock.thread_cpu_ns() - thread - MS > 15 * MS
    ballast = bytearray(32 << 20)
    ballast[:: clock.PAGE_BYTES] = b"x" * len(ballast[:: clock.PAGE_BYTES])
    grown = clock.own_rss_bytes(System()) - rss
    assert 30 << 20 < grown < 40 << 20
    assert clock.own_peak_rss_bytes() >= rss + grown - (1 << 20)


CALLING = "native bpf perf_event own_memory ptrace jvm_attach"


def test_importing_the_whole_door_stays_light() -> None:
    """Heavy modules are imported by whoever needs them, when they do; the budget is 40 ms."""
    code = f"""
import importlib, os, sys, leakcase_collector.system as s
folder = s.__path__[0]
files = [name for name in os.listdir(folder) if name.endswith('.py')]
sources = {{name[:-3]: open(os.path.join(folder, name)).read() for name in files}}
# These talk to C, the kernel or a JVM: who imports them wants what that takes.
wanted = set({CALLING!r}.split())
for _ in sources:
    calls = tuple(f'system.{{name}} import' for name in wanted)
    wanted |= {{name for name in sources if any(call in sources[name] for call in calls)}}
for name in sources.keys() - wanted:
    importlib.import_module(s.__name__ + '.' + name)
heavy = 'subprocess ctypes inspect dataclasses sqlite3 email http socket logging'
print(len(sources.keys() - wanted) > 25, [name for name in heavy.split() if name in sys.modules])
"""
    # -I -S: without what the environment's site packages import on their own.
    path = os.path.dirname(os.path.dirname(os.path.dirname(clock.__file__)))
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {path!r})\n{code}",
    ]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == b"True []\n"


def test_waiting_costs_next_to_nothing() -> None:
    cpu = clock.own_cpu_ns()
    rhythm = clock.Rhythm(clock.monotonic_ns() + 200 * MS, 1000 * MS)
    rhythm.wait()
    assert clock.own_cpu_ns() - cpu < 20 * MS
