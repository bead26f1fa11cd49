"""``leakcase``: the command line. Only here does an error become an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from leakcase_analyzer import case_commands, compare_command, export_command
from leakcase_analyzer.debug_option import DebugInfo
from leakcase_analyzer.errors import AnalyzerError, UsageProblem

if TYPE_CHECKING:
    from leakcase_analyzer.analysis import Analysis

EXIT_MATCHED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
STATUSES = ("leak", "retention", "bounded", "stable", "undecided")
FORMATS = ("markdown", "html", "json")

app = typer.Typer(
    name="leakcase",
    help="Why does this process eat memory? Open a case and get an answer in plain words.",
    epilog="Exit status: 0 done; 1 only with --fail-on; 2 usage, or a case that cannot be read; "
    "130 interrupted. A case is made with leakcase-collect capture PID.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
CasePath = Annotated[Path, typer.Argument(metavar="CASE", help="A file written by a capture.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
FailOn = Annotated[
    Optional[str],
    typer.Option(
        metavar="STATUS,...", help="Exit with 1 if the answer is one of: " + ", ".join(STATUSES)
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"leakcase {version('leakcase')}")
        except PackageNotFoundError:
            typer.echo("leakcase (run from its source, not installed)")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command("analyze")
def analyze_command(
    case: CasePath,
    as_json: AsJson = False,
    fail_on: FailOn = None,
    debug_info: DebugInfo = None,
) -> None:
    """Say whether it leaks: what, how fast, how sure."""
    matched = _statuses(fail_on)
    analysis = _analysis(case, debug_info)
    _print_answer(analysis, as_json)
    if analysis.verdict.status in matched:
        raise typer.Exit(EXIT_MATCHED)


@app.command("report")
def report_command(
    case: CasePath,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="One of: " + ", ".join(FORMATS))
    ] = "markdown",
    output: Annotated[
        Optional[Path],
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to write (memleak-report-PROCESS-DATE); - is the terminal.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    debug_info: DebugInfo = None,
) -> None:
    """Write a report that fits a bug ticket."""
    from leakcase_analyzer.files import print_result, write_report
    from leakcase_analyzer.report.facts import report_name

    if format_ not in FORMATS:
        raise UsageProblem(
            f"--format {format_}: there is no such format; the formats are {', '.join(FORMATS)}."
        )
    analysis = _analysis(case, debug_info)
    if format_ == "json":
        from leakcase_analyzer.report.json_report import json_text

        text, extension = json_text(analysis), "json"
    elif format_ == "html":
        from leakcase_analyzer.report.html import html_text

        text, extension = html_text(analysis), "html"
    else:
        from leakcase_analyzer.report.markdown import markdown_text

        text, extension = markdown_text(analysis), "md"
    if output is not None and str(output) == "-":
        print_result(text)
        return
    path = output or Path(report_name(analysis.evidence, extension))
    write_report(path, text, force=force)
    print_result(f"{path}\n")


@app.command("investigate", context_settings={"ignore_unknown_options": True})
def investigate_command(
    capture: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="PID|NAME",
            help="The process, and any option of leakcase-collect capture.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    fail_on: FailOn = None,
) -> None:
    """Capture and analyze in one go, on one machine."""
    from leakcase_analyzer.investigate import capture_case

    matched = _statuses(fail_on)
    status, case = capture_case(capture or [])
    if case is None:
        raise typer.Exit(status)
    analysis = _analysis(case)
    _print_answer(analysis, as_json)
    raise typer.Exit(EXIT_MATCHED if analysis.verdict.status in matched else status)


case_commands.register(app)
export_command.register(app)
compare_command.register(app)


def _analysis(case: Path, debug_info: Sequence[Path] | None = None) -> Analysis:
    from leakcase_analyzer.analysis import analyze
    from leakcase_analyzer.files import open_case
    from leakcase_analyzer.symbols.debug_files import DebugFiles

    debug_files = DebugFiles(debug_info or ())
    with open_case(case) as file:
        return analyze(file, debug_files)


def _print_answer(analysis: Analysis, as_json: bool) -> None:
    from leakcase_analyzer.files import print_result

    if as_json:
        from leakcase_analyzer.report.json_report import json_text

        print_result(json_text(analysis))
        return
    from leakcase_analyzer.report.terminal import terminal_text

    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    print_result(terminal_text(analysis, colour=_wants_colour(), unicode=encoding == "utf8"))


def _wants_colour() -> bool:
    """NO_COLOR (no-color.org) beats FORCE_COLOR, which beats that stdout is no terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def _statuses(fail_on: str | None) -> frozenset[str]:
    wanted = frozenset(part.strip() for part in (fail_on or "").split(",") if part.strip())
    for word in sorted(wanted - set(STATUSES)):
        raise UsageProblem(
            f"--fail-on {word}: there is no such status; the statuses are {', '.join(STATUSES)}."
        )
    return wanted


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status and lets no traceback out."""
    # A name in a case may hold what this terminal's encoding cannot print.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=None if argv is None else list(argv))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    except AnalyzerError as error:
        print(f"leakcase: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  # The last wall: a user is owed a sentence.
        if os.environ.get("LEAKCASE_DEBUG"):
            traceback.print_exc()
        print(
            f"leakcase: this is a defect of leakcase ({type(error).__name__}). Please report it "
            "with what LEAKCASE_DEBUG=1 prints.",
            file=sys.stderr,
        )
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
