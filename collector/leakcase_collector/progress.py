"""One live line on a terminal, on stderr: where the capture is and what RSS does."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from .session import Session

_BARS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 24
_WIDEST = 110


def sparkline(values: Sequence[int], width: int = _SPARK_WIDTH) -> str:
    """`values` as bars of eight heights, scaled between their least and largest.

    More values than `width` are folded by taking the last of each stretch.
    """
    if not values:
        return ""
    count = min(width, len(values))
    picked = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    low, high = min(values), max(values)
    # A wobble below 0.5 % is flat to the eye, or every steady process would look like a storm.
    span = max(high - low, max(high // 200, 1))
    return "".join(_BARS[(value - low) * (len(_BARS) - 1) // span] for value in picked)


def size(value: float) -> str:
    """Bytes for people: three digits and a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def duration(nanoseconds: int) -> str:
    """A span as m:ss or h:mm:ss."""
    seconds = nanoseconds // 1_000_000_000
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class ProgressLine:
    """Redraws itself in place; erased by `close`, so that what follows starts on a clean line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._drawn = False

    def show(self, session: Session, now_ns: int) -> None:
        """Draw the line for this beat."""
        age = now_ns - session.started_ns
        total = session.duration_ns
        time = duration(age) if total is None else f"{duration(age)} / {duration(total)}"
        rss = session.look.rss_bytes
        parts = [
            f"pid {session.identity.pid} {self._name}",
            time,
            f"RSS {size(rss[-1])} {sparkline(rss)}" if rss else "RSS unknown",
            f"{size(rss[-1] - rss[0])} since start" if len(rss) > 1 else "",
            f"case {size(session.case.written_bytes)}",
        ]
        width = _columns()
        line = "  ".join(filter(None, parts))[: width - 1]
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
        self._drawn = True

    def close(self) -> None:
        """Erase the line."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


def without_controls(name: str) -> str:
    """A name of the host's for its own terminal, with nothing in it that could drive that."""
    return "".join(char if char.isprintable() else "?" for char in name)


def wrapped(text: str) -> str:
    """Lines for people, broken between words where stderr is a terminal; else as they are."""
    if not sys.stderr.isatty():
        return text
    width = max(40, min(_columns(), _WIDEST))
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())] + "  "
        lines += textwrap.wrap(
            line, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
        )
    return "\n".join(lines)


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def progress_for(name: str, quiet: bool) -> Optional[ProgressLine]:
    """A live line where stderr is a terminal that can redraw, else None."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None
    return ProgressLine(without_controls(name))
