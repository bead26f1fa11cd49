"""From a judged quantity to a finding in words; every finding about growth is made here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import RuledOut, Trend
from leakcase_analyzer.findings.tracks import Quantity, growth_of
from leakcase_analyzer.sentences import (
    Count,
    CountRate,
    Sentence,
    Size,
    SizeRate,
    Span,
    say,
)
from leakcase_analyzer.sentences import (
    Quantity as Amount,
)
from leakcase_analyzer.series.census import end_medians
from leakcase_analyzer.series.growth import Growth, Status
from leakcase_analyzer.series.persistence import Reason

#: Why a series was judged as it was.
REASONS: dict[Reason, str] = {
    "steady-floor": "the floor rose evenly through {blocks} stretches of time, to the end",
    "steady-tail": "after a first phase the floor rose evenly, to the end",
    "steady-in-use": "the total rises and falls, but what is in use rose evenly",
    "retention-growing": "what grew is free memory which the allocator keeps",
    "retention-level": "much of that is free memory which the allocator keeps",
    "saturated": "the rise stopped, and the quiet since is longer than chance explains",
    "falls-back": "every rise fell back to the same floor",
    "flat": "that is no more than noise",
    "late-rise": "the rise came only at the very end of the window",
    "quiet": "the rise stopped, but the quiet since is too short to rely on",
    "decelerating": "the rise became slower and slower",
    "few-events": "the rise came in too few steps to tell a habit from an accident",
    "slight": "the floor rose evenly, but by little more than a heap that settles does",
    "bursty": "the rise came in uneven bursts",
    "few-periods": "the window holds too few rises and falls to see their floor",
    "managed-runtime": "the garbage collector has not shown yet what it can free",
    "census-disagrees": "the allocator's own books do not show this growth",
    "too-short": "there are only {samples} usable samples, over {window}",
    "unordered-time": "the clock of the samples runs backwards",
}

#: A range of less than this share is told as one level.
NARROW = 0.02
NOUNS = {"threads": "thread", "fds": "descriptor", "sockets": "socket"}


@dataclass(frozen=True)
class Knowledge:
    """What is known of a quantity beyond its series."""

    status: Status | None = None
    """Overrides the series' answer."""
    counts: bool = True
    bounded_by: Sentence | None = None
    evidence_for: tuple[Sentence, ...] = ()
    evidence_against: tuple[Sentence, ...] = ()


NOTHING_MORE = Knowledge()


def trend(evidence: Evidence, quantity: Quantity, known: Knowledge = NOTHING_MORE) -> Trend | None:
    """The finding about one quantity, or None where it was never measured."""
    found = growth_of(evidence, quantity)
    if found is None:
        return None
    track, growth = found
    values = track.values[np.isfinite(track.values)]
    if not values.size:
        return None
    first, last = end_medians(values)
    status = known.status or growth.status
    against = (known.bounded_by,) if known.bounded_by is not None else ()
    return Trend(
        claim=_claim(quantity, growth, status, (first, last), values.min(), values.max()),
        evidence_for=(reason(growth), *known.evidence_for),
        evidence_against=(*against, *known.evidence_against),
        what=quantity.what,
        subject=quantity.subject,
        unit=quantity.unit,
        status=status,
        growth=growth,
        first=first,
        last=last,
        lowest=float(values.min()),
        highest=float(values.max()),
        track=track,
        counts=known.counts,
        bounded_by=known.bounded_by,
    )


def _claim(
    quantity: Quantity,
    growth: Growth,
    status: Status,
    ends: tuple[float, float],
    lowest: float,
    highest: float,
) -> Sentence:
    unit, what = quantity.unit, quantity.what
    window = Span(growth.window_seconds)
    if status == "stable" or (status == "bounded" and growth.reason == "falls-back"):
        if highest - lowest <= NARROW * highest:
            return _level(what, amount(unit, ends[1]), amount(unit, highest - lowest), window)
        return say(
            what + " stayed between {lowest} and {highest} for {window}",
            lowest=amount(unit, lowest),
            highest=amount(unit, highest),
            window=window,
        )
    return say(
        what + " went from {first} to {last} in {window}",
        first=amount(unit, ends[0]),
        last=amount(unit, ends[1]),
        window=window,
    )


def _level(what: str, level: Amount, width: Amount, window: Span) -> Sentence:
    if width in (Size(0.0), Count(0.0, "")):
        return say(what + " stayed at {level} for {window}", level=level, window=window)
    return say(
        what + " stayed at {level}, within {width}, for {window}",
        level=level,
        width=width,
        window=window,
    )


def reason(growth: Growth) -> Sentence:
    """Why a series was judged as it was."""
    return say(
        REASONS[growth.reason],
        blocks=Count(growth.blocks, ""),
        samples=Count(growth.samples, ""),
        window=Span(growth.window_seconds),
    )


def amount(unit: str, value: float) -> Amount:
    """A value of a quantity; a count goes without its noun, which the quantity's name is."""
    return Size(value) if unit == "bytes" else Count(value, "")


def amount_rate(unit: str, per_second: float) -> Amount:
    """A rate of a quantity, in its unit."""
    return SizeRate(per_second) if unit == "bytes" else CountRate(per_second, NOUNS[unit])


def ruled_out(cause: str, found: Trend | None) -> RuledOut | None:
    """That a quantity is no cause, where its series says so."""
    if found is None or found.status not in ("stable", "bounded"):
        return None
    least = found.growth.least_detectable_rate_per_second
    unseen: tuple[Sentence, ...] = ()
    if found.status == "stable" and least is not None:
        unseen = (
            say("growth above {least} would have been seen", least=amount_rate(found.unit, least)),
        )
    return RuledOut(
        claim=say(cause),
        because=found.bounded_by or found.claim,
        what=found.what,
        brief=say(found.what + " {level}", level=amount(found.unit, found.last))
        if found.status == "stable" or found.growth.reason == "falls-back"
        else None,
        evidence_for=unseen,
    )
