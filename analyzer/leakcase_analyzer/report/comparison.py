"""A comparison as text for a terminal, and as JSON for scripts."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.compare import Comparison, PlaceChange
from leakcase_analyzer.report.json_report import finite
from leakcase_analyzer.report.units import WHOLE, confidence, render, shortened, size_rate

SCHEMA = "leakcase-comparison/1"
WIDTH = 80
MOST_PLACES = 8


def comparison_text(found: Comparison) -> str:
    """The outcome first, then both answers, and the places in the code."""
    lines = [*textwrap.wrap(render(found.headline), WIDTH), ""]
    for label, analysis in (("before", found.before), ("after", found.after)):
        verdict = analysis.verdict
        sure = f" (confidence {confidence(verdict.confidence)})" if verdict.confidence else ""
        lines += _wrapped(render(verdict.headline) + sure, f"  {label:<7} ", " " * 10)
    lines += ["", "Why"]
    for reason in found.reasons:
        lines += _wrapped(render(reason), "  - ", "    ")
    if found.places:
        lines += ["", "Who allocates what stays"]
        lines += [f"  - {_place(one)}" for one in found.places[:MOST_PLACES]]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, first: str, following: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=following)


def _place(one: PlaceChange) -> str:
    def rate(value: float | None) -> str:
        return "not seen" if value is None else size_rate(value)

    return f"{shortened(one.place)}: {rate(one.before)} before, {rate(one.after)} after"


def comparison_json(found: Comparison) -> str:
    """Strict JSON, with a line end; described by ``comparison.schema.json``."""
    document = {
        "schema": SCHEMA,
        "outcome": found.outcome,
        "headline": render(found.headline, WHOLE),
        "reasons": [render(reason, WHOLE) for reason in found.reasons],
        "before": _answer(found.before),
        "after": _answer(found.after),
        "suspects": [
            {
                "place": one.place,
                "before_bytes_per_hour": None if one.before is None else one.before * 3600,
                "after_bytes_per_hour": None if one.after is None else one.after * 3600,
            }
            for one in found.places
        ],
    }
    return json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _answer(analysis: Analysis) -> dict[str, Any]:
    verdict = analysis.verdict
    return {
        "status": verdict.status,
        "kind": verdict.kind,
        "confidence": verdict.confidence,
        "headline": render(verdict.headline, WHOLE),
        "rate_bytes_per_hour": verdict.rate_bytes_per_hour,
        "rate_interval_bytes_per_hour": verdict.rate_interval_bytes_per_hour,
        "window_seconds": analysis.evidence.window_seconds,
    }
