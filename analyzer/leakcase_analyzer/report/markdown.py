"""The answer as Markdown, fit for a bug ticket.

A case may come from a stranger, and a ticket is rendered as a page. So whatever a case says stands
in a code span or a code block, where neither Markdown nor HTML means anything, and a template
expression that did not go through here is escaped as HTML.
"""

from __future__ import annotations

import re
from html import escape
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.report.units import Style, as_sentence, render, shortened
from leakcase_analyzer.report.view import Page, report_view
from leakcase_analyzer.sentences import Sentence


def code_span(text: str) -> str:
    """Text of any content as a code span.

    Its fence is longer than any run of backticks inside, and a bar does not end a table's cell
    (CommonMark 0.31, "Code spans"; GitHub Flavored Markdown, "Tables").
    """
    clean = "".join(c if c.isprintable() else "?" for c in text)
    longest = max((len(run) for run in re.findall("`+", clean)), default=0)
    fence = "`" * (longest + 1)
    space = " " if clean.startswith("`") or clean.endswith("`") or not clean.strip() else ""
    return f"{fence}{space}{clean}{space}{fence}".replace("|", "\\|")


def _name(text: str) -> str:
    return code_span(shortened(text))


MARKDOWN = Style(name=_name, code=code_span)


def markdown_text(analysis: Analysis) -> str:
    """The whole report."""
    source = resources.files(__package__).joinpath("report.md.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_tags,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(source).render(report_view(analysis, PAGE))


def _without_tags(value: object) -> object:
    """Text without tags and entities; quotes do no harm outside of tags, and stay as they are."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return Markup(escape(str(value), quote=False)) if plain else value


def _safe(sentence: Sentence) -> Markup:
    return Markup(render(sentence, MARKDOWN))


def _sentence(sentence: Sentence) -> Markup:
    return Markup(as_sentence(render(sentence, MARKDOWN)))


PAGE = Page(style=MARKDOWN, text=_safe, sentence=_sentence, block=Markup)
