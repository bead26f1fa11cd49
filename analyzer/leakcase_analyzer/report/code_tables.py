"""Who allocates what stays, as lines and rows."""

from __future__ import annotations

from collections.abc import Sequence

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.code_names import in_full, place, readable, whence
from leakcase_analyzer.findings.suspect import Suspect
from leakcase_analyzer.meeting_point import meeting_point
from leakcase_analyzer.report.units import PLAIN, Style, share, shortened, size, size_rate, span
from leakcase_analyzer.series.survival import Curve

MOST_ROWS = 12
MOST_FRAMES = 40
MOST_CALLS = 6
NO_CODE = "unknown code"
FATES = {
    "stays": "stays",
    "dies": "freed later",
    "unclear": "not clear",
    "early": "set up early, does not grow",
}


def suspect_name(one: Suspect, style: Style = PLAIN) -> str:
    """The function and where it is."""
    return NO_CODE if one.frame is None else style.name(in_full(one.frame))


def rate_of(one: Suspect) -> str:
    """What its blocks add; empty where that is not known."""
    return "" if one.bytes_per_second is None else size_rate(one.bytes_per_second)


def survival_line(found: Curve) -> str:
    """The shares alive at the first age that was looked at, at the last, and one between where
    they fall."""
    steps = [
        (share(alive), span(age))
        for age, alive in zip(found.ages_seconds, found.alive_shares, strict=True)
    ]
    if not steps:
        return ""
    falls = [step for step in steps[1:-1] if step[0] not in (steps[0][0], steps[-1][0])]
    shown = dict.fromkeys([steps[0], *falls[len(falls) // 2 :][:1], steps[-1]])
    return ", ".join(f"{alive} at {age}" for alive, age in shown)


def survival_end(found: Curve) -> str:
    """The share alive at the last age that was looked at."""
    return f"{share(found.last_share)} alive at {span(found.last_age_seconds)}"


def calls_line(analysis: Analysis) -> str | None:
    """What to say of the allocator: how often it is called, and what watching all would cost; None
    where that was not seen."""
    rates = analysis.evidence.tracing.rates
    if not rates or not rates[-1][1].window_ns:
        return None
    last = rates[-1][1]
    seconds = last.window_ns / 1e9
    calls = sorted(zip(last.calls, last.calls_of, strict=True), reverse=True)
    parts = [f"{shortened(call)} {number / seconds:,.0f}" for number, call in calls if number]
    if not parts:
        return None
    line = "is called this often a second: " + ", ".join(parts[:MOST_CALLS])
    if last.predicted_slowdown_ppm is not None:
        line += (
            f"; watching every one would cost {share(last.predicted_slowdown_ppm / 1e6)} more CPU"
        )
    return line


def suspect_rows(analysis: Analysis, style: Style = PLAIN) -> list[tuple[str, ...]]:
    """Function, where, share of what stays, rate, what stayed, what became of it."""
    found = analysis.code
    if found is None:
        return []
    return [
        (
            NO_CODE if one.frame is None else style.name(place(one.frame)),
            "" if one.frame is None or whence(one.frame) is None
            else style.name(whence(one.frame) or ""),
            "" if one.share is None else share(one.share),
            rate_of(one),
            f"{size(one.held_bytes)} in {one.blocks:,.0f} of {one.followed:,.0f}",
            survival_line(one.curve) or FATES[one.fate],
        )
        for one in (*found.suspects, *found.passing)[:MOST_ROWS]
    ]  # fmt: skip


def callers_line(one: Suspect, width: int) -> str:
    """Who calls the suspect, from the inside outwards, as many as fit; empty where none is told.

    Each function once, and what has no name only where nothing has one.
    """
    frames = readable(one.stack.frames)
    inside = frames.index(one.frame) + 1 if one.frame in frames else 0
    outer = [frame for frame in frames[inside:] if frame.function is not None]
    names = list(dict.fromkeys(shortened(place(frame)) for frame in outer or frames[inside:]))
    own = "" if one.frame is None else shortened(place(one.frame))
    line = ""
    for name in names:
        if name == own:
            continue
        longer = (line + ", " if line else "called by ") + name
        if len(longer) > width - 3:
            return line + ", …" if line else longer[: width - 1] + "…"
        line = longer
    return line


def meeting_line(suspects: Sequence[Suspect], style: Style = PLAIN) -> str | None:
    """Where the stacks of several suspects meet; None where that says nothing."""
    found = meeting_point(suspects)
    if found is None:
        return None
    frame, of_all = found
    return f"{share(of_all)} of what stays is asked for by way of {style.name(in_full(frame))}"


def stack_lines(one: Suspect) -> list[str]:
    """A suspect's main stack from the innermost frame outwards, one frame in a line."""
    frames = one.stack.frames
    # A name from a case never begins a line: there it might end a block of Markdown.
    lines = [f"#{n:<2} {shortened(in_full(frame))}" for n, frame in enumerate(frames[:MOST_FRAMES])]
    if len(frames) > MOST_FRAMES:
        lines.append(f"and {len(frames) - MOST_FRAMES} more")
    return lines
