from __future__ import annotations

import pytest

from leakcase_collector.probes.cgroup_location import (
    Location,
    Mount,
    cgroup_mounts,
    group_paths,
    locate,
)

V1_HOST = (
    b"25 19 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    b"26 25 0:23 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,name=systemd\n"
    b"30 25 0:27 / /sys/fs/cgroup/memory rw shared:14 - cgroup cgroup rw,memory\n"
    b"31 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    b"32 25 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
)
V2_HOST = b"28 22 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID_HOST = V1_HOST + b"33 25 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


def test_each_controller_has_its_path_and_the_unified_hierarchy_has_no_name() -> None:
    content = b"12:cpu,cpuacct:/a\n4:memory:/b:c\n1:name=systemd:/d\n0::/e (deleted)\n"
    assert group_paths(content) == {
        "cpu": "/a",
        "cpuacct": "/a",
        "memory": "/b:c",
        "name=systemd": "/d",
        "": "/e",
    }


def test_mount_paths_are_unescaped_and_the_last_mount_comes_first() -> None:
    content = V2_HOST + b"40 22 0:25 /a\\040b /mnt/x\\134y rw - cgroup2 none rw\n"
    assert cgroup_mounts(content) == [
        Mount(2, "/a b", "/mnt/x\\y", frozenset({"rw"})),
        Mount(2, "/", "/sys/fs/cgroup", frozenset({"rw", "nsdelegate"})),
    ]


BASE = "/sys/fs/cgroup"


@pytest.mark.parametrize(
    ("membership", "mountinfo", "found"),
    [
        # A service on a host of today.
        (
            b"0::/system.slice/a.service\n",
            V2_HOST,
            Location(2, (f"{BASE}/system.slice/a.service", f"{BASE}/system.slice", BASE)),
        ),
        # A container on a host with version 1, seen from the host.
        (
            b"4:memory:/docker/1f\n0::/\n",
            V1_HOST,
            Location(
                1, (f"{BASE}/memory/docker/1f", f"{BASE}/memory/docker", f"{BASE}/memory")
            ),
        ),
        # The same seen from within, in the host's cgroup namespace: only its own part is mounted.
        (
            b"4:memory:/docker/1f\n",
            b"30 25 0:27 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
            Location(1, (f"{BASE}/memory",)),
        ),
        # And with a cgroup namespace of its own.
        (b"0::/\n", V2_HOST, Location(2, (BASE,))),
        # Hybrid: memory under version 1, or left to version 2.
        (b"4:memory:/a\n0::/b\n", HYBRID_HOST, Location(1, (f"{BASE}/memory/a", f"{BASE}/memory"))),
        (
            b"1:name=systemd:/\n0::/b\n",
            HYBRID_HOST,
            Location(2, (f"{BASE}/unified/b", f"{BASE}/unified")),
        ),
        # A neighbour outside the reader's namespace: reachable where its part is mounted only.
        (b"0::/../b\n", V2_HOST, None),
        (
            b"0::/../b\n",
            b"28 22 0:25 /.. /host/cgroup rw - cgroup2 cgroup2 rw\n",
            Location(2, ("/host/cgroup/b", "/host/cgroup")),
        ),
        # The reader's own group below a mount of its parent: nobody can know by which name.
        (b"0::/\n", b"28 22 0:25 /.. /host/cgroup rw - cgroup2 cgroup2 rw\n", None),
        # A name that only begins alike.
        (
            b"0::/docker/1f2\n",
            b"28 22 0:25 /docker/1f /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            None,
        ),
        (b"0::/a\n", b"28 22 0:25 / / rw - cgroup2 cgroup2 rw\n", Location(2, ("/a", ""))),
        (b"", V2_HOST, None),
        (b"0::/a\n", b"", None),
    ],
)  # fmt: skip
def test_a_group_is_found_where_it_is_mounted(
    membership: bytes, mountinfo: bytes, found: Location | None
) -> None:
    assert locate(group_paths(membership), cgroup_mounts(mountinfo), "memory") == found
