"""``leakcase export``: the traced stacks of a case for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakcase_analyzer.debug_option import DebugInfo
from leakcase_analyzer.errors import UsageProblem

if TYPE_CHECKING:
    from leakcase_analyzer.analysis import Analysis

FORMATS = ("folded", "speedscope", "pprof", "svg")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("export", short_help="Write the stacks for another tool, or a flame graph.")(export)


def export(
    case: Annotated[Path, typer.Argument(metavar="CASE", help="A file written by a capture.")],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="One of: " + ", ".join(FORMATS))
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Where to write; - is standard output."
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    debug_info: DebugInfo = None,
) -> None:
    """Write who allocates what stays for another tool, or as a flame graph."""
    from leakcase_analyzer.analysis import analyze
    from leakcase_analyzer.files import open_case, print_bytes, write_bytes
    from leakcase_analyzer.symbols.debug_files import DebugFiles

    if to not in FORMATS:
        raise UsageProblem(
            f"--to {to}: there is no such format; the formats are {', '.join(FORMATS)}."
        )
    debug_files = DebugFiles(debug_info or ())
    with open_case(case) as file:
        analysis = analyze(file, debug_files)
    content = exported(analysis, to)
    if str(output) == "-":
        print_bytes(content)
    else:
        write_bytes(output, content, force=force)


def exported(analysis: Analysis, to: str) -> bytes:
    """The file's content. Raises UsageProblem where there is nothing to export."""
    from leakcase_analyzer.export.weighted import weighted_stacks
    from leakcase_analyzer.report.facts import process_name

    stacks = weighted_stacks(analysis)
    if to == "pprof":
        from leakcase_analyzer.export.pprof import pprof_bytes

        header = analysis.evidence.header
        return pprof_bytes(stacks, 0 if header is None else header.wall_ns)
    if to == "folded":
        from leakcase_analyzer.export.folded import folded_text

        return folded_text(stacks).encode("utf-8", "replace")
    if to == "speedscope":
        from leakcase_analyzer.export.speedscope import speedscope_text

        return speedscope_text(stacks, process_name(analysis.evidence)).encode("utf-8", "replace")
    from leakcase_analyzer.export.flame_page import flame_svg

    return flame_svg(analysis, stacks).encode("utf-8", "replace")
