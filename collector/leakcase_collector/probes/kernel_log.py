"""Kills by the kernel's out-of-memory killer, from its log: ``/dev/kmsg``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Optional

from leakcase_bundle.records import OomKill
from leakcase_collector.system.clock import monotonic_of_ticks
from leakcase_collector.system.identity import namespaces

from .base import Cadence, Context, Prediction, Probe
from .cgroup_location import group_paths
from .figures import whole

MAX_KILLS = 20
_LOG_LIMIT_BYTES = 32 * 1024 * 1024

#: The first namespaces of the host have these fixed inodes (include/linux/proc_ns.h).
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
_FIRST_CGROUP_NAMESPACE = 0xEFFFFFFB

#: A record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg): facility and priority, sequence
#: number, microseconds since boot, flags, perhaps more; then the text.
_RECORD = re.compile(rb"([0-9]+),([0-9]+),([0-9]+),[^;]*;(.*)")
#: mm/oom_kill.c, __oom_kill_process; Red Hat's 3.10 has a UID before the sizes.
_KILLED = re.compile(
    rb"(.*?)Killed process ([0-9]+) \((.*)\)(?:, UID [0-9]+,)? total-vm:[0-9]+kB, "
    rb"anon-rss:([0-9]+)kB",
    re.DOTALL,  # a name may hold newlines, which the log escapes
)
#: mm/oom_kill.c, dump_oom_victim: the context of the kill that follows, since Linux 5.0.
_CONTEXT = re.compile(
    rb"oom-kill:constraint=([A-Z_]+),.*?(?:,task_memcg=(.*?))?,task=.*,pid=([0-9]+),uid=[0-9]+\Z",
    re.DOTALL,
)
#: The same file before 5.0; the process named here may be the parent of the one killed.
_CHOSEN = re.compile(rb"(Memory cgroup out|Out) of memory: Kill process ")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True)
class KernelKill:
    """One kill as the log tells it; `pid` and `group` as the host's first namespaces see them."""

    sequence: int
    taken_ns: int
    pid: int
    comm: bytes
    rss_anon_bytes: Optional[int]
    limited_by_cgroup: bool
    #: The victim's memory control group; None before Linux 5.0.
    group: Optional[bytes]


class _Reader:
    """Goes through the lines of a log and pairs each kill with the context printed before it."""

    def __init__(self) -> None:
        self.kills: list[KernelKill] = []
        self._contexts: dict[int, tuple[bool, Optional[bytes]]] = {}
        self._group_is_short = False

    def line(self, line: bytes) -> None:
        record = _RECORD.match(line)
        if record is None:
            return
        origin, sequence, microseconds = (whole(record.group(n)) for n in (1, 2, 3))
        # The bits above the priority are the facility: 0 is the kernel. Programs may write to the
        # log too, and the kernel never lets them pass for itself (devkmsg_write).
        if origin is None or sequence is None or microseconds is None or origin >> 3 != 0:
            return
        text = _ESCAPE.sub(lambda found: bytes([int(found.group(1), 16)]), record.group(4))
        context, chosen, killed = _CONTEXT.match(text), _CHOSEN.match(text), _KILLED.match(text)
        if context is not None:
            self._note(context)
        elif chosen is not None:
            self._group_is_short = chosen.group(1).startswith(b"Memory cgroup")
        elif killed is not None:
            self._kill(killed, sequence, microseconds * 1000)

    def _note(self, context: re.Match[bytes]) -> None:
        pid = whole(context.group(3))
        if pid is not None:
            self._contexts[pid] = (context.group(1) == b"CONSTRAINT_MEMCG", context.group(2))

    def _kill(self, killed: re.Match[bytes], sequence: int, taken_ns: int) -> None:
        pid = whole(killed.group(2))
        if pid is None:
            return
        by_group, group = self._contexts.pop(pid, (self._group_is_short, None))
        self._group_is_short = False
        self.kills.append(
            KernelKill(
                sequence=sequence,
                taken_ns=taken_ns,
                pid=pid,
                comm=killed.group(3),
                rss_anon_bytes=whole(killed.group(4), 1024),
                limited_by_cgroup=by_group or killed.group(1).startswith(b"Memory cgroup"),
                group=group,
            )
        )


def parse_kernel_log(content: bytes) -> list[KernelKill]:
    """All kills in a copy of /dev/kmsg, oldest first."""
    reader = _Reader()
    for line in content.split(b"\n"):
        # Almost no line of a log is about this; the test is what makes a large log cheap.
        if b"Kill" in line or b"oom-kill:" in line:
            reader.line(line)
    return reader.kills


class KernelLogProbe(Probe):
    """`OomKill` records: the newest kills at the start, and those of the capture at its end.

    The end matters most when the target itself was killed; nothing of the target is read then.
    """

    name: ClassVar[str] = "kernel-log"
    cadence: ClassVar[Cadence] = Cadence.ONCE
    reads: ClassVar[str] = "/dev/kmsg: kills by the out-of-memory killer"
    needs: ClassVar[str] = "root, or kernel.dmesg_restrict = 0; not in most containers"

    def __init__(self) -> None:
        self._newest = -1
        self._readable = False
        self._sees_host_pids = False
        self._group: Optional[bytes] = None

    def predict(self, context: Context) -> Prediction:
        # Measured: 2 us a record, and the usual 256 KiB hold some 1,500.
        return Prediction(cpu_ns=3_000_000)

    def begin(self, context: Context, taken_ns: int) -> None:
        ours = namespaces(context.system, "self")
        self._sees_host_pids = ours.pid == _FIRST_PID_NAMESPACE
        if ours.cgroup == _FIRST_CGROUP_NAMESPACE:
            paths = group_paths(context.system.read_bytes(f"/proc/{context.pid}/cgroup"))
            path = paths.get("memory", paths.get(""))
            self._group = None if path is None else path.encode("utf-8", "surrogateescape")
        self._emit_new(context)
        self._readable = True

    def finish(self, context: Context, taken_ns: int) -> None:
        if self._readable:
            self._emit_new(context)

    def _emit_new(self, context: Context) -> None:
        kills = parse_kernel_log(context.system.read_bytes("/dev/kmsg", _LOG_LIMIT_BYTES))
        fresh = [kill for kill in kills if kill.sequence > self._newest]
        if len(fresh) > MAX_KILLS:
            context.loss("records", len(fresh) - MAX_KILLS)
        for kill in fresh[-MAX_KILLS:]:
            self._newest = kill.sequence
            context.emit(
                OomKill(
                    taken_ns=kill.taken_ns,
                    name=context.redactor.name(kill.comm.decode("utf-8", "surrogateescape")),
                    pid=kill.pid,
                    is_target=self._is_target(context, kill),
                    in_target_cgroup=self._in_target_group(kill.group),
                    rss_anon_bytes=kill.rss_anon_bytes,
                    limited_by_cgroup=kill.limited_by_cgroup,
                )
            )

    def _is_target(self, context: Context, kill: KernelKill) -> Optional[bool]:
        if not self._sees_host_pids:
            return None
        # An earlier owner of the number died before this one began.
        began_ns = monotonic_of_ticks(context.identity.start_ticks)
        return kill.pid == context.pid and kill.taken_ns >= began_ns

    def _in_target_group(self, group: Optional[bytes]) -> Optional[bool]:
        """Whether the victim was in the target's group or one below it; every group is in "/"."""
        if group is None or self._group is None:
            return None
        below = self._group != b"/" and group.startswith(self._group + b"/")
        return group == self._group or below
