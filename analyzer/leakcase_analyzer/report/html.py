"""The answer as one HTML page that needs nothing else and lets nothing else in.

A case may come from a stranger. All of it is escaped; and should that ever fail, the page's own
policy (Content Security Policy Level 3) allows no script, no picture, no request, and only the
style sheet whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.code_names import place
from leakcase_analyzer.export.flame_page import flame_svg
from leakcase_analyzer.export.weighted import weighted_stacks
from leakcase_analyzer.report import facts
from leakcase_analyzer.report.svg_charts import Living, memory_chart, survival_chart
from leakcase_analyzer.report.units import PLAIN, Style, quantity, shortened
from leakcase_analyzer.report.view import Page, report_view
from leakcase_analyzer.sentences import Sentence

MOST_LINES = 3


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def _name(text: str) -> Markup:
    return _code(shortened(text))


HTML = Style(name=_name, code=_code)


def _text(sentence: Sentence) -> Markup:
    """The template is our own, and is escaped all the same: it may say "<"."""
    parts = {key: quantity(value, HTML) for key, value in sentence.quantities}
    return Markup(escape(sentence.template)).format(**parts)


def _sentence(sentence: Sentence) -> Markup:
    text = _text(sentence)
    first = str(text[:1]).upper() if not text.startswith(("<", "&")) else str(text[:1])
    return Markup(first) + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


PAGE = Page(style=HTML, text=_text, sentence=_sentence, block=str)


def html_text(analysis: Analysis) -> str:
    """The whole page."""
    style = _resource("report.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_resource("report.html.jinja")).render(
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
        title=f"Memory of {facts.process_name(analysis.evidence, PLAIN)}",
        memory_chart=_memory_chart(analysis),
        chart_of=_chart_of(analysis),
        survival_chart=_survival_chart(analysis),
        flame_graph=_flame_graph(analysis),
        **report_view(analysis, PAGE),
    )


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _chart_of(analysis: Analysis) -> str:
    """What the first chart shows."""
    main = analysis.verdict.main
    what = "" if main is None else main.what[:1].upper() + main.what[1:] + " over time"
    traced = any(not one.outstanding and not one.maps for one in analysis.evidence.tracing.windows)
    return what + ("; allocations were watched where it is shaded" if traced else "")


def _memory_chart(analysis: Analysis) -> Markup | None:
    main = analysis.verdict.main
    if main is None:
        return None
    windows = [
        (one.seconds, one.duration_seconds)
        for one in analysis.evidence.tracing.windows
        if not one.outstanding and not one.maps
    ]
    return memory_chart(
        main.track.seconds, main.track.values, windows, in_bytes=main.unit == "bytes"
    )


def _survival_chart(analysis: Analysis) -> Markup | None:
    found = analysis.code
    if found is None:
        return None
    shown = [*found.suspects[:MOST_LINES], *found.passing[:2]]
    return survival_chart(
        [
            Living("unknown code" if one.frame is None else place(one.frame), one.curve)
            for one in shown
        ]
    )


def _flame_graph(analysis: Analysis) -> Markup | None:
    """None where nothing stayed, or nobody watched."""
    if analysis.code is None or not analysis.code.suspects:
        return None
    return Markup(flame_svg(analysis, weighted_stacks(analysis)))
