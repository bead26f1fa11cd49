"""What BPF things exist in the kernel now, asked by bpf(2) as bpftool does."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from leakcase_collector.system import bpf

_NEXT = {"programs": 11, "maps": 12, "links": 31}
_FIELDS = {"prog_id": "programs", "map_id": "maps", "link_id": "links"}


class _Next(ctypes.Structure):
    _fields_ = [
        ("start_id", ctypes.c_uint32),
        ("next_id", ctypes.c_uint32),
        ("open_flags", ctypes.c_uint32),
    ]


def ids(kind: str) -> set[int]:
    """The numbers of all "programs", "maps" or "links"."""
    found: set[int] = set()
    asked = _Next()
    while True:
        try:
            bpf._bpf(_NEXT[kind], asked)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            raise
        found.add(asked.next_id)
        asked.start_id = asked.next_id


def held_by(pid: int | str) -> dict[str, set[int]]:
    """Those that a process has descriptors of (proc_pid_fdinfo(5))."""
    found: dict[str, set[int]] = {kind: set() for kind in _NEXT}
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            for line in entry.read_text().splitlines():
                name, _, value = line.partition(":")
                if name in _FIELDS:
                    found[_FIELDS[name]].add(int(value))
    return found


def children(pid: int) -> list[int]:
    """Of all its threads (proc_pid_task_children(5))."""
    return [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]


def held_with_children(pid: int) -> dict[str, set[int]]:
    """What a process and those that it started have."""
    found = held_by(pid)
    for child in children(pid):
        with suppress(FileNotFoundError):
            for kind, numbers in held_by(child).items():
                found[kind] |= numbers
    return found


def wait_until_gone(things: dict[str, set[int]], seconds: float = 15) -> None:
    """What is closed is freed when the kernel's readers are through, a moment later.

    A program's number in a link's fdinfo is that program's too.
    """
    assert things["programs"] and things["maps"]
    deadline = time.monotonic() + seconds
    while left := {kind: numbers & ids(kind) for kind, numbers in things.items()}:
        if not any(left.values()):
            return
        assert time.monotonic() < deadline, f"of BPF is left: {left}"
        time.sleep(0.05)


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root"
    if os.uname().machine != "x86_64":
        return "the places to watch are those of x86-64"
    if not Path("/sys/bus/event_source/devices/uprobe").exists():
        return "this kernel has no uprobes"
    return ""


needs_bpf = pytest.mark.skipif(bool(_why_not()), reason=_why_not())
