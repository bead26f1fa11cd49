"""Writing into a process that we have stopped: the one thing that changes it."""

from __future__ import annotations

import os

from leakcase_collector.system.os_errors import translated


def write_memory(pid: int, address: int, content: bytes) -> None:
    """Write all of it; to pages that the process itself may not write, too, as debuggers do.

    NotPermitted or NotSupported where the kernel refuses (proc_mem.force_override= of Linux 6.12).
    """
    path = f"/proc/{pid}/mem"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            done = 0
            while done < len(content):
                done += os.pwrite(fd, content[done:], address + done)
        finally:
            os.close(fd)
    except OSError as error:
        raise translated(error, path) from error
