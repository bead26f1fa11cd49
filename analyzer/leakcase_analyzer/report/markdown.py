"""The answer as Markdown, fit for a bug ticket.

A case may come from a stranger, and a ticket is rendered as a page. So whatever a case says stands
in a code span or a code block, where neither Markdown nor HTML means anything, and a template
expression that did not go through here is escaped as HTML.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.report import facts
from leakcase_analyzer.report.heap_tables import arena_rows, heap_line, size_rows, type_rows
from leakcase_analyzer.report.raw_data import raw_tables
from leakcase_analyzer.report.units import (
    Style,
    as_sentence,
    confidence,
    render,
    share,
    shortened,
    size_interval,
    span,
)
from leakcase_analyzer.sentences import Sentence


def code_span(text: str) -> str:
    """Text of any content as a code span.

    Its fence is longer than any run of backticks inside, and a bar does not end a table's cell
    (CommonMark 0.31, "Code spans"; GitHub Flavored Markdown, "Tables").
    """
    clean = shortened(text)
    longest = max((len(run) for run in re.findall("`+", clean)), default=0)
    fence = "`" * (longest + 1)
    space = " " if clean.startswith("`") or clean.endswith("`") or not clean.strip() else ""
    return f"{fence}{space}{clean}{space}{fence}".replace("|", "\\|")


MARKDOWN = Style(name=code_span, code=code_span)


def markdown_text(analysis: Analysis) -> str:
    """The whole report."""
    source = resources.files(__package__).joinpath("report.md.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(_view(analysis))


def _view(analysis: Analysis) -> dict[str, Any]:
    """All that the template shows, as text that is safe in Markdown."""
    evidence, verdict = analysis.evidence, analysis.verdict
    return {
        "process": Markup(facts.process_name(evidence, MARKDOWN)),
        "headline": _safe(verdict.headline),
        "watched": facts.watched(evidence),
        "status": verdict.status,
        "kind": verdict.kind,
        "confidence": confidence(verdict.confidence),
        "trigger": verdict.trigger,
        "rate": facts.rate_text("bytes", verdict.rate_bytes_per_hour),
        "interval": size_interval(verdict.rate_interval_bytes_per_hour),
        "watch_longer": span(verdict.watch_longer_seconds),
        "environment": [
            (label, Markup(text)) for label, text in facts.process_facts(evidence, MARKDOWN)
        ],
        "trends": [facts.trend_row(trend) for trend in analysis.trends],
        "memory": facts.memory_parts(analysis),
        "heap": heap_line(analysis),
        "arenas": arena_rows(evidence),
        "sizes": [(*figures, Markup(held)) for *figures, held in size_rows(analysis, MARKDOWN)],
        "types": [(Markup(name), *figures) for name, *figures in type_rows(analysis, MARKDOWN)],
        "limits": [_sentence(limit.claim) for limit in analysis.time_to_limits],
        "reasons": [_sentence(reason) for reason in verdict.reasons],
        "growing": [
            (
                one.what,
                "" if one.part_of is None else one.part_of,
                facts.rate_text(one.unit, one.rate_per_hour),
                "" if one.share is None else share(one.share),
            )
            for one in analysis.growing
        ],
        "ruled_out": [
            (_safe(one.claim), [_safe(text) for text in (one.because, *one.evidence_for)])
            for one in analysis.ruled_out
        ],
        "not_seen": [
            (_safe(one.claim), _safe(one.because), _safe(one.effect)) for one in analysis.not_seen
        ],
        "actions": [(_sentence(one.what), _sentence(one.why)) for one in analysis.actions],
        "tables": [(title, Markup(text)) for title, text in raw_tables(analysis)],
    }


def _safe(sentence: Sentence) -> Markup:
    return Markup(render(sentence, MARKDOWN))


def _sentence(sentence: Sentence) -> Markup:
    return Markup(as_sentence(render(sentence, MARKDOWN)))
