"""Capture and analyze on one machine: the collector runs in this process, as it is."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path


def capture_case(arguments: Sequence[str]) -> tuple[int, Path | None]:
    """Run a capture with its own options; the exit status, and the case where there is one.

    The collector prints the path of the case on stdout and everything else on stderr; stdout is
    the answer's here, so the path goes to stderr with the rest.
    """
    from leakcase_collector.cli import main as collect

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = collect(["capture", *arguments])
    said = printed.getvalue()
    sys.stderr.write(said)
    lines = said.splitlines()
    case = Path(lines[-1]) if lines else None
    return status, case if case is not None and case.is_file() else None
