"""The tracers that `bench/tracing.py` compares: how each is started, what it needs itself.

All are told to end by SIGINT, and get that too should the measurement be killed: one that is killed
itself may leave its probes behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from budgets import COLLECT, MB
from processes import descendants, end, start
from tracing_targets import Target, Worker

#: More than any stretch: they are ended earlier.
FOR_LONG_SECONDS = 600
#: Probes are put in one by one; when so long none was added, all are there.
_SETTLED_SECONDS = 0.7
_ARMED_WITHIN_SECONDS = 60
_ENDED_WITHIN_SECONDS = 20
_PROBES = ("anon_inode:[perf_event]", "anon_inode:bpf_link", "anon_inode:bpf-link")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SCRIPT = """
uprobe:{library}:malloc,uprobe:{library}:calloc /pid == {pid}/ {{ @size[tid] = arg0; }}
uretprobe:{library}:malloc /pid == {pid} && @size[tid]/
{{ @stack[retval] = ustack(8); @bytes[retval] = @size[tid]; delete(@size[tid]); }}
uprobe:{library}:free /pid == {pid}/ {{ delete(@stack[arg0]); delete(@bytes[arg0]); }}
END {{ clear(@stack); clear(@bytes); clear(@size); }}
"""


class NotWorking(Exception):
    """The tool cannot be measured here; says why."""


@dataclass
class Use:
    """What a tracer needed itself. Resident memory is the peak of the largest of its processes,
    and what the others have that is not the same."""

    armed_seconds: float | None = None
    armed_cpu_seconds: float = 0.0
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    rss_mb: float = 0.0
    was_killed: bool = False

    @property
    def later_cpu_percent(self) -> float:
        """Of a core, from when it was armed until it had ended."""
        later_seconds = self.seconds - (self.armed_seconds or 0.0)
        return 100 * (self.cpu_seconds - self.armed_cpu_seconds) / max(later_seconds, 1e-9)


@dataclass(frozen=True)
class Tool:
    """How a tracer is started."""

    program: str
    #: Of the target, a folder for what it writes, and for how long a capture of ours takes.
    command: Callable[[Target, Path, float], list[str]]
    #: What it says when it is armed; None: its probes are seen.
    says: str | None = None
    #: A file that is left when it is killed; its pid follows.
    leaves: str = ""
    #: The target is not as before when it has gone.
    stays: bool = False
    #: It comes and goes by itself: what counts is the whole time.
    is_whole: bool = False

    @property
    def is_missing(self) -> bool:
        return shutil.which(self.program) is None


class Tracer:
    """A tool at work. `use` is complete when it has been ended."""

    def __init__(self, tool: Tool, target: Target, folder: Path, seconds: float) -> None:
        self.use = Use()
        self._tool = tool
        self._said = folder / "said"
        command = tool.command(target, folder, seconds)
        self._started = time.monotonic()
        with self._said.open("w") as output:
            self._process = start(
                command, last_word="INT", stdout=output, stderr=output,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    def arm(self) -> None:
        """Wait until it watches; `use` has when its first probe was there."""
        probes, changed = 0, self._started
        while (now := time.monotonic()) < self._started + _ARMED_WITHIN_SECONDS and not self.ended:
            seen = self._signs_of_work()
            if seen and not probes:
                self.use.armed_cpu_seconds = self._cpu_seconds()
                self.use.armed_seconds = now - self._started
            if seen != probes:
                probes, changed = seen, now
            if probes and (self._tool.is_whole or now > changed + _SETTLED_SECONDS):
                return
            time.sleep(0.01)
        raise NotWorking(self._complaint())

    def _complaint(self) -> str:
        lines = self._said.read_text().strip().splitlines()
        causes = [line for line in lines if line.startswith(("Exception:", "ERROR:"))]
        return [*lines[-1:], *causes[:1]][-1] if self.ended and lines else "it was not armed"

    def _signs_of_work(self) -> int:
        if self._tool.says is not None:
            return int(self._tool.says in self._said.read_text())
        return sum(_probes(pid) for pid in descendants(self._process.pid))

    def _cpu_seconds(self) -> float:
        leader, *others = descendants(self._process.pid)
        return _cpu_seconds(leader, with_ended=True) + sum(map(_cpu_seconds, others))

    @property
    def ended(self) -> bool:
        """Looks at what it uses, too."""
        if self._process.returncode is None:
            self.use.rss_mb = max(self.use.rss_mb, _resident(descendants(self._process.pid)) / MB)
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self.use.cpu_seconds = usage.ru_utime + usage.ru_stime
                self.use.seconds = time.monotonic() - self._started
        return self._process.returncode is not None

    def wait(self, seconds: float) -> None:
        """For so long, or until it has ended."""
        until = time.monotonic() + seconds
        while not self.ended and (left := until - time.monotonic()) > 0:
            time.sleep(min(0.1, left))

    def end(self) -> None:
        """Until it has undone what it did; what does not end is killed, which `use` tells."""
        if not self.ended:
            self._process.send_signal(signal.SIGINT)
            self.wait(_ENDED_WITHIN_SECONDS)
        if not self.ended:
            self.use.was_killed = True
            self.use.cpu_seconds = self._cpu_seconds()
            self.use.seconds = time.monotonic() - self._started
        end(self._process)
        if self._tool.leaves:
            Path(f"{self._tool.leaves}{self._process.pid}").unlink(missing_ok=True)


@contextlib.contextmanager
def tracing(tool: Tool, target: Target, folder: Path, seconds: float) -> Iterator[Tracer]:
    """A tool that watches; NotWorking if it does not."""
    tracer = Tracer(tool, target, folder, seconds)
    try:
        tracer.arm()
        yield tracer
    finally:
        tracer.end()


@contextlib.contextmanager
def profiling(target: Worker) -> Iterator[None]:
    """jemalloc's own profiler, at its default interval."""
    target.profile(True)
    try:
        yield
    finally:
        target.profile(False)


def _probes(pid: int) -> int:
    count = 0
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += os.readlink(file) in _PROBES
    return count


def _cpu_seconds(pid: int, with_ended: bool = False) -> float:
    """utime and stime, and those of children that have ended: proc_pid_stat(5)."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11 : 15 if with_ended else 13])) / _TICKS_PER_SECOND
    return 0.0


def _resident(pids: list[int]) -> int:
    """Bytes: see `Use`."""
    peaks: list[tuple[int, int]] = []
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            text = Path(f"/proc/{pid}/status").read_text()
            peaks.append((1024 * int(text.split("VmHWM:")[1].split()[0]), pid))
    if not peaks:
        return 0
    largest, *others = sorted(peaks, reverse=True)
    return largest[0] + sum(_private(pid) for _, pid in others)


def _private(pid: int) -> int:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private"))
    return 0


def _leakcase(mode: str, *more: str) -> Callable[[Target, Path, float], list[str]]:
    def command(target: Target, folder: Path, seconds: float) -> list[str]:
        case = folder / "case"
        for old in (case, Path(f"{case}.map")):
            old.unlink(missing_ok=True)
        return [
            COLLECT, "capture", str(target.pid), "--duration", f"{seconds:g}s", "--trace", mode,
            "--allow", "read-memory,trace", "-o", str(case), *more,
        ]  # fmt: skip

    return command


def _memleak(target: Target, _folder: Path, _seconds: float) -> list[str]:
    library = str(target.library())
    return ["memleak-bpfcc", "-p", str(target.pid), "-O", library, str(FOR_LONG_SECONDS)]


def _bpftrace(target: Target, folder: Path, _seconds: float) -> list[str]:
    script = folder / "script.bt"
    script.write_text(SCRIPT.format(library=target.library(), pid=target.pid))
    return ["bpftrace", str(script)]


def _heaptrack(target: Target, folder: Path, _seconds: float) -> list[str]:
    # By bash: of other shells a script that is interrupted ends without cleaning up.
    program = shutil.which("heaptrack") or "heaptrack"
    return ["bash", program, "-o", str(folder / "heaptrack"), "-p", str(target.pid)]


def headers(folder: Path) -> dict[str, str]:
    """The environment with which BCC compiles: Debian's header tree, whose halves it wants
    as one, where the running kernel has none of its own."""
    if "BCC_KERNEL_SOURCE" in os.environ or Path(f"/lib/modules/{os.uname().release}").exists():
        return {}
    halves = [
        sorted(Path("/usr/src").glob(f"linux-headers-*-{half}")) for half in ("common", "amd64")
    ]
    if not all(halves):
        return {}
    tree = folder / "headers"
    tree.mkdir()
    for half in halves:
        subprocess.run(["cp", "-rsf", f"{half[-1]}/.", tree], check=True)
    return {"BCC_KERNEL_SOURCE": str(tree)}


TOOLS = {
    "bursts": Tool(COLLECT, _leakcase("bursts"), is_whole=True),
    # Where it is allowed no more than by default it may give up before it was measured.
    "full": Tool(COLLECT, _leakcase("full", "--max-slowdown", "100%")),
    "memleak": Tool("memleak-bpfcc", _memleak),
    "bpftrace": Tool("bpftrace", _bpftrace),
    "heaptrack": Tool(
        "heaptrack", _heaptrack, says="injection finished", leaves="/tmp/heaptrack_fifo", stays=True
    ),
}
