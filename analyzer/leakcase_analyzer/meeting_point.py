"""Where the stacks of several suspects meet: who asks for what they allocate.

A copy of a tree is allocated by many functions for one that keeps it. So beside the functions
that allocate, the innermost one is told that is on the main stacks of nearly all that stays.
"""

from __future__ import annotations

from collections.abc import Sequence

from leakcase_analyzer.code_names import part_of, place, readable, whence
from leakcase_analyzer.findings.suspect import Suspect
from leakcase_analyzer.trace_looks import Frame

#: Of what stays, so much must come by it.
NEARLY_ALL = 0.85
#: Everything meets there, and that says nothing.
OUTERMOST = frozenset({"main", "_start", "<module>", "start_thread", "clone3", "clone"})


def meeting_point(suspects: Sequence[Suspect]) -> tuple[Frame, float] | None:
    """The frame, and the share of what stays whose stacks have it; None where one suspect has
    nearly all of it, or where they meet in nothing but the program's outermost function."""
    staying = [one for one in suspects if one.share is not None]
    if len(staying) < 2 or (staying[0].share or 0.0) >= NEARLY_ALL:
        return None
    shares: dict[tuple[str, str | None], float] = {}
    for one in staying:
        for key in {_key(frame) for frame in one.stack.frames}:
            shares[key] = shares.get(key, 0.0) + (one.share or 0.0)
    for frame in readable(staying[0].stack.frames):
        share = shares[_key(frame)]
        if frame.function is None or part_of(frame) != "own" or share < NEARLY_ALL:
            continue
        first = staying[0].frame
        # Where Python's functions meet in C, it is in what runs them all.
        tells = first is not None and frame.code == first.code
        return (frame, min(1.0, share)) if tells and frame.function not in OUTERMOST else None
    return None


def _key(frame: Frame) -> tuple[str, str | None]:
    """One function, whatever its line."""
    where = whence(frame) if frame.file is None else frame.file
    return place(frame), where
