"""The flame graph of a case, with what it shows in its head."""

from __future__ import annotations

from collections.abc import Sequence

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.export.flame_graph import flame_graph
from leakcase_analyzer.export.flame_tree import flame_tree
from leakcase_analyzer.export.weighted import Weighted
from leakcase_analyzer.report.facts import process_name, watched
from leakcase_analyzer.report.units import render


def flame_svg(analysis: Analysis, stacks: Sequence[Weighted]) -> str:
    """The graph of what stayed."""
    title = f"What stays in memory of {process_name(analysis.evidence)}, by who allocated it"
    claim = "" if analysis.code is None else render(analysis.code.claim)
    return flame_graph(flame_tree(stacks), title, claim or watched(analysis.evidence))
