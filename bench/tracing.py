"""What tracing costs the one that is traced, ours beside the field's: part of `make bench`.

    python bench/tracing.py [--short | --long] [--loads LOAD,...] [--tools TOOL,...] [--enforce]

Each load is one process that works on a core of its own (`tracing_targets.py`) while the tools come
and go in turn, ours and theirs between each other; all else runs on the other cores. A ratio is CPU
time per unit of work, traced over untraced, of stretches that lie next to each other in the same
process: the median, and where it lies with 95 % confidence (`tracing_figures.py`).

    bursts      leakcase-collect capture --trace bursts, the default: whole captures; and by what
                their windows alone cost, which is known far better
    full        leakcase-collect capture --trace full, which is not let give up
    memleak     memleak-bpfcc (wants kernel headers: BCC_KERNEL_SOURCE)
    bpftrace    the usual script: malloc's address and stack, until free
    heaptrack   injected into the running program, which is started anew for each time
    jemalloc    its own profiler at work, against asleep; the program that counts its work only

`untraced` are the untraced stretches, each over the one before: what is noise here. A stall is the
longest that 64 pairs took, or redis and nginx an answer, while a tool was there, from its start to
its end: the median over its times, and the longest. Tools that are not installed, or do not work
here, are named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from budgets import Table
from processes import end_in_order, share_cores
from tracing_figures import Cost, Watcher, per_unit, shown_ratio
from tracing_targets import Target, Workshop, nginx, postgresql, redis, worker
from tracing_tools import TOOLS, NotWorking, headers
from tracing_turns import Lengths, Turns

#: Of a target that was just started.
WARM_UP_SECONDS = 1.0
JEMALLOC = "jemalloc"
OURS = ("bursts", "full")


@dataclass(frozen=True)
class Load:
    """A target, the program that it wants, and how often it is captured by bursts."""

    what: str
    opened: Callable[[Workshop], AbstractContextManager[Target]]
    program: str
    captures: int
    #: The same under jemalloc with its profiler, where there is one.
    profiled: Callable[[Workshop], AbstractContextManager[Target]] | None = None
    #: What bursts may cost it, in per cent; None: not promised.
    limit_percent: float | None = None


def _worker(what: str, pairs: int, spin: int, captures: int, limit_percent: float) -> Load:
    opened = partial(worker, pairs, spin)
    profiled = partial(worker, pairs, spin, with_jemalloc=True)
    return Load(what, opened, "gcc", captures, profiled, limit_percent)


LOADS = {
    "server": _worker("20,000 pairs of malloc and free a second", 20_000, 9_000, 8, 1.0),
    "bound": _worker("pairs of malloc and free, as many as it can", 0, 650, 4, 5.0),
    "redis": Load("redis-server, redis-benchmark", redis, "redis-benchmark", 3),
    "nginx": Load("nginx, wrk", nginx, "wrk", 3),
    "postgresql": Load("a backend of PostgreSQL, pgbench -S", postgresql, "pgbench", 3),
}


@dataclass(frozen=True)
class Plan:
    """How long, how many times as often captured as `Load` says, how often the other tools come."""

    lengths: Lengths
    factor: float
    blocks: int


SHORT = Plan(Lengths(8, 2, 0.7), 0.1, 1)
USUAL = Plan(Lengths(20, 5, 1.5), 1, 2)
LONG = Plan(Lengths(20, 10, 3), 3, 4)


class Measurement:
    """One load, all tools."""

    def __init__(self, name: str, load: Load, plan: Plan, workshop: Workshop) -> None:
        self.costs = {"untraced": Cost()}
        self.rate = ""
        self._name, self._load, self._plan, self._workshop = name, load, plan, workshop

    @contextlib.contextmanager
    def _turns(
        self, opened: Callable[[Workshop], AbstractContextManager[Target]]
    ) -> Iterator[Turns]:
        with opened(self._workshop) as target, Watcher(target) as watcher:
            time.sleep(WARM_UP_SECONDS)
            turns = Turns(target, watcher, self._workshop.folder, self._plan.lengths, self.costs)
            if not self.rate:
                started_ns = time.monotonic_ns()
                time.sleep(1)
                first, *_, last = looks = watcher.since(started_ns)
                seconds = (last.time_ns - first.time_ns) / 1e9
                self.rate = (
                    f"{(last.units - first.units) / seconds:,.0f} a second, "
                    f"{per_unit(looks) / 1000:.2f} µs of CPU each"
                )
            yield turns

    def run(self, tools: Sequence[str]) -> None:
        """Tools that leave their target as it was take turns at one; the others get their own."""
        lasting = [one for one in tools if one == JEMALLOC or TOOLS[one].stays]
        with self._turns(self._load.opened) as turns:
            for name in self._in_turn([one for one in tools if one not in lasting]):
                self._attempt(turns, name)
        for name in lasting:
            opened = self._load.profiled if name == JEMALLOC else self._load.opened
            for _ in range(self._plan.blocks if opened is not None else 0):
                assert opened is not None
                with self._turns(opened) as turns:
                    self._attempt(turns, name)

    def _in_turn(self, tools: Sequence[str]) -> Iterator[str]:
        captures = max(1, round(self._plan.factor * self._load.captures))
        times = {name: captures if name == "bursts" else self._plan.blocks for name in tools}
        rounds = max(times.values(), default=0)
        for number in range(rounds):
            for name, count in times.items():
                if (number + 1) * count // rounds > number * count // rounds:
                    yield name

    def _attempt(self, turns: Turns, name: str) -> None:
        cost = self.costs.setdefault(name, Cost())
        if cost.note:
            return
        print(f"  {self._name}: {name} ...", end=" ", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            turns.trace(name)
        except NotWorking as error:
            cost.note = f"not measured: {error}"
        said = cost.note or f"{cost.ratios[-1]:.4f} in {time.monotonic() - started:.0f} s"
        print(said, file=sys.stderr, flush=True)


HEADER = (
    f"  {'':10} {'traced / untraced':26} {'pairs':>5} {'stall ms':>12} "
    f"{'armed s':>7} {'CPU s':>6} {'then %':>6} {'RSS MB':>6}"
)


def row(name: str, cost: Cost) -> str:
    """A line of the table: `CPU s` until it was armed, `then %` of a core."""
    if not cost.ratios:
        return f"  {name:10} {cost.note}"
    stall = used = ""
    if cost.longest_ms:
        stall = f"{statistics.median(cost.longest_ms):.1f} {max(cost.longest_ms):.1f}"
    if cost.uses:
        used = (
            f"{cost.middle('armed_seconds'):7.2f} {cost.middle('armed_cpu_seconds'):6.2f} "
            f"{cost.middle('later_cpu_percent'):6.1f} {cost.middle('rss_mb'):6.0f} "
        )
    line = f"  {name:10} {shown_ratio(cost.ratios):26} {len(cost.ratios):5} {stall:>12} {used}"
    line = f"{line}{cost.note}".rstrip()
    if cost.by_windows:
        windows = shown_ratio(cost.by_windows)
        line += f"\n  {'':10} {windows:26} {len(cost.by_windows):5} by its windows alone"
    return line


def judge(table: Table, load: Load, costs: dict[str, Cost]) -> None:
    """Ours against its budgets."""
    bursts = costs.get("bursts")
    if bursts is None or not bursts.ratios or load.limit_percent is None:
        return
    for how, ratios in (("whole captures", bursts.ratios), ("its windows", bursts.by_windows)):
        percent = 100 * (statistics.median(ratios) - 1)
        table.add(f"bursts, {load.what}, {how}", percent, load.limit_percent, "% more")
    if bursts.attach_seconds:
        table.add("... the first probe, from when tracing began",
                  statistics.median(bursts.attach_seconds), 0.3, "s")  # fmt: skip
    table.add("... collector's peak RSS", bursts.middle("rss_mb"), 40, "MB")


def _names(text: str, known: Sequence[str]) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
    return names


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="ours, on the program: a minute")
    length.add_argument("--long", action="store_true", help="an hour instead of 20 minutes")
    loads, tools = tuple(LOADS), (*TOOLS, JEMALLOC)
    parser.add_argument("--loads", type=partial(_names, known=loads), help=", ".join(loads))
    parser.add_argument("--tools", type=partial(_names, known=tools), help=", ".join(tools))
    parser.add_argument("--captures", type=float, help="by bursts, so many times as many")
    parser.add_argument("--enforce", action="store_true", help="exit 1 where a budget is exceeded")
    given = parser.parse_args()
    given.plan = SHORT if given.short else LONG if given.long else USUAL
    if given.captures:
        given.plan = replace(given.plan, factor=given.captures)
    given.loads = given.loads or (["server", "bound"] if given.short else list(LOADS))
    given.tools = given.tools or (list(OURS) if given.short else [*TOOLS, JEMALLOC])
    return given


def main() -> int:
    """Build, measure, print."""
    given, table = options(), Table()
    end_in_order()
    with tempfile.TemporaryDirectory(prefix="leakcase-tracing-") as folder:
        workshop = Workshop(Path(folder), share_cores())
        workshop.prepare()
        tools = [one for one in given.tools if one == JEMALLOC or not TOOLS[one].is_missing]
        if "memleak" in tools:
            os.environ.update(headers(Path(folder)))
        print(*(f"{one} is not installed" for one in given.tools if one not in tools), sep="\n")
        for name in given.loads:
            load = LOADS[name]
            if shutil.which(load.program) is None:
                print(f"{load.what}: {load.program} is not installed")
                continue
            measurement = Measurement(name, load, given.plan, workshop)
            measurement.run(tools)
            print(f"{load.what}: {measurement.rate}\n{HEADER}")
            for tool, cost in measurement.costs.items():
                print(row(tool, cost), flush=True)
            judge(table, load, measurement.costs)
    print(table)
    return 1 if given.enforce and table.is_over else 0


if __name__ == "__main__":
    sys.exit(main())
