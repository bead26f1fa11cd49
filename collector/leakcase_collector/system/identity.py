"""Is this still the same process, and the same program in it? And what kind of process is it?"""

from __future__ import annotations

import errno
import os
import select
from typing import NamedTuple

from leakcase_collector.errors import CollectorError, NotPermitted, NotSupported, TargetGone
from leakcase_collector.system.door import System
from leakcase_collector.system.os_errors import translated

#: PF_KTHREAD of include/linux/sched.h, in field 9 of proc_pid_stat(5).
KERNEL_THREAD_FLAG = 0x00200000
_NAMESPACES = ("pid", "mnt", "user", "net", "cgroup")


class ProcessStat:
    """``/proc/PID/stat``: the fields by their number in proc_pid_stat(5), comm included.

    comm may hold spaces and parentheses, so the rest is split after the *last* ")".
    """

    __slots__ = ("comm", "_rest")

    def __init__(self, content: bytes) -> None:
        before, closing, after = content.rpartition(b")")
        self._rest = after.split()
        if not closing or len(self._rest) < 22:
            raise NotSupported(
                "cannot understand /proc/PID/stat: it is not as proc_pid_stat(5) describes it. "
                "Report the kernel's version; this source stays unseen."
            )
        self.comm = before.partition(b"(")[2]

    def field(self, number: int) -> int:
        """Field `number` (4 and up, all of them integers)."""
        return int(self._rest[number - 3])

    @property
    def state(self) -> str:
        """One letter: R, S, D, T, t, Z, X, I."""
        return self._rest[0].decode("ascii", "replace")

    @property
    def start_ticks(self) -> int:
        """When the process started, in clock ticks since boot; with the pid, its identity."""
        return self.field(22)

    @property
    def is_kernel_thread(self) -> bool:
        return bool(self.field(9) & KERNEL_THREAD_FLAG)

    @property
    def is_zombie(self) -> bool:
        """Ended and not yet waited for.

        A main thread that called pthread_exit is in state Z too while its process lives on; there
        field 20, num_threads, still counts the others.
        """
        return self.state in "ZX" and self.field(20) <= 1

    @property
    def layout(self) -> tuple[int, int, int, int] | None:
        """start_code, end_code, start_stack, start_brk (fields 26-28, 47): one address space.

        They are set by execve and never by the program itself, short of prctl(PR_SET_MM). None
        where the kernel hides them (0 or 1 without ptrace permission, fs/proc/array.c) or where
        there is no address space.
        """
        layout = (self.field(26), self.field(27), self.field(28), self.field(47))
        return layout if layout[0] > 1 else None


class Image(NamedTuple):
    """What distinguishes one execve of a process from the next.

    The exe's inode tells another program; `layout` tells the same program executed again, because
    the kernel places stack and heap anew (with address randomization off and equal arguments and
    environment it cannot). comm is no evidence: any thread may rename itself. None: not permitted.
    """

    #: Device and inode of ``/proc/PID/exe``.
    file: tuple[int, int] | None
    layout: tuple[int, int, int, int] | None

    def differs_from(self, other: Image) -> bool | None:
        """True: another execve. None: neither figure is known on both sides."""
        pairs = [(mine, theirs) for mine, theirs in zip(self, other) if mine and theirs]
        return any(mine != theirs for mine, theirs in pairs) if pairs else None


class Namespaces(NamedTuple):
    """The inode number of each namespace of a process; None where it may not be seen."""

    pid: int | None
    mount: int | None
    user: int | None
    network: int | None
    cgroup: int | None


def thread_group(system: System, task_id: int) -> int:
    """The process that thread `task_id` belongs to; a process's own pid for itself."""
    for line in system.read_lines(f"/proc/{task_id}/status"):
        if line.startswith(b"Tgid:"):
            return int(line.split()[1])
    raise NotSupported(
        f"cannot tell which process {task_id} belongs to: its status has no Tgid line. "
        "Give the pid of the process itself."
    )


def namespaces(system: System, pid: int | str) -> Namespaces:
    """The namespaces of `pid` ("self" for ours), each from the text of its link."""
    return Namespaces(*(_namespace(system, pid, name) for name in _NAMESPACES))


def _namespace(system: System, pid: int | str, name: str) -> int | None:
    try:
        text = system.read_link(f"/proc/{pid}/ns/{name}")
    except (NotPermitted, NotSupported):
        return None
    number = text.partition("[")[2].rstrip("]")
    return int(number) if number.isdigit() else None


def is_in_container(system: System, pid: int) -> bool | None:
    """Whether the process lives in another container than we do; None if that may not be seen.

    A pid namespace of its own, or a mount namespace of its own together with another root
    directory: a mount namespace alone is what systemd gives any service with PrivateTmp.
    """
    ours, theirs = namespaces(system, "self"), namespaces(system, pid)
    if None in (ours.pid, theirs.pid, ours.mount, theirs.mount):
        return None
    if ours.pid != theirs.pid:
        return True
    if ours.mount == theirs.mount:
        return False
    try:
        our_root = system.status("/proc/self/root/")
        their_root = system.status(f"/proc/{pid}/root/")
    except (NotPermitted, NotSupported):
        return None
    return (our_root.st_dev, our_root.st_ino) != (their_root.st_dev, their_root.st_ino)


class ProcessIdentity:
    """One process, held by pid, start time and a pidfd, so that a reused number is noticed.

    `pidfd` becomes readable when the last thread has ended (pidfd_open(2)); None on kernels before
    5.3, in recordings and where a seccomp filter forbids it. Then only pid and start time tell:
    a number reused within one clock tick (10 ms) would be missed.
    """

    def __init__(self, system: System, task_id: int) -> None:
        """Take hold of the process of `task_id` (a pid or a tid). TargetGone if there is none."""
        self._system = system
        self.pid = thread_group(system, task_id)
        # The pidfd first: while it says "alive", the number cannot have been given away, so that
        # what is read after it was opened is of this very process.
        self.pidfd = _open_pidfd(self.pid) if system.is_live else None
        try:
            stat = self.stat()
            self.start_ticks = stat.start_ticks
            self.is_kernel_thread = stat.is_kernel_thread
            self.image = self.read_image(stat)
            if self.pidfd is not None and _has_ended(self.pidfd) and not stat.is_zombie:
                raise _gone(self.pid)
        except CollectorError:
            self.close()
            raise

    def stat(self) -> ProcessStat:
        return ProcessStat(self._system.read_bytes(f"/proc/{self.pid}/stat"))

    def read_image(self, stat: ProcessStat) -> Image:
        """The program that it runs now, from `stat` (just read) and ``/proc/PID/exe``."""
        try:
            exe = self._system.status(f"/proc/{self.pid}/exe")
        except (NotPermitted, NotSupported):
            return Image(None, stat.layout)
        return Image((exe.st_dev, exe.st_ino), stat.layout)

    def has_executed(self) -> bool | None:
        """Whether it runs another program image than when we took hold; None: may not be seen.

        After True, `image` is the new one, so that each execve is reported once.
        """
        image = self.read_image(self.stat())
        differs = image.differs_from(self.image)
        if differs:
            self.image = image
        return differs

    def is_same(self) -> bool:
        """Whether the number still names the process that we took hold of, a zombie included."""
        try:
            return self.stat().start_ticks == self.start_ticks
        except TargetGone:
            return False

    def is_alive(self) -> bool:
        """Whether it still runs: a zombie does not, a stopped process does."""
        if self.pidfd is not None:
            return not _has_ended(self.pidfd)
        try:
            stat = self.stat()
        except TargetGone:
            return False
        return stat.start_ticks == self.start_ticks and not stat.is_zombie

    def require_alive(self) -> None:
        """TargetGone unless `is_alive`: ask after reads by path, before believing them."""
        if not self.is_alive():
            raise _gone(self.pid)

    def close(self) -> None:
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def __enter__(self) -> ProcessIdentity:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def _gone(pid: int) -> TargetGone:
    return TargetGone(
        f"process {pid} is gone: it ended. Choose a running process; what was recorded is kept."
    )


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        # ENOSYS: before Linux 5.3. EPERM: older container runtimes filter unknown calls so.
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EMFILE):
            return None
        raise translated(error, f"/proc/{pid}") from error


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
