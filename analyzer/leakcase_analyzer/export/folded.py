"""Folded stacks: one line for each, outermost first, as flamegraph.pl and many others read."""

from __future__ import annotations

from collections.abc import Sequence

from leakcase_analyzer.code_names import place, readable
from leakcase_analyzer.export.weighted import Weighted

UNKNOWN = "[unknown]"


def folded_text(stacks: Sequence[Weighted]) -> str:
    """By bytes that stayed; stacks of which nothing stayed are left out."""
    sums: dict[str, int] = {}
    for one in stacks:
        if one.stayed_bytes:
            names = [place(frame).replace(";", ":") for frame in reversed(readable(one.frames))]
            line = ";".join(names or [UNKNOWN])
            sums[line] = sums.get(line, 0) + one.stayed_bytes
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return "".join(f"{line} {size}\n" for line, size in ordered)
