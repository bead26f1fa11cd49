from __future__ import annotations

from pathlib import Path

import pytest

from leakcase_bundle.records import ThreadGroup, ThreadSeries
from leakcase_collector.probes import threads as threads_module
from leakcase_collector.probes.threads import (
    MAX_GROUPS,
    ThreadsProbe,
    fold_digits,
    parse_thread,
    spread,
)
from leakcase_collector.redact import Redactor
from tests.collector.probes.children import python
from tests.collector.probes.context import SECOND_NS, RecordingContext, run
from tests.collector.probes.recording import machine, recorded

#: PR_SET_NAME of prctl(2) names the calling thread.
NAMED_THREADS = """
import ctypes, os, threading, time
prctl = ctypes.CDLL(None).prctl
def start(name):
    started = threading.Event()
    def hold():
        if name: prctl(15, name, 0, 0, 0)
        started.set(); stop.wait()
    thread = threading.Thread(target=hold, daemon=True); thread.start(); started.wait()
    return thread
stop = threading.Event()
"""


def test_a_threads_name_and_time_are_found_whatever_the_name() -> None:
    plain = recorded("stat-linux-6.18.txt")
    for name in (b"python3", b"a) R 1 (b", b"\n", b"", b"\xff"):
        thread = parse_thread(plain.replace(b"(python3)", b"(" + name + b")"))
        assert thread is not None
        assert thread.name == name
        assert thread.cpu_ns == 30_000_000


def test_text_that_is_no_stat_is_no_thread() -> None:
    assert parse_thread(b"") is None
    assert parse_thread(b"4711 S 1") is None
    assert parse_thread(b"4711 (a) S 1") == (b"a", None)


def test_digits_fold_so_that_a_pool_is_one_group() -> None:
    assert fold_digits(b"worker-12") == fold_digits(b"worker-7") == b"worker-#"
    assert fold_digits(b"a1b22") == b"a#b#"


def test_a_choice_among_many_threads_has_old_and_new_ones() -> None:
    items = [str(n) for n in range(5000)]
    chosen = spread(items, 2000)
    assert len(chosen) == len(set(chosen)) == 2000
    assert chosen[0] == "0"
    assert int(chosen[-1]) > 4990
    assert spread(items[:7], 2000) == items[:7]


def test_threads_that_come_and_go_are_counted() -> None:
    code = NAMED_THREADS + (
        "old = [start(b'') for _ in range(5)]\n"
        "print('ready', flush=True); input()\n"
        "stop.set()\n"
        "while len(os.listdir('/proc/self/task')) > 1: time.sleep(0.001)\n"
        "stop.clear()\n"
        "new = [start(b'') for _ in range(7)]\n"
    )
    with python(code) as child:
        context = RecordingContext(child.pid)
        probe = ThreadsProbe()
        probe.begin(context, 0)
        probe.sample(context, SECOND_NS)
        child.tell()
        probe.sample(context, 2 * SECOND_NS)
        probe.sample(context, 3 * SECOND_NS)
    first, second, third = context.rows_of(ThreadSeries)
    assert (first["alive"], first["created"], first["ended"]) == (6, None, None)
    assert (second["alive"], second["created"], second["ended"]) == (8, 7, 5)
    assert (third["alive"], third["created"], third["ended"]) == (8, 0, 0)


def test_between_two_listings_threads_are_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if listing cost so much that the next one is an hour away.
    monkeypatch.setattr(threads_module, "_LISTING_SHARE", 10**12)
    code = NAMED_THREADS + (
        "print('ready', flush=True); input()\nnew = [start(b'') for _ in range(3)]\n"
    )
    with python(code) as child:
        context = RecordingContext(child.pid)
        probe = ThreadsProbe()
        probe.sample(context, SECOND_NS)
        child.tell()
        probe.sample(context, 2 * SECOND_NS)
    first, second = context.rows_of(ThreadSeries)
    assert first["alive"] == 1
    assert (second["alive"], second["created"], second["ended"]) == (4, None, None)


def test_threads_are_grouped_by_name_and_their_names_are_not_shown() -> None:
    code = NAMED_THREADS + (
        "pool = [start(b'payroll-%d' % n) for n in range(11)]\n"
        "odd = [start(b'a) b\\n') for _ in range(2)]\n"
        "plain = [start(b'') for _ in range(3)]\n"
    )
    with python(code) as child:
        redactor = Redactor()
        with open(f"/proc/{child.pid}/comm") as file:
            comm = file.read().rstrip("\n")
        redactor.know_module("/usr/bin/" + comm)
        context = run(ThreadsProbe(), RecordingContext(child.pid, redactor=redactor))
    groups = context.emitted(ThreadGroup)
    start, end = groups[:3], groups[3:]
    assert sorted(group.count for group in start) == [2, 4, 11]
    assert [(group.name, group.count) for group in start] == [
        (group.name, group.count) for group in end
    ]
    names = {group.count: group.name for group in start}
    # The main thread and those that nobody named bear the program's name, which is public.
    assert names[4] == comm
    assert names[11].startswith("<name:") and names[2].startswith("<name:")
    assert all(group.cpu_ns is not None for group in start)


def _stat(name: str, tid: int) -> bytes:
    content = recorded("stat-linux-6.18.txt").replace(b"python3", name.encode())
    return content.replace(b"10702", b"%d" % tid)


def test_more_names_than_are_kept_are_a_loss_and_the_largest_groups_stay(tmp_path: Path) -> None:
    names = ["".join(chr(97 + int(d)) for d in str(n)) for n in range(MAX_GROUPS + 9)]
    files = {
        f"/proc/4711/task/{9000 + n}/stat": _stat(name, 9000 + n)
        for n, name in enumerate(names + ["pool"] * 5)
    }
    files["/proc/4711/stat"] = _stat("main", 4711)
    context = RecordingContext(4711, machine(tmp_path, files))
    ThreadsProbe().begin(context, 0)
    groups = context.emitted(ThreadGroup)
    assert len(groups) == MAX_GROUPS
    assert groups[0].count == 5
    assert context.losses == [("threads", 10)]


def test_more_threads_than_are_read_are_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads_module, "MAX_NAMED_THREADS", 8)
    files = {f"/proc/4711/task/{n}/stat": _stat("pool", n) for n in range(4711, 4731)}
    files["/proc/4711/stat"] = _stat("main", 4711)
    context = RecordingContext(4711, machine(tmp_path, files))
    ThreadsProbe().begin(context, 0)
    assert sum(group.count for group in context.emitted(ThreadGroup)) == 8
    assert context.losses == [("threads", 12)]


def test_a_zombie_is_one_thread() -> None:
    with python("") as child:
        child.kill_without_reaping()
        context = run(ThreadsProbe(), RecordingContext(child.pid))
    assert context.rows_of(ThreadSeries)[0]["alive"] == 1
