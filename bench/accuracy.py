"""How often is the judgement of growth right? `make accuracy`, or with `--short` in CI.

Prints precision, recall, the share left undecided, false alarms and the coverage of the rate
interval on a seeded corpus (`accuracy_corpus.py`) and on recorded processes, then what the rule
says of its own limits, counts, and activity. Exits 1 when a figure is below its floor.

    precision     leaks among what was called a leak (twins left out)
    recall        leaks called so (rates from 4 KB/s up)
    missed        leaks called bounded or stable
    false         innocents called a leak
    twins         caches in their linear fill that were called a leak: nothing in a series tells
                  them apart
    covered       leaks called so whose 95 % interval holds the true rate
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable

import numpy as np
from accuracy_corpus import KB, PAGE_BYTES, Case, Floats, corpus, noise_pieces, recordings
from accuracy_recorded import activity, counts, recorded
from accuracy_score import HEADER, Floors, Judged, Score, is_leak, row

from leakcase_analyzer.series.growth import judge

SEED = 20_240


def _judged(case: Case) -> Judged:
    growth = judge(case.t, case.y, cpu_seconds=case.cpu)
    return Judged(case.kind, case.truth, case.rate, growth)


def synthetic(pieces: list[Floats], each: int, floors: Floors, by_kind: bool) -> None:
    """The corpus, at three lengths of window."""
    print(f"synthetic, {each} of each kind, noise from recordings\n{HEADER}")
    # Measured with 100 of each: precision .99, recall .70, .83, .97, coverage .95 to .99. The
    # floors leave room for the short cut's sampling error.
    for seconds, precision, recall, covered in (
        (60, 0.93, 0.62, 0.88), (120, 0.94, 0.75, 0.88), (600, 0.95, 0.90, 0.93),
    ):  # fmt: skip
        answers = [_judged(case) for case in corpus(SEED, seconds, each, pieces)]
        score = Score.of(answers)
        print(row(f"{seconds} s", score))
        floors.least(f"precision at {seconds} s", score.precision, precision)
        floors.least(f"recall at {seconds} s", score.recall, recall)
        floors.least(f"coverage at {seconds} s", score.covered, covered)
        floors.most(f"false alarms at {seconds} s", score.false, 0.03)
        if by_kind:
            _print_kinds(answers)
    print()


def _print_kinds(answers: list[Judged]) -> None:
    for truth, kind in dict.fromkeys((one.truth, one.kind) for one in answers):
        reasons = Counter(
            f"{one.growth.status}/{one.growth.reason}" for one in answers if one.kind == kind
        )
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        print(f"    {truth:9}{kind:20}{told}")


def least_rate(pieces: list[Floats], each: int, floors: Floors) -> None:
    """Chance of being called by true rate, and at the rate that the answer itself names."""
    rates = (0, 1, 2, 4, 8, 16, 32)
    print("chance of being called a leak, by rate in KB/s, and at the window's own least rate")
    print(f"{'':8}" + "".join(f"{rate:7}" for rate in rates) + "    own")
    for seconds in (60, 120):
        chances, own = [], []
        for rate in rates:
            levels = list(_levels(pieces, seconds, each))
            called = [is_leak(judge(t, y + rate * KB * t)) for t, y, _ in levels]
            chances.append(float(np.mean(called)))
        for t, y, other in _levels(pieces, seconds, 2 * each):
            named = judge(t, y).least_detectable_rate_per_second
            if named is not None:
                own.append(is_leak(judge(t, other + named * t)))
        print(f"{seconds:5} s " + "".join(f"{c:7.2f}" for c in chances) + f"{np.mean(own):7.2f}")
        floors.least(f"calls at the least rate named, {seconds} s", float(np.mean(own)), 0.85)
        floors.most(f"false calls of level noise, {seconds} s", chances[0], 0.03)
    print()


def _levels(
    pieces: list[Floats], seconds: int, each: int
) -> Iterable[tuple[Floats, Floats, Floats]]:
    """(times, level noise, level noise of the same process at another time)."""
    rng = np.random.default_rng(SEED)
    t = np.arange(seconds + 1.0)
    for turn in range(each):
        piece = pieces[turn % len(pieces)]
        starts = rng.integers(0, piece.size - t.size, 2)
        first, second = (np.round(piece[s : s + t.size] / PAGE_BYTES) * PAGE_BYTES for s in starts)
        yield t, 2e7 + first, 2e7 + second


def watch_longer(pieces: list[Floats], each: int) -> None:
    """How many undecided windows are settled by three times the time, and how rightly."""
    print("undecided, watched three times as long")
    for seconds in (60, 120):
        settled = []
        undecided = 0
        for case in corpus(SEED + 1, 3 * seconds, each, pieces):
            first = case.t <= case.t[0] + seconds
            cpu = None if case.cpu is None else case.cpu[first]
            if judge(case.t[first], case.y[first], cpu_seconds=cpu).status != "undecided":
                continue
            undecided += 1
            later = _judged(case)
            if later.growth.status != "undecided":
                settled.append(is_leak(later.growth) == (case.truth == "leak"))
        share = len(settled) / max(1, undecided)
        print(f"{seconds:5} s  settled {share:.2f}, of these rightly {np.mean(settled):.2f}")
    print()


def main() -> int:
    """Print all tables; 1 when a figure is below its floor."""
    parser = argparse.ArgumentParser(description="How often is the judgement of growth right?")
    parser.add_argument("--short", action="store_true", help="a fifth of the corpus, for CI")
    parser.add_argument("--kinds", action="store_true", help="answers by kind as well")
    options = parser.parse_args()
    began = time.perf_counter()
    each = 20 if options.short else 100
    found = recordings()
    pieces = noise_pieces(found)
    floors = Floors()
    synthetic(pieces, each, floors, options.kinds)
    recorded(found, floors)
    least_rate(pieces, 2 * each, floors)
    watch_longer(pieces, each // 2)
    counts(found, floors)
    activity(found, floors)
    print(f"{time.perf_counter() - began:.1f} s", flush=True)
    for failure in floors.failed:
        print(f"below the floor: {failure}", file=sys.stderr)
    return 1 if floors.failed else 0


if __name__ == "__main__":
    sys.exit(main())
