"""Whether the suspects' code could be named by its lines, and how to have it so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from leakcase_analyzer.code_names import basename
from leakcase_analyzer.findings.base import NotSeen
from leakcase_analyzer.findings.suspect import Suspects
from leakcase_analyzer.sentences import Code, Name, Quantity, say
from leakcase_analyzer.trace_looks import Frame, Tracing

_BECAUSE = {
    "missing": "no file with its build-id {build} and debug information was found",
    "no-symbolizer": "neither {first} nor {second} nor the Python package {third} is installed",
    "failed": "its debug information could not be read",
    None: "it has no build-id by which the right file could be found",
}
_READERS: dict[str, Quantity] = {
    "first": Code("llvm-symbolizer"),
    "second": Code("addr2line"),
    "third": Code("symbolic"),
}


@dataclass(frozen=True, kw_only=True)
class NoLines(NotSeen):
    """That the first suspect's line is not known."""

    build_id: str | None
    """Whose debug information would tell it; None: that would not help."""


def source_lines(tracing: Tracing, found: Suspects) -> Iterator[NoLines]:
    """Said once, of the first suspect that it is true of; nothing where lines were not sought."""
    if tracing.line_gaps is None:
        return
    frames = (one.frame for one in found.suspects)
    frame = next((one for one in frames if one is not None and _lacks_line(one)), None)
    if frame is None or frame.module is None:
        return
    gap = None if frame.build_id is None else tracing.line_gaps.get(frame.build_id)
    if gap is None and frame.build_id is not None:
        return  # It was looked up: the place itself has no line, as code in assembly has none.
    quantities: dict[str, Quantity] = dict(_READERS) if gap == "no-symbolizer" else {}
    if gap == "missing":
        quantities["build"] = Code(frame.build_id or "")
    yield NoLines(
        build_id=frame.build_id if gap == "missing" else None,
        claim=say("the source lines of {module}", module=Name(basename(frame.module))),
        because=say(_BECAUSE[gap], **quantities),
        effect=say("its code is named without lines"),
    )


def _lacks_line(frame: Frame) -> bool:
    return frame.code == "native" and frame.line is None and frame.address is not None
