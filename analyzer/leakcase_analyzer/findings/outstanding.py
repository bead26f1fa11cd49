"""Who allocates what is not freed, where everything was traced for a while: exact, by age."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

from leakcase_analyzer.findings.fates import Place, frames_by_stack, place_of
from leakcase_analyzer.findings.suspect import Basis, Fate, Suspect, Suspects
from leakcase_analyzer.findings.suspect_words import named, what_they_hold
from leakcase_analyzer.sentences import Count, Quantity, Sentence, Share, Size, Span, say
from leakcase_analyzer.series.survival import Curve
from leakcase_analyzer.trace_looks import Frame, Held, Stack, Tracing, Watched

MOST_SUSPECTS = 32
LEAST_SHARE = 0.001
#: Of blocks that stay, half are from the first half of the time; of those that soon go hardly any
#: is, and of what was set up once nearly all are.
YOUNG_SHARE, EARLY_SHARE = 0.05, 0.95
#: Fewer allocations than this do not show how long they live.
ENOUGH_MADE = 20
SURE, UNSURE, EARLY = 0.9, 0.5, 0.4
NO_CURVE = Curve((), (), ())


def outstanding(
    tracing: Tracing,
    windows: Sequence[Watched],
    growth: float | None,
    counts: Callable[[Stack], bool] = lambda _: True,
) -> Suspects | None:
    """The suspects by what the last look of each window says is held; None: there is none.

    Stacks that do not count are left out.
    """
    if not windows:
        return None
    basis: Basis = "mappings" if windows[0].maps else "outstanding"
    rows: dict[int, Held] = {}
    for window in windows:
        for stack, held in window.outstanding[-1].rows.items():
            if not counts(tracing.stack(stack)):
                continue
            rows[stack] = held if stack not in rows else _sum(rows[stack], held)
    seconds = sum(one.duration_seconds for one in windows)
    whole = _whole(windows)
    groups = _groups(tracing, rows)
    growing = {place: _growing_bytes(_total(rows, stacks)) for place, stacks in groups.items()}
    total = sum(growing.values())
    rate = total / seconds if seconds > 0 and growth is None else growth
    suspects: list[Suspect] = []
    passing: list[Suspect] = []
    for place in sorted(groups, key=lambda one: growing[one], reverse=True):
        stacks = groups[place]
        held = _total(rows, stacks)
        share = growing[place] / total if total else 0.0
        if _fate(held) == "dies":
            passing.append(_suspect(basis, tracing, rows, stacks, None, None, 0.0))
        elif len(suspects) < MOST_SUSPECTS and (share >= LEAST_SHARE or not total):
            per_second = None if rate is None else share * rate
            suspects.append(_suspect(basis, tracing, rows, stacks, share, per_second, whole))
    allocations = sum(one.total.allocations for one in windows)
    return Suspects(
        claim=_claim(basis, suspects, seconds, allocations),
        evidence_for=suspects[0].evidence if suspects else (),
        basis=basis,
        suspects=tuple(suspects),
        passing=tuple(sorted(passing, key=lambda one: -one.held_bytes)[:MOST_SUSPECTS]),
        windows=len(windows),
        window_seconds=seconds,
        allocations=allocations,
        followed_seconds=seconds / len(windows),
        growth_per_second=growth,
        kept_per_second=total / seconds if seconds > 0 else 0.0,
    )


def _sum(one: Held, other: Held) -> Held:
    return Held(
        one.blocks + other.blocks,
        one.held_bytes + other.held_bytes,
        one.allocations + other.allocations,
        _known_sum(one.older_blocks, other.older_blocks),
        _known_sum(one.older_bytes, other.older_bytes),
    )


def _known_sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _total(rows: dict[int, Held], stacks: dict[int, Frame | None]) -> Held:
    return reduce(_sum, (rows[stack] for stack in stacks))


def _groups(tracing: Tracing, rows: dict[int, Held]) -> dict[Place, dict[int, Frame | None]]:
    found: dict[Place, dict[int, Frame | None]] = {}
    for stack, frame in frames_by_stack(tracing, rows).items():
        found.setdefault(place_of(frame), {})[stack] = frame
    return found


def _whole(windows: Sequence[Watched]) -> float:
    totals = [one.total for one in windows]
    seen = sum(one.allocations for one in totals)
    lost = sum((one.lost_blocks or 0) + (one.lost_stacks or 0) for one in totals)
    return seen / (seen + lost) if seen + lost else 0.0


def _fate(held: Held) -> Fate:
    """By age: a block that was allocated early and is held still has stayed for half the time."""
    if not held.blocks:
        return "dies"
    if held.older_blocks is None:
        return "unclear"
    older = held.older_blocks / held.blocks
    if older >= EARLY_SHARE:
        return "early"
    if older > YOUNG_SHARE or held.blocks >= held.allocations:
        return "stays"
    # One block that ever grows is always young: of few nothing follows.
    return "dies" if held.allocations >= ENOUGH_MADE else "unclear"


def _growing_bytes(held: Held) -> float:
    """What is added still: what was set up in the first half, and not since, is not; nor is what
    will be gone when it is as old as that half."""
    fate = _fate(held)
    if fate == "dies":
        return 0.0
    if held.older_bytes is None:
        return float(held.held_bytes)
    younger_bytes = max(0, held.held_bytes - held.older_bytes)
    steady = 2.0 * younger_bytes
    if fate == "stays" and held.blocks < held.allocations:
        # What half the time takes away it takes away again: of blocks that live for a while, the
        # older half is smaller than the younger, and the half before that would be smaller still.
        kept = min(1.0, held.older_bytes / younger_bytes) if younger_bytes else 1.0
        steady = min(steady, 2.0 * held.older_bytes * kept)
    return min(float(held.held_bytes), steady)


def _suspect(
    basis: Basis,
    tracing: Tracing,
    rows: dict[int, Held],
    stacks: dict[int, Frame | None],
    share: float | None,
    rate: float | None,
    whole: float,
) -> Suspect:
    main = max(sorted(stacks), key=lambda one: rows[one].held_bytes)
    held = _total(rows, stacks)
    fate = _fate(held)
    sure = {"stays": SURE, "early": EARLY, "dies": 0.0}.get(fate, UNSURE)
    contents = tracing.contents.get(main)
    return Suspect(
        basis=basis,
        frame=stacks[main],
        stack=tracing.stack(main),
        stacks=len(stacks),
        fate=fate,
        share=share,
        bytes_per_second=rate,
        confidence=round(sure * whole, 2),
        held_bytes=held.held_bytes,
        blocks=held.blocks,
        followed=held.allocations,
        freed=max(0, held.allocations - held.blocks),
        curve=NO_CURVE,
        trigger="unknown",
        evidence=(
            *_evidence(held, fate, len(stacks)),
            *(what_they_hold(contents) if contents is not None else ()),
        ),
    )


def _evidence(held: Held, fate: Fate, stacks: int) -> Iterator[Sentence]:
    yield say(
        "not freed: {blocks}, {size} together"
        + (", of {made} made while all was traced" if held.older_bytes is not None else ""),
        blocks=Count(held.blocks, "block"),
        size=Size(held.held_bytes),
        made=Count(held.allocations, ""),
    )
    if held.older_bytes is not None:
        yield say(
            "{older} of them are from the first half of that time", older=Size(held.older_bytes)
        )
    if fate == "early":
        yield say("hardly any was added since: it holds memory, but does not grow")
    elif fate == "dies":
        yield say("hardly any is older than half of that time: its blocks come and go")
    if stacks > 1:
        yield say("it was reached by {stacks}", stacks=Count(stacks, "different stack"))


def _claim(basis: Basis, suspects: list[Suspect], seconds: float, allocations: int) -> Sentence:
    mapped = basis == "mappings"
    watched: dict[str, Quantity] = {
        "span": Span(seconds),
        "allocations": Count(allocations, "mapping" if mapped else "allocation"),
    }
    text = "in {span} in which all was traced {allocations} were seen"
    if mapped:
        text = "in {span} {allocations} of memory were made, all of which were watched"
    if not suspects:
        return say(text + ", and none of them stayed", **watched)
    what, names = named(suspects[0].frame)
    share = Share(suspects[0].share or 0.0)
    return say(text + ": {share} of what was added was by " + what, **watched, share=share, **names)
