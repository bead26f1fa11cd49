"""Reading a heap from outside, beside the usual ways that stop the process: `make bench`.

    python bench/heap_readers.py [--short] [--enforce]

One program of known heap, and one after the other: our census (native and Python), our search for
what is unreachable, gdb calling malloc_info, and gcore (quickest of three of the first and of
gdb's). Of each: how long it took, for how long the
program stood still (its own longest stall; "nothing" shows the machine's own), how much of its work
it lost meanwhile, and the reader's memory. --short: 100 MB only. 5 GB are done where there are 8 GB
to be had. With --enforce the exit status is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
SIZES_MIB = (100, 1024, 5120)
#: Room that the largest heap, gcore's file (in the page cache) and the readers want.
ROOM_FACTOR = 1.6
CENSUS = """
import sys, time
from leakcase_collector.heap.census import Budget, take_census
from leakcase_collector.heap.steps import best_step
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory
system = System()
identity = ProcessIdentity(system, int(sys.argv[1]))
begun, used = time.monotonic(), time.process_time()
with ProcessMemory(system, identity) as memory:
    whole_bytes = 0 if "sampled" in sys.argv else None
    census = take_census(memory, Budget(1 << 50, 600 * 10**9), best_step()[1], whole_bytes)
blocks = sum(arena.in_use_chunks for arena in census.arenas)
print(time.monotonic() - begun, time.process_time() - used, blocks)
"""
REACHABILITY = """
import sys, time
from leakcase_collector.heap.census import Budget
from leakcase_collector.heap.reachability import Means, look_once
from leakcase_collector.heap.roots import thread_states
from leakcase_collector.system import native
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory
system, pid = System(), int(sys.argv[1])
identity = ProcessIdentity(system, pid)
begun, used = time.monotonic(), time.process_time()
with ProcessMemory(system, identity) as memory:
    look = look_once(memory, Budget(1 << 50, 600 * 10**9), lambda: thread_states(system, pid),
                     Means(native.load()))
print(time.monotonic() - begun, time.process_time() - used, look.chunks)
"""
GDB = [
    "gdb", "-nx", "-batch", "-iex", "set auto-load no", "-iex", "set debuginfod enabled off",
    "-ex", "set unwindonsignal on", "-ex", "call (int)malloc_info(0, (void*)stdout)",
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What one reader took, by the clock and of a processor; without its own start where it says
    so itself, as ours do: gdb's and gcore's start is part of what they cost."""

    reader: str
    seconds: float
    cpu_seconds: float
    stall_ms: float
    lost_work: float
    rss_mib: float


@dataclass
class Subject:
    """The program, which says how it fared between two lines that it is sent."""

    process: subprocess.Popen[str]
    heap_mib: int
    blocks: int

    def measured(self, reader: str, command: list[str], rate: float | None, **env: str) -> Row:
        """Run one reader. `rate`: the program's rounds a second when nobody looks."""
        self._tell()
        begun = time.monotonic()
        reading = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **env},
        )  # fmt: skip
        assert reading.stdout is not None
        said = reading.stdout.read()
        _, status, usage = os.wait4(reading.pid, 0)
        reading.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begun
        self._tell()
        assert self.process.stderr is not None
        stall_ns, rounds, elapsed_ns = map(int, self.process.stderr.readline().split())
        if reading.returncode:
            raise SystemExit(f"{reader} exits {reading.returncode}: {said[-500:]}")
        cpu = usage.ru_utime + usage.ru_stime
        inside = re.match(r"([0-9.]+) ([0-9.]+) ([0-9]+)$", said.strip())
        if inside is not None:
            seconds, cpu = float(inside[1]), float(inside[2])
            if abs(int(inside[3]) - self.blocks) > 10 + self.blocks // 20:
                raise SystemExit(f"{reader} counts {inside[3]} of {self.blocks} blocks")
        return Row(
            reader, seconds, cpu, stall_ns / 1e6,
            0.0 if rate is None else max(0.0, 1 - rounds / (rate * elapsed_ns / 1e9)),
            usage.ru_maxrss / 1024,
        )  # fmt: skip

    def rate(self) -> float:
        """Rounds a second with nobody looking."""
        self._tell()
        time.sleep(2)
        self._tell()
        assert self.process.stderr is not None
        _, rounds, elapsed_ns = map(int, self.process.stderr.readline().split())
        return rounds / elapsed_ns * 1e9

    def _tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextmanager
def subject(program: Path, heap_mib: int, order: str) -> Iterator[Subject]:
    """The program with its heap set up; it ends by itself should we not."""
    command = ["timeout", "--foreground", "900", str(program), str(heap_mib), order]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield Subject(process, heap_mib, int(process.stdout.readline()))
        finally:
            process.terminate()


def read_all(one: Subject, folder: Path, with_others: bool) -> list[Row]:
    """Every reader that is here, on one heap; without others: ours alone."""
    pid = next(iter(_children(one.process.pid)))
    rate = one.rate()
    python = [sys.executable, "-c"]
    rows = [one.measured("nothing", ["sleep", "2"], rate)]

    def quickest(reader: str, command: list[str]) -> Row:
        """Of three: others use the machine as well."""
        looks = [one.measured(reader, command, rate) for _ in range(3)]
        return min(looks, key=lambda row: row.seconds)

    rows.append(quickest("census, native", [*python, CENSUS, pid]))
    if one.heap_mib > SIZES_MIB[0]:
        rows.append(one.measured("census, sampled", [*python, CENSUS, pid, "sampled"], rate))
    if one.heap_mib <= 1024 and with_others:
        off = {"LEAKCASE_NATIVE": "0"}
        rows.append(one.measured("census, Python", [*python, CENSUS, pid], rate, **off))
    rows.append(one.measured("unreachable, native", [*python, REACHABILITY, pid], rate))
    if not with_others:
        return rows
    if shutil.which("gdb"):
        rows.append(quickest("gdb malloc_info", [*GDB, "-p", pid]))
    room = shutil.disk_usage(folder).free
    if shutil.which("gcore") and room > 2 * one.heap_mib * MIB:
        rows.append(one.measured("gcore", ["gcore", "-o", str(folder / "core"), pid], rate))
        for core in folder.glob("core.*"):
            core.unlink()
    return rows


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def report(heap_mib: int, order: str, rows: list[Row]) -> list[str]:
    """Print a table; returns the goals that were missed."""
    census = next(row for row in rows if row.reader == "census, native")
    print(f"\n{heap_mib} MiB in blocks of 144 bytes, {order}")
    print("reader                      s   CPU s  GB/CPU s  stall ms  work lost  RSS MiB       x")
    for row in rows:
        reads = row.reader != "nothing"
        speed = f"{heap_mib * MIB / row.cpu_seconds / 1e9:.2f}" if reads else ""
        ratio = f"{row.seconds / census.seconds:.1f}" if reads else ""
        print(
            f"{row.reader:20}{row.seconds:9.3f}{row.cpu_seconds:8.3f}{speed:>10}"
            f"{row.stall_ms:10.1f}{row.lost_work:11.1%}{row.rss_mib:9.0f}{ratio:>8}"
        )
    return _missed(heap_mib, order, {row.reader: row for row in rows})


def _missed(heap_mib: int, order: str, rows: dict[str, Row]) -> list[str]:
    """Speed is by the processor's time: by the clock a busy machine has its part in it."""
    missed = []

    def goal(holds: bool, what: str) -> None:
        if not holds:
            missed.append(f"{heap_mib} MiB, {order}: {what}")

    census, looked = rows["census, native"], rows["unreachable, native"]
    gdb = rows.get("gdb malloc_info")
    if gdb is not None:
        ratio = gdb.seconds / census.seconds
        goal(ratio >= 10, f"gdb's call is only {ratio:.1f} x slower")
    speed = heap_mib * MIB / census.cpu_seconds / 1e9
    goal(speed >= 1.5, f"{speed:.2f} GB/s of 1.5")
    goal(census.rss_mib < 60, f"the census takes {census.rss_mib:.0f} MiB of 60")
    most = 60 + 0.5 * heap_mib
    goal(looked.rss_mib < most, f"unreachable takes {looked.rss_mib:.0f} MiB of {most:.0f}")
    return missed


def _available_mib() -> float:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return 0.0 if found is None else int(found[1]) / 1024


def main() -> int:
    """Measure, print, and say what is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="100 MB only")
    parser.add_argument("--enforce", action="store_true", help="exit 1 where a goal is missed")
    arguments = parser.parse_args()
    missed = []
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", flush=True)
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="leakcase-bench-") as name:
        folder = Path(name)
        program = folder / "heap_subject"
        source = HERE / "heap_subject.c"
        build = ["cc", "-O2", "-pthread", "-o", str(program), str(source)]
        subprocess.run(build, check=True)
        for heap_mib in SIZES_MIB[:1] if arguments.short else SIZES_MIB:
            if _available_mib() < ROOM_FACTOR * heap_mib:
                print(f"\n{heap_mib} MiB left out: {_available_mib():.0f} MiB are available")
                continue
            for order in ("ordered", "shuffled")[: 1 if heap_mib > 1024 else 2]:
                with subject(program, heap_mib, order) as one:
                    rows = read_all(one, folder, with_others=order == "ordered")
                    missed += report(heap_mib, order, rows)
    for one_missed in missed:
        print(f"missed: {one_missed}")
    return 1 if missed and arguments.enforce else 0


if __name__ == "__main__":
    sys.exit(main())
