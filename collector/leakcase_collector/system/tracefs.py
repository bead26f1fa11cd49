"""Probes by the kernel's text interface, for kernels and containers that refuse all others.

What is written to ``uprobe_events`` stays there when its writer is killed: an event's name says
who made it, and whoever comes next removes those of the dead. An event does nothing by itself;
only an open descriptor puts breakpoints into a process (Documentation/trace/uprobetracer.rst).
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from contextlib import suppress

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.bpf_refusals import refused, with_detail
from leakcase_collector.system.signals import process_exists

_PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_GROUP = "leakcase"
_PREFIX = "leakcase_"
_BUSY_SECONDS = 5.0
_numbers = itertools.count()


class TracefsEvent:
    """A uprobe event that exists until it is removed."""

    def __init__(self, path: str, offset: int, is_return: bool) -> None:
        self._root = tracefs_root()
        self._name = f"{_GROUP}/{_PREFIX}{os.getpid()}_{next(_numbers)}"
        if any(char.isspace() or char == ":" for char in path):
            raise with_detail(
                NotSupported(
                    "cannot name the allocator's file to tracefs: its path has spaces or colons. "
                    "Use another way to attach."
                ),
                "tracefs",
            )
        kind = "r" if is_return else "p"
        self._write(f"{kind}:{self._name} {path}:{offset:#x}")
        self.event_id = self._read_id()

    def _write(self, line: str) -> None:
        try:
            _append(self._root, line)
        except OSError as error:
            raise refused(error, "make a uprobe by tracefs", "tracefs") from error

    def _read_id(self) -> int:
        try:
            with open(f"{self._root}/events/{self._name}/id", encoding="ascii") as file:
                return int(file.read())
        except OSError as error:
            self.remove()
            raise refused(error, "read the id of a uprobe in tracefs", "tracefs") from error

    def remove(self) -> None:
        """Once its descriptors are closed; for a moment longer the kernel says EBUSY."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                _append(self._root, f"-:{self._name}")
                return
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise refused(error, "remove a uprobe from tracefs", "tracefs") from error
            time.sleep(0.01)


def tracefs_root() -> str:
    """Where tracefs is mounted; NotSupported where it is not."""
    for place in _PLACES:
        if os.path.exists(f"{place}/uprobe_events"):
            return place
    raise with_detail(
        NotSupported(
            "cannot use tracefs: it is not mounted at /sys/kernel/tracing, or this kernel has no "
            "uprobe events. Mount it (mount -t tracefs tracefs /sys/kernel/tracing)."
        ),
        "tracefs",
    )


def remove_stale_events() -> int:
    """Remove events whose maker is dead; how many. One that is in use the kernel keeps (EBUSY)."""
    root = tracefs_root()
    removed = 0
    for name in our_events(root):
        maker = name[len(_PREFIX) :].partition("_")[0]
        if not maker.isdigit() or process_exists(int(maker)):
            continue
        with suppress(OSError):
            _append(root, f"-:{_GROUP}/{name}")
            removed += 1
    return removed


def our_events(root: str) -> list[str]:
    """The names of all events that a collector made, also one that still runs."""
    try:
        with open(f"{root}/uprobe_events", encoding="utf-8", errors="replace") as file:
            heads = [line.split(None, 1)[0] for line in file if line.strip()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return []
        raise refused(error, "read the uprobes in tracefs", "tracefs") from error
    named = (head.partition(f":{_GROUP}/")[2] for head in heads)
    return [name for name in named if name.startswith(_PREFIX)]


def _append(root: str, line: str) -> None:
    fd = os.open(f"{root}/uprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)
