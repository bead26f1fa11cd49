"""Where the files of a process's control group are: cgroups(7), both versions.

``/proc/PID/cgroup`` names the group within its hierarchy, ``mountinfo`` says which part of which
hierarchy is mounted where. Both show paths relative to the *reader's* cgroup namespace, so the two
agree with each other whoever's mountinfo it is (cgroup_namespaces(7)).
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

_OCTAL = re.compile(r"\\([0-7]{3})")
_DELETED = " (deleted)"


class Mount(NamedTuple):
    """One mount of a cgroup file system."""

    version: int
    #: The group that the mount shows at its mount point.
    root: str
    point: str
    #: The controllers of a version 1 hierarchy.
    controllers: frozenset[str]


class Location(NamedTuple):
    """A control group's directory and those above it that are mounted as well."""

    version: int
    #: The group's own directory first, the mount point last.
    directories: tuple[str, ...]


def group_paths(content: bytes) -> dict[str, str]:
    """``/proc/PID/cgroup``: the group's path by controller; "" is the version 2 hierarchy."""
    paths: dict[str, str] = {}
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.split(":", 2)
        if len(fields) < 3 or not fields[2].startswith("/"):
            continue
        path = fields[2]
        if path.endswith(_DELETED):
            path = path[: -len(_DELETED)]
        for controller in fields[1].split(","):
            paths.setdefault(controller, path)
    return paths


def cgroup_mounts(content: bytes) -> list[Mount]:
    """The cgroup mounts of a mountinfo (proc_pid_mountinfo(5)), the last mounted first.

    Blanks and the like in a path are octal escapes there.
    """
    mounts = []
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(kinds) < 3 or kinds[0] not in ("cgroup", "cgroup2"):
            continue
        root, point = (_OCTAL.sub(lambda m: chr(int(m.group(1), 8)), f) for f in fields[3:5])
        version = 2 if kinds[0] == "cgroup2" else 1
        mounts.append(Mount(version, root, point, frozenset(kinds[2].split(","))))
    return mounts[::-1]


def locate(paths: dict[str, str], mounts: list[Mount], controller: str) -> Optional[Location]:
    """Where the group that `controller` governs is mounted; None if it is not within any mount.

    A controller belongs to one hierarchy only, so one that /proc/PID/cgroup names is of version 1,
    and any other of version 2 (hybrid hosts have both).
    """
    version = 1 if controller in paths else 2
    path = paths.get(controller, paths.get(""))
    if path is None:
        return None
    for mount in mounts:
        if mount.version == version and (version == 2 or controller in mount.controllers):
            below = _below(path, mount.root)
            if below is not None:
                return Location(version, _upwards(mount.point, below))
    return None


def _below(path: str, root: str) -> Optional[list[str]]:
    """The components of `path` below `root`; None when it is not below it, or nobody can know.

    A group outside the reader's namespace begins with "/..": below a root that begins so as well
    it can be found, below "/" it cannot.
    """
    inside, outside = _components(path), _components(root)
    if inside[: len(outside)] != outside:
        return None
    below = inside[len(outside) :]
    return None if ".." in below else below


def _components(path: str) -> list[str]:
    return [component for component in path.split("/") if component]


def _upwards(point: str, below: list[str]) -> tuple[str, ...]:
    base = "" if point == "/" else point
    return tuple("/".join([base, *below[:depth]]) for depth in range(len(below), -1, -1))
