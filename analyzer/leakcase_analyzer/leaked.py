"""What it means for the answer that nothing refers to memory any more, or that something does.

A series shows that memory grows and a census of what size; whether that is a cache that fills, or
blocks that nobody can free any more, references tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from leakcase_analyzer.choosing import Choice
from leakcase_analyzer.findings.base import Finding
from leakcase_analyzer.findings.unreachable import MOST_OF_IT, Unreachable
from leakcase_analyzer.kinds import first_of_type
from leakcase_analyzer.sentences import Size, Span, say

#: How sure it is that a series which rises for good leaks, where what it rises by is unreachable;
#: and one of which that is not sure.
RISING_CONFIDENCE, OPEN_CONFIDENCE = 0.97, 0.85


def heed_references(choice: Choice, findings: Sequence[Finding]) -> Choice:
    """Growth that nothing refers to is a leak, and surely so; any other choice stays."""
    found = first_of_type(findings, Unreachable)
    if found is None or not found.certain or choice.main.subject != "anonymous":
        return choice
    if (found.explained_share or 0.0) < MOST_OF_IT:
        return choice
    if choice.status == "leak":
        return replace(choice, confidence=max(choice.confidence, RISING_CONFIDENCE))
    if choice.status != "undecided":
        return choice
    return replace(
        choice,
        status="leak",
        watch_longer_seconds=None,
        bound=None,
        confidence=OPEN_CONFIDENCE,
        headline=say(
            "Leak: nothing refers any more to {leaked} of the heap, most of the {grown} that were "
            "added in {window} among it.",
            leaked=Size(found.size_bytes),
            grown=Size(found.growth_bytes or 0),
            window=Span(choice.main.growth.window_seconds),
        ),
    )
