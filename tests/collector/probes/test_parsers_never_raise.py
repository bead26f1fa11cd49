"""Whatever the kernel (or a FUSE in its place) prints: parsers return, they never raise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakcase_collector.probes.cgroup import (
    parse_limit,
    parse_v1_stat,
    parse_v2_events,
    parse_v2_stat,
)
from leakcase_collector.probes.cgroup_location import cgroup_mounts, group_paths, locate
from leakcase_collector.probes.figures import keyed, parse_pressure, whole
from leakcase_collector.probes.host import parse_meminfo
from leakcase_collector.probes.identity import (
    parse_cmdline,
    parse_integer,
    parse_status_facts,
    parse_user,
)
from leakcase_collector.probes.kernel_log import parse_kernel_log
from leakcase_collector.probes.limits import parse_limits
from leakcase_collector.probes.settings import parse_environ
from leakcase_collector.probes.stat import parse_schedstat, parse_stat
from leakcase_collector.probes.status import parse_status
from leakcase_collector.probes.threads import fold_digits, parse_thread
from tests.collector.probes.recording import recorded


def _locate_all(content: bytes) -> Any:
    return [
        locate(group_paths(content), cgroup_mounts(content), controller)
        for controller in ("memory", "pids", "")
    ]


PARSERS: list[tuple[Callable[[bytes], Any], bytes]] = [
    (parse_status, recorded("status-linux-6.18.txt")),
    (parse_status_facts, recorded("status-linux-6.18.txt")),
    (parse_stat, recorded("stat-linux-6.18.txt")),
    (parse_thread, recorded("stat-linux-6.18.txt")),
    (parse_schedstat, b"1135935 576671 1\n"),
    (fold_digits, b"worker-12\n"),
    (parse_meminfo, recorded("meminfo-linux-6.18.txt")),
    (parse_pressure, b"some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 total=3\n"),
    (parse_limits, recorded("limits-linux-6.18.txt")),
    (parse_cmdline, b"/usr/bin/python3\0-m\0http.server\0"),
    (parse_environ, b"PATH=/bin\0MALLOC_ARENA_MAX=2\0GOGC=off\0"),
    (parse_integer, b"-1000\n"),
    (lambda content: parse_user(content, 1000), b"root:x:0:0::/root:/bin/sh\na:x:1000:1::/:/b\n"),
    (group_paths, b"4:memory:/a:b\n1:name=systemd:/\n0::/c (deleted)\n"),
    (
        _locate_all,
        b"35 31 0:32 / /sys/fs/cg rw - cgroup cgroup rw,memory\n4:memory:/a\n",
    ),
    (keyed, b"anon 12\nfile 13\n"),
    (whole, b" 4711 "),
    (parse_limit, b"max\n"),
    (parse_v2_stat, recorded("v2-memory.stat.txt")),
    (parse_v2_events, b"low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n"),
    (parse_v1_stat, recorded("v1-memory.stat.txt")),
    (
        parse_kernel_log,
        b"6,9,99,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task_memcg=/a,task=x,"
        b"pid=1,uid=0\n3,10,100,-;Killed process 1 (x) total-vm:1kB, anon-rss:2kB, file-rss:0kB\n",
    ),
]


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _integers(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _integers(inner)
    elif hasattr(value, "__dataclass_fields__"):
        yield from _integers(list(vars(value).values()))


def _changed(recording: bytes) -> st.SearchStrategy[bytes]:
    """The recording cut short, with a piece put in or a piece doubled; or nothing like it."""
    position = st.integers(0, len(recording))
    piece = st.one_of(
        st.binary(max_size=12),
        st.sampled_from([b"\n", b"\0", b" ", b":", b")", b"(", b"-1", b"9" * 30, b"kB", b"\xff"]),
    )
    changed = st.builds(
        lambda start, end, between: recording[:start] + between + recording[end:],
        position,
        position,
        piece,
    )
    return st.one_of(st.binary(max_size=200), position.map(lambda n: recording[:n]), changed)


@pytest.mark.parametrize(
    ("parse", "recording"), PARSERS, ids=[f"{n}-{p.__name__}" for n, (p, _) in enumerate(PARSERS)]
)
def test_any_text_is_parsed_into_numbers_that_a_case_can_hold(
    parse: Callable[[bytes], Any], recording: bytes
) -> None:
    @settings(max_examples=150, deadline=None)
    @given(_changed(recording))
    def holds(content: bytes) -> None:
        for number in _integers(parse(content)):
            assert -(1 << 63) <= number < 1 << 63

    holds()


@pytest.mark.parametrize(
    ("parse", "recording"), PARSERS, ids=[f"{n}-{p.__name__}" for n, (p, _) in enumerate(PARSERS)]
)
def test_nothing_at_all_is_parsed_into_nothing(
    parse: Callable[[bytes], Any], recording: bytes
) -> None:
    assert not list(_integers(parse(b"")))


FIGURES: list[tuple[Callable[[bytes], dict[str, Any]], bytes]] = [
    (parse_status, recorded("status-linux-6.18.txt")),
    (parse_meminfo, recorded("meminfo-linux-6.18.txt")),
    (parse_limits, recorded("limits-linux-6.18.txt")),
    (lambda content: parse_stat(content)._asdict(), recorded("stat-linux-6.18.txt")),
]


@pytest.mark.parametrize(("parse", "recording"), FIGURES)
def test_a_text_cut_short_gives_figures_of_the_whole_or_none(
    parse: Callable[[bytes], dict[str, Any]], recording: bytes
) -> None:
    whole_text = parse(recording)
    for length in range(len(recording)):
        for name, value in parse(recording[:length]).items():
            assert value is None or value == whole_text[name], (length, name)
