"""The judgement on recorded processes: growth in windows, counts, activity."""

from __future__ import annotations

from collections import Counter

import numpy as np
from accuracy_corpus import Recording
from accuracy_score import HEADER, Floors, Judged, Score, is_leak, row

from leakcase_analyzer.series.activity import segments
from leakcase_analyzer.series.growth import Growth, judge
from leakcase_analyzer.series.trigger import trigger

RECORDED_LEAKS = frozenset(
    {
        "leak-small",
        "leak-large",
        "leak-requests",
        "leak-objects",
        "leak-when-active",
        "leak-sawtooth",
        "thread-leak",
    }
)
RECORDED_TWINS = frozenset({"cache-still-filling", "buffer-extends"})
# A series of resident memory cannot show these; the allocator's books can.
RECORDED_UNSEEN = frozenset({"retention", "leak-into-kept-memory"})
FILLS = frozenset({"redis-fills-to-maxmemory", "cache-fills-then-stops"})


def _piece(one: Recording, start: int, seconds: int, books: bool) -> Growth:
    part = slice(start, start + seconds + 1)
    return judge(
        one.t[part],
        one.anon_bytes[part],
        cpu_seconds=one.cpu[part],
        in_use_bytes=one.in_use_bytes[part] if books else None,
        free_bytes=one.free_bytes[part] if books else None,
        managed_runtime=one.kind.startswith("node"),
    )


def _recorded_truth(one: Recording, end: int, seconds: int, books: bool) -> str:
    if one.kind in RECORDED_LEAKS:
        return "leak"
    if one.kind in RECORDED_TWINS:
        return "twin"
    if one.kind in RECORDED_UNSEEN:
        return "innocent" if books and one.kind == "retention" else "unseen"
    if one.kind in FILLS:
        base = one.anon_bytes[2]
        full = int(np.argmax(one.anon_bytes > base + 0.95 * (one.anon_bytes.max() - base)))
        return "twin" if end < full + seconds / 10 else "innocent"
    return "innocent"


def recorded(found: list[Recording], floors: Floors) -> None:
    """Windows of recorded processes: from their start, and later on."""
    print(f"recorded, {len(found)} processes\n{HEADER}")
    for seconds in (60, 120):
        for name, starts in (("from the start", [0]), ("later", range(20, 1000, seconds // 2))):
            for books in (False, True):
                answers = [
                    Judged(one.kind, _recorded_truth(one, start + seconds, seconds, books), None,
                           _piece(one, start, seconds, books))
                    for one in found
                    for start in starts
                    if start + seconds < one.t.size
                ]  # fmt: skip
                score = Score.of(answers)
                print(row(f"{seconds} s {name}{', with the books' if books else ''}", score))
                if name == "later":
                    least = 0.60 if seconds == 60 else 0.80
                    floors.least(f"recorded precision at {seconds} s", score.precision, 0.90)
                    floors.least(f"recorded recall at {seconds} s", score.recall, least)
    print()


def counts(found: list[Recording], floors: Floors) -> None:
    """Threads and descriptors of the recorded processes."""
    growing = {("thread-leak", "threads"), ("descriptor-leak", "descriptors")}
    called, false, leaks, innocents = 0, 0, 0, 0
    for one in found:
        for name, series in (("threads", one.threads), ("descriptors", one.descriptors)):
            for start in range(0, one.t.size - 60, 60):
                part = slice(start, start + 61)
                answer = is_leak(judge(one.t[part], series[part], unit="count"))
                if (one.kind, name) in growing:
                    leaks, called = leaks + 1, called + answer
                else:
                    innocents, false = innocents + 1, false + answer
    print(f"counts, 60 s: {called} of {leaks} leaks called, {false} of {innocents} innocents\n")
    floors.least("recall of counts", called / max(1, leaks), 0.95)
    floors.most("false alarms of counts", false / max(1, innocents), 0.01)


def activity(found: list[Recording], floors: Floors) -> None:
    """Leaks of active processes, and activity borrowed from processes that do not leak by it."""
    own: Counter[str] = Counter()
    borrowed: Counter[str] = Counter()
    working = [one for one in found if one.kind in ("leak-when-active", "active-and-idle")]
    for work in working:
        for one in found:
            for start in range(0, min(work.t.size, one.t.size) - 180, 60):
                part = slice(start, start + 181)
                states = segments(work.t[part], work.cpu[part])
                when = trigger(one.t[part], one.anon_bytes[part], states).when
                if one is work and one.kind == "leak-when-active":
                    own[when] += 1
                elif one.kind != "leak-when-active":
                    borrowed[when] += 1
    total = sum(borrowed.values())
    false = borrowed["active"] + borrowed["idle"]
    print(
        f"activity, 180 s: {own['active']} of {sum(own.values())} active leaks found, "
        f"{false} of {total} false on borrowed activity\n"
    )
    floors.least("active leaks found", own["active"] / max(1, sum(own.values())), 0.8)
    floors.most("false triggers", false / max(1, total), 0.03)
