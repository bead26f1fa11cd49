"""Two cases of one program, before and after a change: did it help?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.code_names import in_full, place, whence
from leakcase_analyzer.findings.base import Trend
from leakcase_analyzer.findings.trends import amount_rate
from leakcase_analyzer.sentences import Name, Sentence, Share, Span, say
from leakcase_analyzer.trace_looks import Frame

Outcome: TypeAlias = Literal["fixed", "improved", "same", "worse", "new-leak", "undecided"]

#: An answer that is less sure is no ground to compare on.
LEAST_CONFIDENCE = 0.5
#: Rates whose intervals overlap, or that differ by less, are the same.
LEAST_CHANGE = 0.2
#: With less than this of the CPU that it used before it may leak less only because it did less.
LEAST_WORK = 0.25
#: A place in the code with less of what stays is not compared.
LEAST_SHARE = 0.05


@dataclass(frozen=True)
class PlaceChange:
    """What one place in the code adds, in bytes per second; None: it is none of the suspects."""

    place: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Comparison:
    """The outcome, why, and what became of each place in the code."""

    outcome: Outcome
    headline: Sentence
    reasons: tuple[Sentence, ...]
    places: tuple[PlaceChange, ...]
    before: Analysis
    after: Analysis


def compare(before: Analysis, after: Analysis) -> Comparison:
    """What became of the leak of `before`, if it was one."""
    outcome, headline = _outcome(before, after)
    work = _work(before, after)
    if outcome in ("fixed", "improved") and work is not None and work < LEAST_WORK:
        outcome = "undecided"
        headline = say(
            "Undecided: it grows less, but it also worked less: it used {share} of the CPU that it "
            "used before. Capture it again under the same load.",
            share=Share(work),
        )
    return Comparison(
        outcome=outcome,
        headline=headline,
        reasons=tuple(_reasons(before, after, work)),
        places=tuple(_places(before, after)),
        before=before,
        after=after,
    )


def _outcome(before: Analysis, after: Analysis) -> tuple[Outcome, Sentence]:
    old, new = before.verdict, after.verdict
    for verdict, which in ((old, "before"), (new, "after")):
        if verdict.status == "undecided" or verdict.confidence < LEAST_CONFIDENCE:
            return "undecided", say(
                f"Undecided: the answer about the case of {which} is not sure. Watch longer."
            )
    if old.status != "leak" and new.status != "leak":
        return "same", say("The same: neither of the two leaks.")
    if old.status != "leak":
        return "new-leak", say("A new leak: it did not leak before, and does now.")
    if new.status != "leak":
        return _gone(before, after)
    if old.kind != new.kind:
        return "new-leak", say(
            f"A new leak: of kind {new.kind} now, where it was of kind {old.kind}."
        )
    return _elsewhere(before, after) or _rates(old.main, new.main)


def _elsewhere(before: Analysis, after: Analysis) -> tuple[Outcome, Sentence] | None:
    """A new leak, where other code than before allocates what stays; None: that is not known."""
    one = None if before.code is None else before.code.leading
    other = None if after.code is None else after.code.leading
    if one is None or other is None or one.frame is None or other.frame is None:
        return None
    if key(one.frame) in _suspects(after) or key(other.frame) in _suspects(before):
        return None
    return "new-leak", say(
        "A new leak: what stays now is allocated in {now}; what was allocated in {then} before "
        "stays no more.",
        now=Name(in_full(other.frame)),
        then=Name(in_full(one.frame)),
    )


def _gone(before: Analysis, after: Analysis) -> tuple[Outcome, Sentence]:
    """Fixed, if the second watch would have shown such a leak."""
    old, new = before.verdict.main, after.verdict.main
    rate = None if old is None else old.growth.rate_per_second
    least = None if new is None else new.growth.least_detectable_rate_per_second
    same_unit = old is not None and new is not None and old.unit == new.unit
    if rate is not None and least is not None and same_unit and old is not None and least > rate:
        return "undecided", say(
            "Undecided: no growth was seen after, but that watch would have shown growth above "
            "{least} only, and it was {rate}. Watch longer.",
            least=amount_rate(old.unit, least),
            rate=amount_rate(old.unit, rate),
        )
    if rate is None or old is None:
        return "fixed", say("Fixed: it leaked before, and does not now.")
    return "fixed", say(
        "Fixed: it leaked {rate} before, and does not now.", rate=amount_rate(old.unit, rate)
    )


def _rates(old: Trend | None, new: Trend | None) -> tuple[Outcome, Sentence]:
    if old is None or new is None or old.unit != new.unit:
        return "undecided", say("Undecided: the rates of the two cannot be compared.")
    a, b = old.growth, new.growth
    if a.rate_per_second is None or b.rate_per_second is None or a.rate_per_second <= 0:
        return "undecided", say("Undecided: the rates of the two are not known.")
    before = amount_rate(old.unit, a.rate_per_second)
    after = amount_rate(new.unit, b.rate_per_second)
    change = b.rate_per_second / a.rate_per_second - 1
    apart = (a.rate_low is not None and b.rate_high is not None and b.rate_high < a.rate_low) or (
        a.rate_high is not None and b.rate_low is not None and b.rate_low > a.rate_high
    )
    if not apart or abs(change) < LEAST_CHANGE:
        return "same", say(
            "The same: it leaks {after}, and leaked {before} before.", before=before, after=after
        )
    if change < 0:
        return "improved", say(
            "Improved, not fixed: it leaks {after}, {share} less than the {before} before.",
            before=before,
            after=after,
            share=Share(-change),
        )
    return "worse", say(
        "Worse: it leaks {after}, {share} more than the {before} before.",
        before=before,
        after=after,
        share=Share(change),
    )


def _work(before: Analysis, after: Analysis) -> float | None:
    """CPU per second after, as a share of that before; None: not known."""
    old, new = _cpu_share(before), _cpu_share(after)
    return None if old is None or new is None or old <= 0 else new / old


def _cpu_share(analysis: Analysis) -> float | None:
    main = analysis.verdict.main
    cpu = None if main is None else main.track.cpu_seconds
    if main is None or cpu is None or main.track.window_seconds <= 0:
        return None
    return float(cpu[-1] - cpu[0]) / main.track.window_seconds


def _reasons(before: Analysis, after: Analysis, work: float | None) -> Iterator[Sentence]:
    one, other = before.evidence.program, after.evidence.program
    names = [
        str(found.target.name) if found.target is not None else ""
        for found in (before.evidence, after.evidence)
    ]
    if names[0] != names[1]:
        yield say(
            "the two cases may be of different programs: {before} and {after}",
            before=Name(names[0]),
            after=Name(names[1]),
        )
    if one is not None and other is not None and one.build_id is not None:
        same = one.build_id == other.build_id
        yield say("it is the very same build" if same else "the program was built anew in between")
    if work is not None:
        yield say("it used {share} of the CPU that it used before", share=Share(work))
    yield say(
        "watched for {before} before and for {after} after",
        before=Span(before.evidence.window_seconds),
        after=Span(after.evidence.window_seconds),
    )


def _places(before: Analysis, after: Analysis) -> Iterator[PlaceChange]:
    old, new = _suspects(before), _suspects(after)
    names = {**old, **new}
    rates = {one: (old.get(one, (None,))[-1], new.get(one, (None,))[-1]) for one in names}
    for one in sorted(names, key=lambda one: -(rates[one][1] or 0.0)):
        yield PlaceChange(str(names[one][0]), *rates[one])


def key(frame: Frame) -> tuple[str, str]:
    """What a place is known by in another build: the line may be another there."""
    where = whence(frame) or ""
    return place(frame), where.rsplit(":", 1)[0] if frame.line is not None else where


def _suspects(analysis: Analysis) -> dict[tuple[str, str], tuple[str, float | None]]:
    """By its key each place in full, and what it adds."""
    found = () if analysis.code is None or analysis.code.aside else analysis.code.suspects
    return {
        key(one.frame): (in_full(one.frame), one.bytes_per_second)
        for one in found
        if one.frame is not None and (one.share or 0.0) >= LEAST_SHARE
    }
