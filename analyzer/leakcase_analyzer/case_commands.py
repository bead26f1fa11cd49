"""``leakcase show``, ``verify``, ``recover`` and ``extract``: what can be done with any case.

What these print may come from a hostile file: strings of known fields hold no control characters
(the reader sees to that), all others are escaped here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from leakcase_bundle import Reader
    from leakcase_bundle.recover import Recovery

EXIT_WHOLE = 0
EXIT_NOTHING = 1
EXIT_LOSSY = 3

#: All strings of a month of samples take far less.
MOST_STRING_BYTES = 64 << 20
#: In how many places a string is said to be.
MOST_PLACES = 8

CasePath = Annotated[Path, typer.Argument(metavar="CASE", help="A file written by a capture.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the four commands to the program."""
    app.command("show", short_help="Say what is in a case, and every string (--strings).")(show)
    app.command("verify", short_help="Check whether a case is whole.")(verify)
    app.command("recover", short_help="Save what is intact of a damaged case.")(recover)
    app.command("extract", short_help="Turn a case into plain JSON lines.")(extract)


def show(
    case: CasePath,
    strings: Annotated[
        bool, typer.Option("--strings", help="Print every string that is in the case instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is in a case: when, where and of what it was taken, how much, what is missing."""
    if strings:
        _show_strings(case, as_json)
        return
    from leakcase_analyzer.case_overview import overview_document, overview_text, take_overview
    from leakcase_analyzer.files import open_case
    from leakcase_bundle import Reader

    with open_case(case) as file:
        reader = Reader(file)
        overview = take_overview(reader)
    if as_json:
        _print_json(overview_document(overview, reader))
    else:
        _print(overview_text(overview, reader))


def _show_strings(case: Path, as_json: bool) -> None:
    from leakcase_analyzer.files import open_case
    from leakcase_bundle import Reader

    with open_case(case) as file:
        reader = Reader(file)
        places, is_all = _strings(reader)
    if as_json:
        _print_json(
            [
                {"class": field_class, "text": text, "where": sorted(where)}
                for (field_class, text), where in sorted(places.items())
            ]
        )
    else:
        _print(
            "".join(
                f"{field_class}\t{_escaped(text)}\t{', '.join(map(_escaped, sorted(where)))}\n"
                for (field_class, text), where in sorted(places.items())
            )
        )
    if not is_all:
        _warn("the case holds more strings than are listed here; it is not of our making")
    elif reader.problem_count:
        _warn("parts of the case are damaged: strings in them are not listed. See leakcase verify")
    else:
        return
    raise typer.Exit(EXIT_LOSSY)


def _strings(reader: Reader) -> tuple[dict[tuple[str, str], set[str]], bool]:
    """Every string by class and text, with its places; False where they were too many."""
    from leakcase_bundle.plain import strings as strings_of

    places: dict[tuple[str, str], set[str]] = {}
    room_bytes = MOST_STRING_BYTES
    for _, raw in reader.maps():
        for found in strings_of(raw):
            known = places.setdefault((found.field_class, found.text), set())
            if not known:
                room_bytes -= len(found.text)
            if len(known) < MOST_PLACES and found.place not in known:
                known.add(found.place)
                room_bytes -= len(found.place)
        if room_bytes < 0:
            return places, False
    return places, True


def verify(case: CasePath, as_json: AsJson = False) -> None:
    """Check a case: exit with 0 if it is whole, 3 if damaged but readable, 1 if nothing is."""
    from leakcase_analyzer.case_overview import condition, problem_lines, reading_document
    from leakcase_analyzer.files import open_case
    from leakcase_bundle import Reader

    with open_case(case) as file:
        # Even where the first bytes are damaged, what follows may be readable.
        reader = Reader(file, salvage=True)
        for _ in reader.decoded():
            pass
    word = condition(reader)
    if as_json:
        _print_json(reading_document(reader))
    else:
        lines = [f"{_escaped(str(case))}: {_verdict(word, reader)}"]
        lines += [f"  {line}" for line in problem_lines(reader)]
        if word in ("damaged", "truncated"):
            lines.append(f"leakcase recover {_escaped(str(case))} -o FILE keeps what is intact.")
        _print("\n".join(lines) + "\n")
    raise typer.Exit({"whole": EXIT_WHOLE, "unreadable": EXIT_NOTHING}.get(word, EXIT_LOSSY))


def _verdict(word: str, reader: Reader) -> str:
    from leakcase_analyzer.report.units import count

    intact = f"{count(reader.intact_records, 'record')} in {count(reader.frames, 'frame')}"
    if word == "whole":
        return f"whole: {intact}"
    if word == "unreadable":
        return "nothing in it can be read as a case"
    return f"{word}, but readable: {intact}"


def recover(
    case: CasePath,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where to write the new case.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write all that is intact into a new case: exit 0 if that is all, 3 if not, 1 if nothing."""
    from dataclasses import asdict

    from leakcase_analyzer.files import open_case
    from leakcase_bundle import Reader
    from leakcase_bundle.recover import recover as copy_intact

    with open_case(case) as file:
        recovery = _into_file(
            output, force, lambda descriptor: copy_intact(Reader(file, salvage=True), descriptor)
        )
    if as_json:
        _print_json({**asdict(recovery), "output": str(output) if recovery.records else None})
    elif recovery.records:
        from leakcase_analyzer.report.units import count

        _print(f"{_escaped(str(output))}: {count(recovery.records, 'record')}\n")
    for line in _losses(recovery):
        _warn(line)
    if not recovery.records:
        raise typer.Exit(EXIT_NOTHING)
    raise typer.Exit(EXIT_LOSSY if recovery.is_lossy else EXIT_WHOLE)


def _losses(recovery: Recovery) -> list[str]:
    if not recovery.records:
        return ["nothing in the file can be read as a case; nothing was written"]
    lost = []
    if recovery.missing_frames:
        lost.append(f"frames that are damaged or missing: {recovery.missing_frames:,}")
    if recovery.damaged_records:
        lost.append(f"records that are damaged: {recovery.damaged_records:,}")
    if recovery.was_truncated:
        lost.append("what was written after the last whole frame: not known")
    if recovery.skipped_bytes:
        lost.append(f"bytes that belong to no intact frame: {recovery.skipped_bytes:,}")
    return [f"lost: {line}" for line in lost]


def _into_file(output: Path, force: bool, write: Callable[[int], Recovery]) -> Recovery:
    """Have a new file written, mode 0600; it exists afterwards only if records are in it.

    With `force` it is written beside the old one, which it replaces when it is whole: the old one
    may be the case that is read.
    """
    from leakcase_analyzer.errors import OutputProblem

    path = output.with_name(f".{output.name}.{os.getpid()}") if force else output
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    keep = False
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            recovery = write(descriptor)
            if force and recovery.records:
                path.replace(output)
            keep = recovery.records > 0
        finally:
            os.close(descriptor)
            if not keep:
                path.unlink(missing_ok=True)
    except FileExistsError as error:
        raise OutputProblem(
            f"cannot write {output}: it exists. Replace it with --force, or name another with -o."
        ) from error
    except (OSError, ValueError) as error:
        raise OutputProblem(
            f"cannot write {output}: {_cause(error)}. Name another file with -o."
        ) from error
    return recovery


def extract(
    case: CasePath,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that is empty or does not exist.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write a case as plain JSON lines, a file per kind of record, a line per sample."""
    from leakcase_analyzer.case_extract import MOST_BYTES
    from leakcase_analyzer.case_extract import extract as extract_into
    from leakcase_analyzer.case_overview import reading_document
    from leakcase_analyzer.files import open_case
    from leakcase_bundle import Reader

    with open_case(case) as file:
        reader = Reader(file)
        extracted = extract_into(reader, folder)
    files = {f"{name}.jsonl": lines for name, lines in sorted(extracted.lines.items())}
    if as_json:
        summary = {"folder": str(folder), "files": files, "stopped": extracted.stopped}
        _print_json({**summary, **reading_document(reader)})
    else:
        from leakcase_analyzer.report.units import count

        names = ((_escaped(str(folder / name)), lines) for name, lines in files.items())
        _print("".join(f"{name}: {count(lines, 'line')}\n" for name, lines in names))
    if extracted.stopped:
        _warn(f"the rest was left out: a folder takes {MOST_BYTES >> 30} GiB of a case at most")
    elif reader.problem_count:
        _warn("parts of the case are damaged and were left out. See leakcase verify")
    elif reader.truncated:
        _warn("the case is truncated, as after a kill; all that it holds was extracted")
        return
    else:
        return
    raise typer.Exit(EXIT_LOSSY)


def _escaped(text: str) -> str:
    """Text that cannot steer a terminal, nor be mistaken for two columns."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _cause(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error)).lower()


def _print(text: str) -> None:
    from leakcase_analyzer.files import print_result

    print_result(text)


def _print_json(document: Any) -> None:
    _print(json.dumps(document, indent=2) + "\n")


def _warn(text: str) -> None:
    print(f"leakcase: {text}.", file=sys.stderr)
