from __future__ import annotations

from pathlib import Path

import pytest

from leakcase_bundle.records import CgroupFacts, CgroupSeries
from leakcase_collector.probes.cgroup import (
    CgroupProbe,
    parse_limit,
    parse_v1_stat,
    parse_v2_events,
    parse_v2_stat,
)
from tests.collector.probes.children import python
from tests.collector.probes.context import RecordingContext, run
from tests.collector.probes.recording import machine, recorded

MIB = 1024 * 1024
BASE = "/sys/fs/cgroup"
V2_MOUNT = b"28 22 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1_MOUNTS = (
    b"30 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    b"32 25 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
)
PRESSURE = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=17\nfull avg10=0.00 total=5\n"
V2_GROUP = {
    "memory.current": b"167772160\n",
    "memory.stat": recorded("v2-memory.stat.txt"),
    "memory.events": b"low 0\nhigh 3\nmax 5\noom 7\noom_kill 11\noom_group_kill 0\n",
    "memory.pressure": PRESSURE,
    "memory.swap.current": b"8192\n",
    "memory.max": b"max\n",
    "memory.high": b"max\n",
    "memory.swap.max": b"0\n",
    "pids.current": b"13\n",
    "cgroup.procs": b"4711\n4712\n4713\n",
}
V1_GROUP = {
    "memory.usage_in_bytes": b"134217728\n",
    "memory.stat": recorded("v1-memory.stat.txt"),
    "memory.failcnt": b"5\n",
    "memory.kmem.usage_in_bytes": b"2097152\n",
    "memory.oom_control": b"oom_kill_disable 0\nunder_oom 0\noom_kill 11\n",
    "memory.limit_in_bytes": b"9223372036854771712\n",
    "cgroup.procs": b"4711\n",
}


def _files(directory: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{directory}/{name}": content for name, content in files.items()}


def _capture(tmp_path: Path, files: dict[str, bytes], samples: int = 1) -> RecordingContext:
    return run(CgroupProbe(), RecordingContext(4711, machine(tmp_path, files)), samples)


def _v2_service(changes: dict[str, bytes]) -> dict[str, bytes]:
    return {
        "/proc/4711/cgroup": b"0::/system.slice/payroll.service\n",
        "/proc/self/mountinfo": V2_MOUNT,
        **_files(f"{BASE}/system.slice/payroll.service", V2_GROUP),
        f"{BASE}/system.slice/memory.max": b"max\n",
        **changes,
    }


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        (b"max\n", None),
        (b"536870912\n", 512 * MIB),
        (b"0\n", 0),
        (b"9223372036854771712\n", None),  # pages of 4 KiB
        (b"9223372036854710272\n", None),  # pages of 64 KiB
        (b"9223372036854775807\n", None),
        (b"18446744073709551615\n", None),
        (None, None),
    ],
)
def test_no_limit_is_none_in_every_spelling(content: bytes | None, limit: int | None) -> None:
    assert parse_limit(content) == limit


def test_version_2_tells_page_cache_from_anonymous_memory() -> None:
    assert parse_v2_stat(recorded("v2-memory.stat.txt")) == {
        "anon_bytes": 104857600,
        "file_bytes": 52428800,
        "inactive_file_bytes": 41943040,
        "shmem_bytes": 4194304,
        "kernel_bytes": 9437184,
        "slab_bytes": 7000000,
        "slab_unreclaimable_bytes": 2000000,
        "socket_bytes": 65536,
        "page_tables_bytes": 1048576,
    }


def test_version_1_counts_the_groups_below_as_well() -> None:
    assert parse_v1_stat(recorded("v1-memory.stat.txt")) == {
        "anon_bytes": 645201920,
        "file_bytes": 1090875392,
        "inactive_file_bytes": 489467904,
        "shmem_bytes": 9084928,
        "swap_bytes": 0,
        "limit_bytes": None,
    }


def test_events_that_an_old_kernel_does_not_count_are_absent() -> None:
    assert parse_v2_events(b"low 0\nhigh 3\nmax 5\noom 7\n") == {
        "events_high": 3,
        "events_max": 5,
        "events_oom": 7,
    }


def test_a_service_under_version_2_has_a_full_row(tmp_path: Path) -> None:
    context = _capture(tmp_path, _v2_service({}), samples=2)
    rows = context.rows_of(CgroupSeries)
    assert len(rows) == 2
    assert set(rows[0]) == set(CgroupSeries.__dataclass_fields__)
    assert rows[0]["current_bytes"] == 160 * MIB
    assert rows[0]["swap_bytes"] == 8192
    assert rows[0]["events_oom_kill"] == 11
    assert (rows[0]["pressure_some_us"], rows[0]["pressure_full_us"]) == (17, 5)
    assert rows[0]["processes"] == 13
    assert rows[0]["limit_bytes"] is None
    (facts,) = context.emitted(CgroupFacts)
    assert (facts.version, facts.limit_bytes, facts.limit_is_inherited) == (2, None, None)
    assert facts.swap_limit_bytes == 0
    assert facts.shared_with_processes == 2
    assert "payroll" not in str(facts.path)


@pytest.mark.parametrize(
    ("own", "above", "limit", "inherited"),
    [
        (b"536870912\n", b"max\n", 512 * MIB, False),
        (b"536870912\n", b"268435456\n", 256 * MIB, True),
        (b"max\n", b"268435456\n", 256 * MIB, True),
        (b"268435456\n", b"536870912\n", 256 * MIB, False),
    ],
)
def test_the_tightest_limit_of_a_group_and_those_above_it_counts(
    tmp_path: Path, own: bytes, above: bytes, limit: int, inherited: bool
) -> None:
    changes = {
        f"{BASE}/system.slice/payroll.service/memory.max": own,
        f"{BASE}/system.slice/memory.max": above,
        f"{BASE}/system.slice/memory.high": b"134217728\n",
    }
    context = _capture(tmp_path, _v2_service(changes))
    (facts,) = context.emitted(CgroupFacts)
    assert (facts.limit_bytes, facts.limit_is_inherited) == (limit, inherited)
    assert facts.high_bytes == 128 * MIB
    assert context.rows_of(CgroupSeries)[0]["limit_bytes"] == limit


def test_a_limit_that_is_changed_meanwhile_shows_in_the_series(tmp_path: Path) -> None:
    place = f"{BASE}/system.slice/payroll.service/memory.max"
    context = RecordingContext(4711, machine(tmp_path, _v2_service({place: b"536870912\n"})))
    probe = CgroupProbe()
    probe.sample(context, 1)
    (tmp_path / place.lstrip("/")).write_bytes(b"1073741824\n")
    probe.sample(context, 2)
    assert [row["limit_bytes"] for row in context.rows_of(CgroupSeries)] == [512 * MIB, 1024 * MIB]


def test_a_target_that_is_moved_to_another_group_is_followed(tmp_path: Path) -> None:
    moved = {**V2_GROUP, "memory.current": b"4096\n"}
    files = _v2_service(_files(f"{BASE}/system.slice/other.service", moved))
    context = RecordingContext(4711, machine(tmp_path, files))
    probe = CgroupProbe()
    probe.sample(context, 1)
    (tmp_path / "proc/4711/cgroup").write_bytes(b"0::/system.slice/other.service\n")
    probe.sample(context, 2)
    probe.sample(context, 3)
    assert [row["current_bytes"] for row in context.rows_of(CgroupSeries)] == [
        160 * MIB,
        4096,
        4096,
    ]
    first, second = context.emitted(CgroupFacts)
    assert first.path != second.path


def test_the_root_of_version_2_has_no_figures_and_is_one_gap(tmp_path: Path) -> None:
    files = {
        "/proc/4711/cgroup": b"0::/\n",
        "/proc/self/mountinfo": V2_MOUNT,
        "/proc/4711/mountinfo": V2_MOUNT,
        f"{BASE}/memory.stat": V2_GROUP["memory.stat"],
    }
    context = _capture(tmp_path, files, samples=3)
    assert context.gaps == [("not-supported", "cgroup")]
    assert context.records == [] and context.rows == []


def test_a_container_that_sees_its_group_as_the_root_has_figures(tmp_path: Path) -> None:
    files = {
        "/proc/4711/cgroup": b"0::/\n",
        "/proc/self/mountinfo": V2_MOUNT,
        **_files(BASE, {**V2_GROUP, "memory.max": b"536870912\n"}),
    }
    context = _capture(tmp_path, files)
    (facts,) = context.emitted(CgroupFacts)
    assert (facts.limit_bytes, facts.limit_is_inherited, facts.path) == (512 * MIB, False, "/")


def test_a_neighbour_outside_our_namespace_is_read_through_its_own_mounts(tmp_path: Path) -> None:
    files = {
        "/proc/4711/cgroup": b"0::/../payroll\n",
        "/proc/self/mountinfo": V2_MOUNT,
        "/proc/4711/mountinfo": b"28 22 0:25 /../payroll /sys/fs/cgroup ro - cgroup2 none rw\n",
        **_files(BASE, {**V2_GROUP, "memory.current": b"1\n"}),
        **_files(f"/proc/4711/root{BASE}", V2_GROUP),
    }
    context = _capture(tmp_path, files, samples=2)
    assert [row["current_bytes"] for row in context.rows_of(CgroupSeries)] == [160 * MIB] * 2
    assert context.gaps == []


def _v1_container(changes: dict[str, bytes]) -> dict[str, bytes]:
    return {
        "/proc/4711/cgroup": b"5:pids:/docker/1f\n4:memory:/docker/1f\n0::/elsewhere\n",
        "/proc/self/mountinfo": V1_MOUNTS
        + b"33 25 0:38 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n",
        **_files(f"{BASE}/memory/docker/1f", V1_GROUP),
        f"{BASE}/pids/docker/1f/pids.current": b"13\n",
        **changes,
    }


def test_a_container_under_version_1_has_a_row_of_what_version_1_knows(tmp_path: Path) -> None:
    context = _capture(tmp_path, _v1_container({}))
    (row,) = context.rows_of(CgroupSeries)
    assert row["current_bytes"] == 128 * MIB
    assert row["anon_bytes"] == 645201920
    assert row["kernel_bytes"] == 2 * MIB
    assert (row["events_max"], row["events_oom_kill"]) == (5, 11)
    assert row["processes"] == 13
    for unknown in ("events_high", "slab_bytes", "pressure_some_us"):
        assert row.get(unknown) is None
    (facts,) = context.emitted(CgroupFacts)
    assert (facts.version, facts.limit_bytes, facts.limit_is_inherited) == (1, None, None)
    assert facts.shared_with_processes == 0


@pytest.mark.parametrize(("own", "inherited"), [(b"536870912\n", False), (b"-1\n", True)])
def test_the_limit_of_version_1_counts_those_above_and_swap_is_what_it_leaves(
    tmp_path: Path, own: bytes, inherited: bool
) -> None:
    stat = V1_GROUP["memory.stat"]
    for name, limit in ((b"memory", 512 * MIB), (b"memsw", 768 * MIB)):
        stat = stat.replace(
            b"hierarchical_%s_limit 9223372036854771712" % name,
            b"hierarchical_%s_limit %d" % (name, limit),
        )
    place = f"{BASE}/memory/docker/1f"
    changes = {f"{place}/memory.stat": stat, f"{place}/memory.limit_in_bytes": own}
    context = _capture(tmp_path, _v1_container(changes))
    (facts,) = context.emitted(CgroupFacts)
    assert (facts.limit_bytes, facts.limit_is_inherited) == (512 * MIB, inherited)
    assert facts.swap_limit_bytes == 256 * MIB
    assert context.rows_of(CgroupSeries)[0]["limit_bytes"] == 512 * MIB


def test_the_root_of_version_1_would_show_the_whole_host_and_is_a_gap(tmp_path: Path) -> None:
    files = {
        "/proc/4711/cgroup": b"4:memory:/\n0::/\n",
        "/proc/self/mountinfo": V1_MOUNTS,
        **_files(f"{BASE}/memory", {**V1_GROUP, "release_agent": b"\n"}),
    }
    context = _capture(tmp_path, files, samples=2)
    assert context.gaps == [("not-supported", "cgroup")]
    assert context.rows == []


def test_a_group_that_is_removed_meanwhile_leaves_unknowns_not_zeros(tmp_path: Path) -> None:
    files = {
        "/proc/4711/cgroup": b"0::/../payroll\n",
        "/proc/self/mountinfo": V2_MOUNT,
        "/proc/4711/mountinfo": b"28 22 0:25 /../payroll /sys/fs/cgroup ro - cgroup2 none rw\n",
        **_files(f"/proc/4711/root{BASE}", V2_GROUP),
    }
    context = RecordingContext(4711, machine(tmp_path, files))
    probe = CgroupProbe()
    probe.sample(context, 1)
    for name in V2_GROUP:
        (tmp_path / f"proc/4711/root{BASE}" / name).unlink()
    probe.sample(context, 2)
    last = context.rows_of(CgroupSeries)[-1]
    assert [value for name, value in last.items() if name != "taken_ns"] == [None] * (len(last) - 1)


def test_a_process_of_this_host_has_figures_or_says_why_not() -> None:
    with python("") as child:
        context = run(CgroupProbe(), RecordingContext(child.pid), samples=2)
        with open(f"/proc/{child.pid}/cgroup") as file:
            names = [part for part in file.read().replace(":", "/").split("/") if len(part) > 12]
    if context.gaps:
        assert context.gaps == [("not-supported", "cgroup")]
        assert context.rows == []
        return
    (facts,) = context.emitted(CgroupFacts)
    rows = context.rows_of(CgroupSeries)
    assert len(rows) == 2
    # The child alone has some megabytes, and it is in that group.
    assert all((row["current_bytes"] or 0) > MIB and (row["anon_bytes"] or 0) > MIB for row in rows)
    assert not any(name in str(facts.path) for name in names)
