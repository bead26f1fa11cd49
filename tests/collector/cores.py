"""Core files of processes that tests started, as gdb's gcore or the kernel writes them."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.collector.system.started import wait_until

needs_gdb = pytest.mark.skipif(not shutil.which("gcore"), reason="gdb (gcore) is not installed")


def kernel_writes_here() -> bool:
    """Whether the kernel puts a core file into the working directory, as it is told by default."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    uses_pid = Path("/proc/sys/kernel/core_uses_pid").read_text().strip() != "0"
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    return pattern == "core" and not uses_pid and hard == resource.RLIM_INFINITY


def by_gdb(pid: int, folder: Path) -> Path:
    """The process goes on afterwards."""
    command = ["gcore", "-o", str(folder / "gdb"), str(pid)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder / f"gdb.{pid}"


def by_kernel(program: str, folder: Path) -> Path:
    """Of a program that prints a line when it is ready, and is ended then."""
    command = ["setpriv", "--pdeathsig", "KILL", "--", "prlimit", "--core=unlimited", "--", program]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.SIGABRT)
    return folder / "core"


def stopped(pid: int) -> None:
    """Stop it, so that nothing changes between a look at it and the next."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
