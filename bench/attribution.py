"""Is the function that leaks named, and first? `make attribution`, or with `--short` in CI.

Watches programs of known truth (`attribution/`) as a user would, traced in bursts, several seeds
each, and compares what is said with what each program says of itself. Exits 1 when a figure misses
what it must reach.

    first      a function that leaks is in the stack of the first suspect
    off        by how many points a site's share of what leaked is missed, at most
    aliases    share of the blocks said to have stayed that an innocent function had made
    innocent   share of the bytes ascribed to innocent functions
    narrow     share of the windows that watched the sizes alone that grow: a leak of a size of its
               own is to be found by these
    verdict    what the answer as a whole is; a cache must never be called a leak
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy_score import Floors
from long_case import read_records

from leakcase_bundle.records import CodeFrame, CodeStack, TraceSurvival, TraceWindow

SOURCES = Path(__file__).resolve().parent / "attribution"
BIN = Path(sys.executable).parent
FLAGS = ["-O2", "-g", "-fomit-frame-pointer", "-pthread"]
LEAKS = (
    "small", "sites", "calloc", "realloc", "list", "mutated", "zeros", "rare", "odd", "threads4",
    "threads16", "forked", "objects",
)  # fmt: skip
CACHES = ("fifo", "random")
SHORT = ("small", "sites", "fifo")
#: Set-up of a program and answers of ours, beyond the capture.
SPARE_SECONDS = 60
#: More than the default: to know a share to five points takes some four hundred blocks that stayed,
#: which the default sees of these programs in some three minutes rather than in one.
MAX_SLOWDOWN = "4%"
#: The innocent blocks live for about a second: after so long hardly one should still be there.
AGE_NS = 10 * 1_000_000_000


@dataclass(frozen=True)
class Answer:
    """One run: what was said, beside the truth."""

    case: str
    seed: int
    status: str
    first: str
    is_right: bool
    off_points: float | None
    aliases: float | None
    innocent: float
    stayed: int
    narrow: float


def build(folder: Path) -> None:
    """Optimised, without frame pointers, stripped of all but symbols."""
    for compiler, standard, source in (
        ("gcc", "gnu11", "programs.c"),
        ("g++", "c++17", "objects.cpp"),
    ):
        made = folder / source.split(".")[0]
        command = [compiler, f"-std={standard}", "-D_GNU_SOURCE", *FLAGS]
        subprocess.run([*command, "-o", made, SOURCES / source], check=True)
        subprocess.run(["strip", "--strip-debug", made], check=True)


@contextlib.contextmanager
def running(folder: Path, case: str, seed: int, seconds: int) -> Iterator[subprocess.Popen[str]]:
    """The program, which ends by itself in any event."""
    program = ["objects"] if case == "objects" else ["programs", case]
    command = [str(folder / program[0]), *program[1:], str(seed), "--seconds", str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def watch(folder: Path, case: str, seed: int, seconds: int) -> Answer:
    """Capture one run and judge the answer."""
    path = folder / f"{case}-{seed}.leakcase"
    with running(folder, case, seed, seconds + SPARE_SECONDS) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["pid"]
        capture = subprocess.run(
            [BIN / "leakcase-collect", "capture", str(pid), "--duration", f"{seconds}s",
             "--trace", "bursts", "--allow", "read-memory,trace",
             "--max-slowdown", MAX_SLOWDOWN, "-o", path],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 120,
        )  # fmt: skip
    if capture.returncode not in (0, 3):
        raise SystemExit(f"attribution: {case} {seed}: {capture.stderr}")
    said = subprocess.run(
        [BIN / "leakcase", "analyze", "--json", path], capture_output=True, check=True
    )
    return judge(case, seed, json.loads(said.stdout), read_records(path))


#: The true share of each function that leaks, by program; all others have but one.
SITES = {"leak_half": 0.50, "leak_third": 0.30, "leak_seventh": 0.15, "leak_twentieth": 0.05}


def judge(case: str, seed: int, said: dict[str, Any], records: list[Any]) -> Answer:
    """The answer, beside the truth."""
    suspects = said["suspects"]
    guilty = [one for one in suspects if _names(one, "leak_")]
    share = {
        site: sum(one["share"] or 0.0 for one in suspects if _names(one, site)) for site in SITES
    }
    off = max(abs(share[site] - truth) for site, truth in SITES.items())
    stayed, aliases = _stayed(records)
    return Answer(
        case,
        seed,
        said["verdict"]["status"],
        (suspects[0]["function"] or "?") if suspects else "nobody",
        bool(suspects) and suspects[0] in guilty,
        100 * off if case == "sites" else None,
        aliases if case in LEAKS else None,
        sum(one["share"] or 0.0 for one in suspects if one not in guilty),
        stayed,
        _narrow(records),
    )


def _narrow(records: list[Any]) -> float:
    """Of the windows, those that watched some sizes alone."""
    windows = [one for one in records if type(one) is TraceWindow and one.watched == "allocator"]
    return sum(one.largest_bytes is not None for one in windows) / max(len(windows), 1)


def _names(suspect: dict[str, Any], function: str) -> bool:
    return any(function in json.dumps(frame) for frame in (suspect["function"], *suspect["stack"]))


def _stayed(records: list[Any]) -> tuple[int, float | None]:
    """How many blocks of the windows were there at their last looks, and the innocent share."""
    functions = {one.frame: one.function or "" for one in records if type(one) is CodeFrame}
    is_guilty = {
        one.stack: any("leak_" in functions.get(frame, "") for frame in one.frames)
        for one in records
        if type(one) is CodeStack
    }
    last: dict[tuple[int, int], tuple[int, int]] = {}
    for look in records:
        if type(look) is TraceSurvival and look.age_ns > AGE_NS:
            for stack, alive in zip(look.stacks, look.alive, strict=True):
                last[look.window, stack] = max(
                    last.get((look.window, stack), (0, 0)), (look.age_ns, alive)
                )
    alive = sum(count for _, count in last.values())
    innocent = sum(count for (_, stack), (_, count) in last.items() if not is_guilty.get(stack))
    return alive, innocent / alive if alive else None


def row(answer: Answer) -> str:
    """One line of the table."""

    def shown(value: float | None, scale: float = 100) -> str:
        return "-" if value is None else f"{scale * value:.1f}"

    return (
        f"{answer.case:10} {answer.seed:4}  {'yes' if answer.is_right else 'NO':5} "
        f"{shown(answer.off_points, 1):>5} {shown(answer.aliases):>8} {shown(answer.innocent):>9} "
        f"{answer.stayed:7} {shown(answer.narrow):>7}  {answer.status:10} {answer.first}"
    )


def check(answers: list[Answer]) -> list[str]:
    """What was not reached."""
    floors = Floors()
    leaks = [one for one in answers if one.case in LEAKS]
    floors.least("share named first", sum(one.is_right for one in leaks) / len(leaks), 0.95)
    for one in answers:
        name = f"{one.case}, seed {one.seed}"
        if one.off_points is not None:
            floors.most(f"points off, {name}", one.off_points, 5)
        if one.case in CACHES:
            floors.most(f"a cache called a leak, {name}", float(one.status == "leak"), 0)
            continue
        if one.case == "odd":
            floors.least(f"windows of what grows, {name}", one.narrow, 0.3)
        floors.most(f"aliases, {name}", one.aliases or 0.0, 0.01)
        floors.most(f"share of the innocent, {name}", one.innocent, 0.05)
    return floors.failed


def main() -> int:
    """Watch, print, check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="three programs, one seed, 40 s")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=90, help="length of each capture")
    parser.add_argument("--at-once", type=int, default=3, help="programs watched side by side")
    parser.add_argument("programs", nargs="*", help=f"of {', '.join((*LEAKS, *CACHES))}; else all")
    options = parser.parse_args()
    programs = options.programs or (SHORT if options.short else (*LEAKS, *CACHES))
    seeds, seconds = (1, 40) if options.short else (options.seeds, options.seconds)
    columns = "first   off  aliases  innocent  stayed  narrow  verdict    named"
    print(f"{'program':10} {'seed':>4}  {columns}")
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.at_once) as pool:
        folder = Path(name)
        build(folder)
        runs = [(program, seed) for program in programs for seed in range(1, seeds + 1)]
        for answer in pool.map(lambda run: watch(folder, run[0], run[1], seconds), runs):
            print(row(answer), flush=True)
            answers.append(answer)
    failed = check(answers)
    print(*failed, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
