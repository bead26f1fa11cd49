from __future__ import annotations

import os
import resource
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings

from leakcase_bundle.records import DescriptorGroup, DescriptorSeries
from leakcase_bundle.vocabulary import VOCABULARIES
from leakcase_collector.errors import NotPermitted
from leakcase_collector.probes.descriptors import (
    GROUPED_LINKS,
    KIND_COLUMNS,
    DescriptorsProbe,
    Link,
    classify_link,
    count_by_column,
    group_places,
    is_directory,
)
from leakcase_collector.system.door import System
from tests.collector.probes.children import python
from tests.collector.probes.context import SECOND_NS, RecordingContext, run
from tests.collector.probes.recording import machine
from tests.collector.probes.texts import changed


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ("/srv/data/a", "file", "/srv/data/a"),
        ("/srv/data/a (deleted)", "deleted-file", "/srv/data/a"),
        ("/dev/shm/ring", "file", "/dev/shm/ring"),
        ("/dev/null", "device", "/dev/null"),
        ("/dev/pts/3", "terminal", "/dev/pts/3"),
        ("/dev/nvidia0", "gpu-device", "/dev/nvidia0"),
        ("/dev/dri/renderD128", "gpu-device", "/dev/dri/renderD128"),
        ("/memfd:pool (deleted)", "memfd", ""),
        ("/dmabuf:", "dmabuf", ""),
        ("socket:[4711]", "socket", ""),
        ("pipe:[4711]", "pipe", ""),
        ("pidfd:[4711]", "pidfd", ""),
        ("net:[4026531840]", "other", ""),
        ("anon_inode:[eventpoll]", "epoll", ""),
        ("anon_inode:[eventfd]", "eventfd", ""),
        ("anon_inode:[timerfd]", "timerfd", ""),
        ("anon_inode:[signalfd]", "signalfd", ""),
        ("anon_inode:inotify", "inotify", ""),
        ("anon_inode:[fanotify]", "fanotify", ""),
        ("anon_inode:[io_uring]", "io-uring", ""),
        ("anon_inode:[pidfd]", "pidfd", ""),
        ("anon_inode:[perf_event]", "perf-event", ""),
        ("anon_inode:[userfaultfd]", "userfaultfd", ""),
        ("anon_inode:bpf-map", "bpf", ""),
        ("anon_inode:bpf_link", "bpf", ""),
        ("anon_inode:[something new]", "other", ""),
        ("", "other", ""),
    ],
)
def test_the_link_tells_what_a_descriptor_is(text: str, kind: str, path: str) -> None:
    assert classify_link(text) == Link(kind, path)


@settings(max_examples=200, deadline=None)
@given(changed(b"anon_inode:[eventpoll] /srv/data (deleted) socket:[4711]"))
def test_any_link_is_of_a_known_kind(text: bytes) -> None:
    link = classify_link(text.decode("utf-8", "surrogateescape"))
    assert link.kind in VOCABULARIES["descriptor_kind"]
    assert is_directory(b"flags:" + text) in (True, False)


def test_a_directory_shows_by_the_flags_it_was_opened_with() -> None:
    assert is_directory(b"pos:\t0\nflags:\t02300000\nmnt_id:\t30\n", 0o200000)
    assert not is_directory(b"pos:\t0\nflags:\t02100000\nmnt_id:\t30\n", 0o200000)
    assert not is_directory(b"pos:\t0\n", 0o200000)


def test_every_kind_has_a_column_and_those_that_do_not_occur_are_zero() -> None:
    counts = count_by_column(dict.fromkeys(VOCABULARIES["descriptor_kind"], 1))
    assert set(counts) == set(KIND_COLUMNS)
    assert sum(counts.values()) == len(VOCABULARIES["descriptor_kind"])
    assert set(count_by_column({}).values()) == {0}


def test_files_open_once_each_are_grouped_by_their_directory() -> None:
    links = {Link("file", f"/srv/spool/{number}"): 1 for number in range(50)}
    links[Link("file", "/srv/log")] = 7
    links[Link("socket")] = 3
    assert group_places(links, 16) == [
        (Link("file", "/srv/spool"), 50),
        (Link("file", "/srv/log"), 7),
        (Link("socket"), 3),
    ]


def test_places_beyond_the_limit_are_added_to_the_rest_of_their_kind() -> None:
    links = {Link("file", f"/srv/{number}"): number for number in range(2, 32)}
    groups = group_places(links, 16)
    assert len(groups) == 17
    assert groups[-1] == (Link("file"), sum(range(2, 16)))
    assert sum(count for _, count in groups) == sum(links.values())


def test_a_recorded_directory_is_counted_by_its_entries_not_by_its_size(tmp_path: Path) -> None:
    files = {f"/proc/4711/fdinfo/{fd}": b"pos:\t0\nflags:\t0100002\n" for fd in range(40)}
    links = {f"/proc/4711/fd/{fd}": f"/srv/log-{fd}" for fd in range(40)}
    context = run(DescriptorsProbe(), RecordingContext(4711, machine(tmp_path, files, links)))
    assert [row["total"] for row in context.rows_of(DescriptorSeries)] == [40, 40]


class _ForeignProcess(System):
    """A live machine on which the target's descriptors may not be listed."""

    def list_directory(self, path: str, limit_entries: int = 0) -> list[str]:
        raise NotPermitted("cannot read it: the kernel refused. Run as root.")


def test_the_number_of_another_users_descriptors_is_told_all_the_same() -> None:
    with python("import os; keep = [os.dup(0) for _ in range(23)]") as child:
        size = os.stat(f"/proc/{child.pid}/fd").st_size
        if not size:
            pytest.skip("this kernel (before 6.2) does not tell the number")
        context = run(DescriptorsProbe(), RecordingContext(child.pid, _ForeignProcess()), 3)
    assert context.gaps == [("not-permitted", "fd")]
    rows = context.rows_of(DescriptorSeries)
    assert [row["total"] for row in rows] == [size] * 3
    assert all(row.get("files") is None for row in rows)


OPEN_MANY = """
import os, select, socket, sys
print('ready', flush=True); sys.stdin.readline()
here = sys.argv[1]
keep = [os.pipe() for _ in range(7)]
keep += [socket.socket() for _ in range(5)]
keep += [os.memfd_create("pool") for _ in range(3)]
keep += [select.epoll() for _ in range(2)]
keep += [os.open(here, os.O_RDONLY | os.O_DIRECTORY) for _ in range(4)]
keep += [os.open("/dev/zero", os.O_RDONLY) for _ in range(6)]
keep += [os.open(here + "/log", os.O_RDWR | os.O_CREAT) for _ in range(11)]
keep += [os.open(here + "/%d" % n, os.O_RDWR | os.O_CREAT) for n in range(13)]
gone = os.open(here + "/gone", os.O_RDWR | os.O_CREAT)
os.unlink(here + "/gone")
"""
OPENED = {
    "total": 7 * 2 + 5 + 3 + 2 + 4 + 6 + 11 + 13 + 1,
    "pipes": 14, "sockets": 5, "memfds": 3, "epolls": 2, "directories": 4, "devices": 6,
    "files": 24, "deleted_files": 1, "eventfds": 0, "timerfds": 0, "inotifies": 0, "others": 0,
}  # fmt: skip


def test_what_a_process_opens_is_counted_exactly(tmp_path: Path) -> None:
    with python(OPEN_MANY, arguments=[str(tmp_path)]) as child:
        probe, context = DescriptorsProbe(), RecordingContext(child.pid)
        probe.begin(context, 0)
        probe.sample(context, 0)
        child.tell()
        probe.sample(context, 10 * SECOND_NS)
        probe.finish(context, 11 * SECOND_NS)
    first, second, last = context.rows_of(DescriptorSeries)
    for row in (second, last):
        assert {name: (row[name] or 0) - (first[name] or 0) for name in OPENED} == OPENED
    groups = [g for g in context.emitted(DescriptorGroup) if g.taken_ns == 11 * SECOND_NS]
    assert sum(group.count for group in groups) == last["total"]
    counts = Counter({(g.kind, g.count): 1 for g in groups})
    assert counts[("file", 13)] == counts[("file", 11)] == counts[("directory", 4)] == 1
    assert not any(str(tmp_path) in (group.path or "") for group in groups)
    assert context.losses == [] and context.gaps == []


MANY = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({0} + 100, {0} + 100))
keep = [os.dup(0) for _ in range({0})]
"""


def _may_raise_open_files(count: int) -> bool:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= count + 100


@pytest.mark.skipif(not _may_raise_open_files(10_000), reason="needs 10,000 descriptors")
def test_ten_thousand_descriptors_cost_no_more_per_interval_than_their_share() -> None:
    with python(MANY.format(10_000)) as child:
        probe, context = DescriptorsProbe(), RecordingContext(child.pid)
        probe.begin(context, 0)
        started_ns = time.thread_time_ns()
        ticks = 200
        for tick in range(ticks):
            probe.sample(context, tick * SECOND_NS)
        spent_ns = time.thread_time_ns() - started_ns
        probe.finish(context, ticks * SECOND_NS)
    rows = context.rows_of(DescriptorSeries)
    assert all((row["total"] or 0) >= 10_000 for row in rows[:ticks])
    with_kinds = [row for row in rows if row.get("pipes") is not None]
    assert with_kinds and all((row["pipes"] or 0) >= 10_000 for row in with_kinds)
    # 0.5 ms each, what was there at the start, and a last batch that may go over.
    assert spent_ns < ticks * 1_000_000
    left_out = [count for what, count in context.losses if what == "descriptors"]
    assert len(left_out) == 2 and all(count > 10_000 - GROUPED_LINKS for count in left_out)
    first = [g for g in context.emitted(DescriptorGroup) if g.taken_ns == 0]
    assert 10_000 // 3 <= sum(group.count for group in first) <= GROUPED_LINKS
