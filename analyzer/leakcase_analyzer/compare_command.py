"""``leakcase compare``: did a change help?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("compare", short_help="Say what became of a leak after a change.")(compare)


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A case of before the change.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="A case of after it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say what became of a leak: fixed, improved, same, worse, new-leak or undecided."""
    from leakcase_analyzer.analysis import analyze
    from leakcase_analyzer.compare import compare as compare_analyses
    from leakcase_analyzer.files import open_case, print_result
    from leakcase_analyzer.report.comparison import comparison_json, comparison_text

    with open_case(before) as file:
        first = analyze(file)
    with open_case(after) as file:
        second = analyze(file)
    found = compare_analyses(first, second)
    print_result(comparison_json(found) if as_json else comparison_text(found))
