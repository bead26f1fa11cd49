"""What a written report shows, as text that is safe in its kind of page.

Markdown and HTML differ in how a name from a case is made harmless, and in nothing else: both
templates get the same view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.report import facts
from leakcase_analyzer.report.code_tables import (
    calls_line,
    meeting_line,
    stack_lines,
    suspect_name,
    suspect_rows,
)
from leakcase_analyzer.report.heap_tables import (
    arena_rows,
    heap_line,
    size_rows,
    told_rows,
    type_rows,
)
from leakcase_analyzer.report.raw_data import raw_tables
from leakcase_analyzer.report.units import Style, confidence, share, size_interval, span
from leakcase_analyzer.sentences import Sentence

MOST_STACKS = 3
ASIDE = "What grows lies in the collected heap, which the calls below do not fill."


@dataclass(frozen=True)
class Page:
    """How a kind of page writes names, sentences, and blocks of plain text."""

    style: Style
    """Its names are safe as they are."""
    text: Callable[[Sentence], Markup]
    sentence: Callable[[Sentence], Markup]
    """With a capital letter and a full stop."""
    block: Callable[[str], str]
    """Lines for a block of plain text; what is not Markup is escaped as HTML."""


def report_view(analysis: Analysis, page: Page) -> dict[str, Any]:
    """All that a template shows."""
    evidence, verdict = analysis.evidence, analysis.verdict
    return {
        "process": Markup(facts.process_name(evidence, page.style)),
        "headline": page.text(verdict.headline),
        "behaviour": _behaviour(analysis),
        "status": verdict.status,
        "environment": [
            (label, Markup(text)) for label, text in facts.process_facts(evidence, page.style)
        ],
        "trends": [facts.trend_row(trend) for trend in analysis.trends],
        "memory": facts.memory_parts(analysis),
        "heap": heap_line(analysis),
        "arenas": arena_rows(evidence),
        "told": told_rows(evidence),
        "sizes": [(*figures, Markup(held)) for *figures, held in size_rows(analysis, page.style)],
        "types": [(Markup(name), *figures) for name, *figures in type_rows(analysis, page.style)],
        "limits": [page.sentence(limit.claim) for limit in analysis.time_to_limits],
        "reasons": [page.sentence(reason) for reason in verdict.reasons],
        "growing": [
            (
                one.what,
                "" if one.part_of is None else one.part_of,
                facts.rate_text(one.unit, one.rate_per_hour),
                "" if one.share is None else share(one.share),
            )
            for one in analysis.growing
        ],
        "code": _code(analysis, page),
        "ruled_out": [
            (page.text(one.claim), [page.text(text) for text in (one.because, *one.evidence_for)])
            for one in analysis.ruled_out
        ],
        "not_seen": [
            (page.text(one.claim), page.text(one.because), page.text(one.effect))
            for one in analysis.not_seen
        ],
        "actions": [(page.sentence(one.what), page.sentence(one.why)) for one in analysis.actions],
        "tables": [(title, page.block(text)) for title, text in raw_tables(analysis)],
    }


def _behaviour(analysis: Analysis) -> list[tuple[str, str]]:
    """What is known of the answer: label and text."""
    verdict = analysis.verdict
    rows = [
        ("watched", facts.watched(analysis.evidence)),
        ("answer", f"{verdict.status}, kind: {verdict.kind}"),
    ]
    if verdict.confidence:
        rows.append(("confidence", confidence(verdict.confidence)))
    if verdict.rate_bytes_per_hour is not None:
        rate = facts.rate_text("bytes", verdict.rate_bytes_per_hour)
        between = size_interval(verdict.rate_interval_bytes_per_hour)
        rows.append(("growth of memory", f"{rate} (95 %: {between})"))
    if verdict.status == "leak":
        rows.append(("grows when", verdict.trigger))
    if verdict.watch_longer_seconds is not None:
        rows.append(("watch longer", span(verdict.watch_longer_seconds)))
    return rows


def _code(analysis: Analysis, page: Page) -> dict[str, Any] | None:
    """Who allocates what stays; None where nobody watched."""
    found = analysis.code
    if found is None:
        return None
    return {
        "claim": page.sentence(found.claim),
        "meeting": Markup(meeting_line(found.suspects, page.style) or ""),
        "aside": ASIDE if found.aside else "",
        "calls": calls_line(analysis),
        "rows": [
            (Markup(function), Markup(where), *figures)
            for function, where, *figures in suspect_rows(analysis, page.style)
        ],
        "stacks": [
            {
                "name": Markup(suspect_name(one, page.style)),
                "confidence": confidence(one.confidence),
                "evidence": [page.sentence(sentence) for sentence in one.evidence],
                "lines": page.block("\n".join(stack_lines(one))),
            }
            for one in found.suspects[:MOST_STACKS]
        ],
    }
