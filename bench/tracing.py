"""What tracing costs the one that is traced, ours beside the field's: part of `make bench`.

    python bench/tracing.py [--short] [--rounds N] [--seconds N] [TOOL ...]

One program that counts its work (`tracing/worker.c`) is watched by each tool in turn, and by none
before and after each. The ratio is CPU time per pair of malloc and free, traced over untraced; the
figure shown is the median over rounds. Tools that are not installed are named and left out.

    bursts      leakcase-collect capture --trace bursts, the default
    full        leakcase-collect capture --trace full
    memleak     memleak-bpfcc (wants kernel headers: BCC_KERNEL_SOURCE)
    bpftrace    the usual script: malloc's address and stack, until free
    heaptrack   injected into the running program; a new program for each round
    jemalloc    the program under jemalloc, its own profiler against none

Then the same on servers under load (`tracing_services.py`): CPU per request.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from budgets import COLLECT, MB, finish
from long_case import read_records
from tracing_services import SERVICES, Work

from leakcase_bundle.records import TraceWindow

SOURCE = Path(__file__).resolve().parent / "tracing" / "worker.c"
JEMALLOC = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
#: Name, threads, pairs a second (0: no limit), steps of its own work for each pair.
LOADS = {
    "server, 20,000 pairs/s": ("2", "20000", "9000"),
    "malloc-bound, 0.7 M pairs/s": ("1", "0", "700"),
}
SCRIPT = """
uprobe:{libc}:malloc,uprobe:{libc}:calloc /pid == {pid}/ {{ @size[tid] = arg0; }}
uretprobe:{libc}:malloc /pid == {pid} && @size[tid]/
{{ @stack[retval] = ustack(8); @bytes[retval] = @size[tid]; delete(@size[tid]); }}
uprobe:{libc}:free /pid == {pid}/ {{ delete(@stack[arg0]); delete(@bytes[arg0]); }}
BEGIN {{ printf("armed\\n"); }}
END {{ clear(@stack); clear(@bytes); clear(@size); }}
"""


class Target(Protocol):
    """What is watched: it works, and says what that took."""

    @property
    def pid(self) -> int: ...

    def start(self, seconds: float) -> None: ...

    def result(self) -> Work: ...


Opened = Callable[[], AbstractContextManager[Target]]


class Worker:
    """The program that counts its work; works when it is asked to."""

    def __init__(self, program: Path, load: tuple[str, str, str], **environment: str) -> None:
        self.process = subprocess.Popen(
            [program, *load], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        self._out.readline()

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self, seconds: float) -> None:
        """Begin to work for so long."""
        print(seconds, file=self._in, flush=True)

    def result(self) -> Work:
        """Wait for the end of the work begun."""
        pairs, cpu_ns, longest_ns = map(int, self._out.readline().split())
        return Work(cpu_ns / pairs, longest_ns / 1e6)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@dataclass
class Cost:
    """One tool on one load, a figure a round."""

    ratios: list[float] = field(default_factory=list)
    longest_ms: list[float] = field(default_factory=list)
    armed_seconds: list[float] = field(default_factory=list)
    tracer_cpu_seconds: list[float] = field(default_factory=list)
    tracer_rss_mb: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        """A line of the table."""

        def middle(values: list[float], digits: int) -> str:
            return f"{statistics.median(values):.{digits}f}" if values else "-"

        low, high = (min(self.ratios), max(self.ratios)) if self.ratios else (0.0, 0.0)
        return (
            f"  {name:10} {middle(self.ratios, 3):>7} {low:7.3f} {high:7.3f} {len(self.ratios):6} "
            f"{middle(self.longest_ms, 1):>8} {middle(self.armed_seconds, 2):>8} "
            f"{middle(self.tracer_cpu_seconds, 2):>8} {middle(self.tracer_rss_mb, 0):>7}"
        )


HEADER = (
    f"  {'':10} {'ratio':>7} {'lowest':>7} {'highest':>7} {'rounds':>6} "
    f"{'stall ms':>8} {'armed s':>8} {'CPU s':>8} {'RSS MB':>7}"
)


@dataclass(frozen=True)
class Tool:
    """How a tracer is started; `is_armed` says from a line of its output that it watches."""

    command: Callable[[int, float, Path], list[str]]
    is_armed: Callable[[str], bool] | None = None
    #: It stays in the program once it was there.
    stays: bool = False


def _leakcase(mode: str) -> Callable[[int, float, Path], list[str]]:
    def command(pid: int, seconds: float, folder: Path) -> list[str]:
        case = folder / "case"
        for old in (case, Path(f"{case}.map")):
            old.unlink(missing_ok=True)
        return [
            COLLECT, "capture", str(pid), "--duration", f"{seconds:g}s", "--trace", mode,
            "--allow", "read-memory,trace", "-o", str(case),
        ]  # fmt: skip

    return command


def _ended_after(seconds: float) -> list[str]:
    return ["timeout", "--signal=INT", f"{seconds:g}"]


def _libc() -> str:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in lines if "/libc.so" in line or "/libc-" in line)


def _bpftrace(pid: int, seconds: float, folder: Path) -> list[str]:
    (folder / "script.bt").write_text(SCRIPT.format(libc=_libc(), pid=pid))
    return [*_ended_after(seconds), "bpftrace", str(folder / "script.bt")]


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
    for half in halves:
        subprocess.run(["cp", "-rsf", f"{half[-1]}/.", folder / "headers"], check=True)
    return {"BCC_KERNEL_SOURCE": str(folder / "headers")}


TOOLS = {
    "bursts": Tool(_leakcase("bursts")),
    "full": Tool(_leakcase("full")),
    "memleak": Tool(
        lambda pid, seconds, _: [*_ended_after(seconds), "memleak-bpfcc", "-p", str(pid), "3600"],
        lambda line: "Attaching" in line,
    ),
    "bpftrace": Tool(_bpftrace, lambda line: "armed" in line),
    "heaptrack": Tool(
        lambda pid, seconds, folder: [
            *_ended_after(seconds), "heaptrack", "-o", str(folder / "h"),
            "-p", str(pid),
        ],
        lambda line: "injecting" in line or "output will be" in line,
        stays=True,
    ),
}  # fmt: skip
PROGRAMS = {
    "memleak": "memleak-bpfcc",
    "bpftrace": "bpftrace",
    "heaptrack": "heaptrack",
    "jemalloc": JEMALLOC,
}


@contextlib.contextmanager
def tracing(tool: Tool, pid: int, seconds: float, folder: Path, cost: Cost) -> Iterator[None]:
    """The tool at work; what it used is noted when it has ended."""
    started = time.monotonic()
    said = folder / "said"
    command = tool.command(pid, seconds, folder)
    with said.open("w") as output:
        tracer = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            while tool.is_armed is not None and not tool.is_armed(said.read_text()):
                if time.monotonic() > started + 30 or tracer.poll() is not None:
                    raise SystemExit(f"tracing: {command}: {said.read_text()[-500:]}")
                time.sleep(0.01)
            if tool.is_armed is not None:
                cost.armed_seconds.append(time.monotonic() - started)
            yield
        finally:
            if tracer.returncode is None:
                cpu_seconds, peak_bytes = finish(tracer)
    cost.tracer_cpu_seconds.append(cpu_seconds)
    if tool.is_armed is None:
        # The others are children of timeout(1), whose memory says nothing.
        cost.tracer_rss_mb.append(peak_bytes / MB)
        windows = [one for one in read_records(folder / "case") if type(one) is TraceWindow]
        cost.armed_seconds.extend((one.attach_ns or 0) / 1e9 for one in windows[:1])


def measure(opened: Opened, tool: Tool, rounds: int, seconds: float, folder: Path) -> Cost:
    """Untraced and traced, in turn; each traced stretch is compared with its two neighbours."""
    cost = Cost()

    def work(length: float) -> Work:
        target.start(length)
        return target.result()

    with contextlib.ExitStack() as stack:
        target = stack.enter_context(opened())
        work(1)
        before = work(seconds)
        for _ in range(rounds):
            with tracing(tool, target.pid, seconds, folder, cost):
                traced = work(seconds - 1 if tool.is_armed else seconds)
            cost.longest_ms.extend([traced.longest_ms] if traced.longest_ms is not None else [])
            if tool.stays:
                stack.close()
                target = stack.enter_context(opened())
                work(1)
            after = work(seconds)
            untraced = (before.cpu_ns + after.cpu_ns) / 2
            cost.ratios.append(traced.cpu_ns / untraced)
            before = after
    return cost


def measure_jemalloc(
    program: Path, load: tuple[str, str, str], rounds: int, seconds: float
) -> Cost:
    """jemalloc's profiler at its default interval, against jemalloc without: two programs."""
    cost = Cost()
    settings = ("prof:true,lg_prof_sample:19", "prof:false")
    with contextlib.ExitStack() as stack:
        profiled, plain = (
            stack.enter_context(Worker(program, load, LD_PRELOAD=JEMALLOC, MALLOC_CONF=setting))
            for setting in settings
        )
        for number in range(rounds + 1):
            results = []
            for worker in (plain, profiled):
                worker.start(seconds if number else 1)
                results.append(worker.result())
            if number:
                cost.ratios.append(results[1].cpu_ns / results[0].cpu_ns)
                cost.longest_ms.append(results[1].longest_ms or 0.0)
    return cost


def _is_missing(program: str) -> bool:
    return shutil.which(program) is None and not Path(program).exists()


def main() -> int:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="ours alone, two rounds")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"of {', '.join(TOOLS)}, jemalloc")
    options = parser.parse_args()
    tools = options.tools or (["bursts", "full"] if options.short else [*TOOLS, "jemalloc"])
    rounds, seconds = (2, 8.0) if options.short else (options.rounds, options.seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "headers").mkdir()
        os.environ.update(headers(folder))
        program = folder / "worker"
        flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-fomit-frame-pointer", "-pthread"]
        subprocess.run(["gcc", *flags, "-o", program, SOURCE], check=True)
        for load_name, load in LOADS.items():
            print(f"{load_name}\n{HEADER}")
            for tool in tools:
                if _is_missing(PROGRAMS.get(tool, "true")):
                    print(f"  {tool:10} not installed")
                elif tool == "jemalloc":
                    print(measure_jemalloc(program, load, rounds, seconds).row(tool), flush=True)
                else:
                    cost = measure(
                        partial(Worker, program, load), TOOLS[tool], rounds, seconds, folder
                    )
                    print(cost.row(tool), flush=True)
        for load_name, (client, service) in ({} if options.short else SERVICES).items():
            print(
                f"{load_name}\n{HEADER}" if not _is_missing(client) else f"{load_name}: no client"
            )
            for tool in () if _is_missing(client) else tools:
                if tool in TOOLS and not _is_missing(PROGRAMS.get(tool, "true")):
                    print(
                        measure(service, TOOLS[tool], rounds, seconds, folder).row(tool), flush=True
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
