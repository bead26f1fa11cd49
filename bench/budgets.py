"""What leakcase costs, against what it may cost: `make bench`, or with `--short` in CI.

    python bench/budgets.py [--short] [--enforce]

The collector watches real processes of this machine, as a program, as its users run it. The case
of a day is the one thing that is not captured but continued from a recording (`long_case.py`).
With --short, the ten minutes are continued from one as well.
Times on a busy machine are larger; with --enforce the exit status is 1 where a budget is exceeded.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from long_case import SECOND_NS, read_records, rows_of, stretch

from leakcase_bundle.records import CollectorSeries, StatusSeries

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from samples import runner  # noqa: E402

BIN = Path(sys.executable).parent
COLLECT = str(BIN / "leakcase-collect")
LEAKCASE = str(BIN / "leakcase")
TEN_MINUTES_SECONDS = 600
DAY_SECONDS = 86_400
KB, MB = 1000, 1_000_000

#: A thousand mappings: neighbours of different protection are not joined by the kernel.
MAPPINGS = """
import mmap
kept = []
for number in range(900):
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if number % 2 else 0)
    kept.append(mmap.mmap(-1, 65536, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, protection))
    if number % 2:
        kept[-1].write(bytes(65536))
"""
IDLE = MAPPINGS + "print('ready', flush=True)\nimport time\nwhile True: time.sleep(0.05)\n"
#: Maps, faults and unmaps, so that it needs the very lock that reading smaps holds. A line with a
#: time in seconds makes it work so long and say how many rounds it made for how much CPU time.
BUSY = (
    MAPPINGS
    + """
import sys, time
print('ready', flush=True)
for line in sys.stdin:
    rounds, cpu, end = 0, time.process_time_ns(), time.monotonic() + float(line)
    while time.monotonic() < end:
        for _ in range(20):
            block = mmap.mmap(-1, 1 << 18)
            for page in range(0, 1 << 18, 4096):
                block[page] = 1
            block.close()
        sum(range(20000))
        rounds += 1
    print(rounds, time.process_time_ns() - cpu, flush=True)
"""
)


@dataclass
class Table:
    """The result: a row for each budget."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, what: str, value: float, limit: float | None, unit: str) -> None:
        """A figure and its budget; None: it has none and is only shown."""
        judged = "" if limit is None else "ok" if value < limit else "OVER"
        shown = "" if limit is None else f"< {limit:g} {unit}"
        self.rows.append((what, shown, f"{value:.3g} {unit}", judged))
        print(f"  {what}: {value:.3g} {unit}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        heads = ("what", "budget", "measured", "")
        widths = [max(len(row[i]) for row in (heads, *self.rows)) for i in range(4)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (heads, *self.rows)
        )

    @property
    def is_over(self) -> bool:
        return any(row[3] == "OVER" for row in self.rows)


@contextlib.contextmanager
def target(code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `code` and has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def start_capture(
    pid: int, case: Path, seconds: float, interval: str = "1s", options: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    """A running capture."""
    return subprocess.Popen(
        [COLLECT, "capture", str(pid), "--duration", f"{seconds}s", "--interval", interval,
         "-o", str(case), *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def finish(process: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Wait for a program; its CPU seconds and its peak of resident memory in bytes.

    The peak is VmHWM, read until the end: ru_maxrss would count what we had when we started it.
    """
    peak_kib = 0
    while True:
        with contextlib.suppress(OSError, IndexError):
            text = Path(f"/proc/{process.pid}/status").read_text()
            peak_kib = int(text.split("VmHWM:")[1].split()[0])
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime, peak_kib * 1024
        time.sleep(0.02)


def measure_watching(table: Table, folder: Path, seconds: int) -> None:
    """CPU and memory of the collector on a process with a thousand mappings."""
    case = folder / "mappings.leakcase"
    with target(IDLE) as process:
        cpu_seconds, peak_bytes = finish(start_capture(process.pid, case, seconds))
    used = rows_of(read_records(case), CollectorSeries)
    # The second row is written when all that is done once has been done.
    first, last = used[1], used[-1]
    steady = (last["cpu_ns"] - first["cpu_ns"]) / (last["taken_ns"] - first["taken_ns"])  # type: ignore[operator]
    name = f"1,000 mappings, 1 s, {seconds} s"
    table.add(f"collector's CPU, {name}", 100 * steady, 0.5, "% of a core")
    table.add(f"... start and end included ({cpu_seconds:.2f} s in all)",
              100 * cpu_seconds / seconds, None, "% of a core")  # fmt: skip
    table.add("collector's peak RSS", peak_bytes / MB, 35, "MB")


def measure_tracing(table: Table, folder: Path, seconds: int) -> None:
    """Memory of the collector while it traces, and what it has of a core once that has begun.

    `tracing.py` says what the traced program pays.
    """
    if os.geteuid() != 0:
        print("  tracing: not measured, it takes root", file=sys.stderr)
        return
    runner.build()
    for mode in ("bursts", "full"):
        case = folder / f"{mode}.leakcase"
        options = ("--trace", mode, "--allow", "read-memory,trace", "--max-slowdown", "20%")
        with runner.start("cpp-object-leak", seconds + 60) as sample:
            _, peak_bytes = finish(start_capture(sample.pid, case, seconds, options=options))
        used = rows_of(read_records(case), CollectorSeries)
        first, last = used[2], used[-2]  # Not what is done once.
        steady = (last["cpu_ns"] - first["cpu_ns"]) / (last["taken_ns"] - first["taken_ns"])  # type: ignore[operator]
        table.add(f"collector's peak RSS, --trace {mode}", peak_bytes / MB, 40, "MB")
        table.add(
            f"... its CPU after the first seconds of {seconds}", 100 * steady, None, "% of a core"
        )


def measure_first_sample(table: Table, folder: Path, runs: int) -> None:
    """From the start of the collector's process to its first sample, and the start of --help."""
    with target(IDLE) as process:
        delays = []
        for number in range(runs):
            case = folder / f"first-{number}.leakcase"
            started_ns = time.monotonic_ns()
            finish(start_capture(process.pid, case, 1))
            first_ns = rows_of(read_records(case), StatusSeries)[0]["taken_ns"] or 0
            delays.append((first_ns - started_ns) / SECOND_NS)
    table.add("first sample after start", statistics.median(delays), 0.3, "s")
    for program, limit in ((LEAKCASE, 0.3), (COLLECT, None)):
        times = [timed([program, "--help"])[0] for _ in range(runs)]
        table.add(f"{Path(program).name} --help", statistics.median(times), limit, "s")


def timed(command: list[str]) -> tuple[float, int]:
    """Seconds that a program took, and its peak of resident memory in bytes."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, peak_bytes = finish(process)
    if process.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)} exits {process.returncode}")
    return time.monotonic() - started, peak_bytes


def measure_slowdown(table: Table, folder: Path, pairs: int, seconds: float) -> None:
    """CPU per round of a busy process while it is watched and while it is not, in turn."""
    with target(BUSY) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def cpu_per_round() -> float:
            print(seconds, file=process.stdin, flush=True)
            rounds, cpu_ns = map(int, process.stdout.readline().split())  # type: ignore[union-attr]
            return cpu_ns / rounds

        cpu_per_round()
        alone, watched = [], []
        for number in range(pairs):
            alone.append(cpu_per_round())
            capture = start_capture(process.pid, folder / f"busy-{number}.leakcase", seconds + 2)
            time.sleep(0.5)
            watched.append(cpu_per_round())
            finish(capture)
    ratio = statistics.median(watched) / statistics.median(alone)
    table.add(f"target's CPU per unit of work, {pairs} pairs", 100 * (ratio - 1), 1, "% more")


def measure_analysis(table: Table, case: Path, name: str, limit_seconds: float, runs: int) -> None:
    """Time and memory of `leakcase analyze`."""
    results = [timed([LEAKCASE, "analyze", str(case), "--json"]) for _ in range(runs)]
    seconds = statistics.median(result[0] for result in results)
    table.add(f"analyze {name}", seconds, limit_seconds, "s")
    table.add(f"analyze {name}, peak RSS", max(result[1] for result in results) / MB, 250, "MB")


def bench(short: bool, folder: Path) -> Table:
    """All measurements, the long capture in the background of the others."""
    table = Table()
    seconds, interval = (60, "500ms") if short else (TEN_MINUTES_SECONDS, "1s")
    captured = folder / "captured.leakcase"
    with runner.start("python-native-leak", seconds + 60) as sample:
        long = start_capture(sample.pid, captured, seconds, interval)
        measure_first_sample(table, folder, runs=3 if short else 9)
        measure_watching(table, folder, seconds=30 if short else 120)
        measure_tracing(table, folder, seconds=20 if short else 60)
        measure_slowdown(table, folder, *((4, 2.0) if short else (20, 4.0)))
        print("  waiting for the long capture", file=sys.stderr, flush=True)
        finish(long)
    recorded = read_records(captured)
    samples = len(rows_of(recorded, StatusSeries))
    continued = f"continued from {samples} samples"
    ten, how = captured, "captured"
    if short:
        ten, how = folder / "ten.leakcase", continued
        stretch(recorded, ten, TEN_MINUTES_SECONDS)
    table.add(f"case of 10 min at 1 s, {how}", ten.stat().st_size / KB, 300, "KB")
    day = folder / "day.leakcase"
    table.add(
        f"case of 24 h at 1 s, {continued}", stretch(recorded, day, DAY_SECONDS) / MB, 6, "MB"
    )
    measure_analysis(table, ten, "the case of 10 min", 1.5, runs=5)
    measure_analysis(table, day, "the case of 24 h", 4, runs=3)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the budgets.")
    parser.add_argument("--short", action="store_true", help="two minutes instead of eleven")
    parser.add_argument("--enforce", action="store_true", help="exit 1 where a budget is exceeded")
    options = parser.parse_args()
    print(f"load when it began: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory(prefix="leakcase-bench-") as folder:
        table = bench(options.short, Path(folder))
    print(table)
    return 1 if options.enforce and table.is_over else 0


if __name__ == "__main__":
    sys.exit(main())
