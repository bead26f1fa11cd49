"""How a BPF program tells the target from other processes."""

from __future__ import annotations

import os
from contextlib import suppress

#: Inode of the first pid namespace (PROC_PID_INIT_INO of include/linux/proc_ns.h).
_ROOT_NAMESPACE = 0xEFFFFFFC


def process_filter(pid: int) -> tuple[int, int, int]:
    """Device and inode of the pid namespace in which `pid` counts, and the pid the programs see.

    In the first namespace the kernel's own numbers are ours. In another, a program can ask for the
    number in the caller's own namespace, so it must be ours; else the link's filter has to do.
    """
    ours = os.stat("/proc/self/ns/pid")
    if ours.st_ino == _ROOT_NAMESPACE:
        return 0, 0, pid
    with suppress(OSError):
        theirs = os.stat(f"/proc/{pid}/ns/pid")
        if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
            device = os.major(ours.st_dev) << 20 | os.minor(ours.st_dev)
            return device, ours.st_ino, pid
    return 0, 0, 0
