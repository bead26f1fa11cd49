"""Which process: by pid, by name, or the largest consumers to choose from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

from .errors import CollectorError, NotPermitted, NotSupported, TargetGone, UsageError
from .system.door import System
from .system.identity import ProcessIdentity, ProcessStat

KIB = 1024
_MAX_LISTED = 15


@dataclass(frozen=True)
class Consumer:
    """A process and its memory, for people on this host: names are raw and never enter a case."""

    pid: int
    name: str
    rss_bytes: int
    swap_bytes: int
    threads: int
    pss_bytes: Optional[int] = None

    @property
    def footprint_bytes(self) -> int:
        """What ending it would give back at most, swap included."""
        return self.rss_bytes + self.swap_bytes


def consumers(system: System, count: int = _MAX_LISTED) -> list[Consumer]:
    """The `count` largest processes by RSS and swap; PSS is read for those alone."""
    found = [c for pid in system.process_ids() if (c := _consumer(system, pid)) is not None]
    found.sort(key=lambda c: c.footprint_bytes, reverse=True)
    return [_with_pss(system, c) for c in found[:count]]


def _consumer(system: System, pid: int) -> Optional[Consumer]:
    try:
        status = _status_fields(system, pid)
    except CollectorError:
        return None
    if "VmRSS" not in status:  # A kernel thread or a zombie has no memory.
        return None
    return Consumer(
        pid,
        status.get("Name", "?"),
        _kib(status.get("VmRSS")),
        _kib(status.get("VmSwap")),
        int(status.get("Threads", "1")),
    )


def _with_pss(system: System, consumer: Consumer) -> Consumer:
    try:
        text = system.read_text(f"/proc/{consumer.pid}/smaps_rollup")
    except CollectorError:
        return consumer
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return Consumer(*_fields(consumer), pss_bytes=_kib(line[4:].strip()))
    return consumer


def _fields(consumer: Consumer) -> tuple[int, str, int, int, int]:
    return (
        consumer.pid, consumer.name, consumer.rss_bytes, consumer.swap_bytes, consumer.threads,
    )  # fmt: skip


def _status_fields(system: System, pid: int) -> dict[str, str]:
    lines = system.read_text(f"/proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _kib(text: Optional[str]) -> int:
    number = (text or "0").split()[0]
    return int(number) * KIB if number.isdigit() else 0


def find_target(
    system: System,
    wanted: Optional[str],
    choose: Optional[Callable[[Sequence[Consumer]], Optional[int]]],
) -> ProcessIdentity:
    """Take hold of the process that the user means.

    `wanted` is a pid, a name, or None for the largest consumers; `choose` asks a person to pick
    one (None: nobody is there to ask). Raises UsageError, TargetGone or NotPermitted.
    """
    if wanted is not None and wanted.isdigit():
        return _hold(system, int(wanted))
    candidates = consumers(system) if wanted is None else named(system, wanted)
    if wanted is not None and not candidates:
        raise UsageError(
            f"no process is called {wanted!r} here. "
            "Give a pid, or see the largest processes with: leakcase-collect top"
        )
    if wanted is not None and len(candidates) == 1:
        return _hold(system, candidates[0].pid)
    pid = choose(candidates) if choose is not None else None
    if pid is None:
        listed = ", ".join(f"{c.pid} ({c.name})" for c in candidates[:5])
        what = "which process?" if wanted is None else f"several are called {wanted!r}:"
        raise UsageError(f"{what} {listed}. Give one of these pids.")
    return _hold(system, pid)


def named(system: System, name: str) -> list[Consumer]:
    """Processes of that name, largest first; those that merely contain it if none is equal."""
    own = os.getpid()
    everyone = [
        c
        for pid in system.process_ids()
        if pid != own and (c := _consumer(system, pid)) is not None
    ]
    equal = [c for c in everyone if name in _names(system, c)]
    found = equal or [c for c in everyone if name.lower() in c.name.lower()]
    return sorted(found, key=lambda c: c.footprint_bytes, reverse=True)


def _names(system: System, consumer: Consumer) -> set[str]:
    names = {consumer.name}
    with contextlib.suppress(CollectorError):  # Of another user's process only comm is seen.
        names.add(system.read_link(f"/proc/{consumer.pid}/exe").rsplit("/", 1)[-1])
    return names


def _hold(system: System, pid: int) -> ProcessIdentity:
    try:
        identity = ProcessIdentity(system, pid)
    except TargetGone as error:
        raise TargetGone(f"there is no process {pid}. See: leakcase-collect top") from error
    try:
        _refuse_what_has_no_memory(identity.stat(), identity)
    except CollectorError:
        identity.close()
        raise
    return identity


def _refuse_what_has_no_memory(stat: ProcessStat, identity: ProcessIdentity) -> None:
    if identity.is_kernel_thread:
        raise NotSupported(
            f"process {identity.pid} is a kernel thread: it has no memory of its own. "
            "Look at Slab and KernelStack of the host instead."
        )
    if stat.is_zombie:
        raise TargetGone(
            f"process {identity.pid} has ended and is a zombie: its memory is already given back. "
            "Look at its parent, which does not wait for it."
        )
    if identity.pid == os.getpid():
        raise NotPermitted("that is the collector itself. Give another pid.")
