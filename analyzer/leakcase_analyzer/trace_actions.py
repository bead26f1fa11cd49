"""What to do about the code that allocates what stays, or to find it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leakcase_analyzer.action import Action
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding
from leakcase_analyzer.findings.source_lines import NoLines
from leakcase_analyzer.findings.suspect import Suspect, Suspects
from leakcase_analyzer.findings.suspect_words import named
from leakcase_analyzer.findings.unreachable import MOST_OF_IT, Unreachable
from leakcase_analyzer.kinds import first_of_type
from leakcase_analyzer.sentences import Code, Sentence, Share, Span, say

#: Blocks that were followed for less long than this may be a cache's all the same.
LONG_SECONDS = 300.0
#: A capture in which blocks can be followed for that long.
LONG_CAPTURE = "15m"
HOW = "--trace bursts --allow read-memory,trace"
#: Kinds whose memory is asked for by code that can be watched.
TRACED_KINDS = frozenset({"heap", "managed-heap", "mmap", "other"})


def look_at_code(findings: Sequence[Finding], kind: str) -> Iterator[Action]:
    """Where to begin in the program; nothing where allocations were not traced."""
    found = first_of_type(findings, Suspects)
    if found is None or found.aside or kind not in TRACED_KINDS or not found.suspects:
        return
    first = found.suspects[0]
    if first.frame is not None and first.fate != "early":
        yield _look(first, findings)
    without = first_of_type(findings, NoLines)
    has_line = first.frame is not None and first.frame.line is not None
    if without is not None and without.build_id is not None and not has_line:
        yield Action(
            say(
                "have source lines named: {command}",
                command=Code("leakcase analyze CASE --debug-info DIR"),
            ),
            say(
                "where DIR holds the binary with build-id {build} and debug information, or its "
                "debug file",
                build=Code(without.build_id),
            ),
        )
    if found.basis == "survivors" and found.followed_seconds < LONG_SECONDS:
        yield Action(
            say(
                "capture for longer, so that blocks are followed to a greater age: {command}",
                command=Code(f"leakcase-collect capture PID {HOW} --duration {LONG_CAPTURE}"),
            ),
            say(
                "up to {age} a cache whose entries live longer looks the same",
                age=Span(found.followed_seconds),
            ),
        )


def _look(first: Suspect, findings: Sequence[Finding]) -> Action:
    what, names = named(first.frame)
    why, share = "{share} of what stays is allocated there", Share(first.share or 0.0)
    return Action(
        say("look at " + what + _who_keeps(findings), **names),
        say(why, share=share) if first.share is not None else Sentence("its blocks stay"),
    )


def _who_keeps(findings: Sequence[Finding]) -> str:
    """What references say about what is missing."""
    found = first_of_type(findings, Unreachable)
    if found is None:
        return ": which of its blocks are freed nowhere, or kept in a list, map or cache?"
    if found.certain and (found.explained_share or 0.0) >= MOST_OF_IT:
        return ": nothing refers to its blocks any more, so a free or delete is missing"
    if (found.explained_share or 0.0) < 1 - MOST_OF_IT:
        return ": its blocks are kept by something that refers to them, a list, map or cache"
    return ": some of its blocks nothing refers to any more"


def trace_it(evidence: Evidence, findings: Sequence[Finding], kind: str) -> Iterator[Action]:
    """How to learn which code it is, where that was not watched."""
    allowed = () if evidence.header is None else evidence.header.levels
    if "trace" in allowed or kind not in TRACED_KINDS or _is_core(evidence):
        return
    yield Action(
        say(
            "capture it once more: {command}",
            command=Code(f"leakcase-collect capture PID {HOW}"),
        ),
        say("watched for moments at a time, it is told which functions allocate what stays"),
    )


def _is_core(evidence: Evidence) -> bool:
    return evidence.header is not None and bool(evidence.header.core)
