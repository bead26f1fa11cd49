"""Collects what watching the allocator told, in bounded memory.

A record whose lists do not fit together is dropped and counted. A stack or frame that is referred
to and never told stays as an unknown one: what its blocks held is still part of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from leakcase_analyzer.columns import LARGEST
from leakcase_analyzer.demangle_functions import function_name
from leakcase_analyzer.gather_groups import Window
from leakcase_analyzer.gather_heap import is_sane
from leakcase_analyzer.trace_looks import (
    UNKNOWN_FRAME,
    Alive,
    Frame,
    Held,
    Outstanding,
    Site,
    Stack,
    Survival,
    Tracing,
    Watched,
)
from leakcase_bundle import records as kinds

MOST_FRAMES = 1 << 16
MOST_STACKS = 1 << 14
MOST_DEPTH = 256
#: Frames of all stacks together.
MOST_REFERENCES = 1 << 20
MOST_WINDOWS = 4096
#: Looks at the blocks of one window.
MOST_LOOKS = 32
#: Rows of all windows together: eight windows of a real capture have some thousands.
MOST_ROWS = 1 << 18
MOST_RATES = 256
MOST_TOOLS = 64

V = TypeVar("V")


@dataclass
class _Draft:
    """A window and what belongs to it, as it comes."""

    total: kinds.TraceWindow
    sites: dict[int, Site] = field(default_factory=dict)
    looks: list[Survival] = field(default_factory=list)
    outstanding: list[tuple[int, dict[int, Held]]] = field(default_factory=list)


class TraceStore:
    """One pass over the records of tracing, in file order."""

    def __init__(self) -> None:
        self._frames: dict[int, kinds.CodeFrame] = {}
        self._stacks: dict[int, kinds.CodeStack] = {}
        self._references = 0
        self._windows: dict[int, _Draft] = {}
        self._rates: list[kinds.TraceRates] = []
        self._contents: dict[int, kinds.TraceContents] = {}
        self._tools: list[kinds.TraceTool] = []
        self._rows = 0
        self.dropped = 0
        self.takers: dict[type[Any], Callable[[Any], None]] = {
            kinds.CodeFrame: self._add_frame,
            kinds.CodeStack: self._add_stack,
            kinds.TraceWindow: self._begin,
            kinds.TraceSites: self._add_sites,
            kinds.TraceSurvival: self._add_survival,
            kinds.TraceOutstanding: self._add_outstanding,
            kinds.TraceRates: self._add_rates,
            kinds.TraceContents: self._add_contents,
            kinds.TraceTool: self._add_tool,
        }

    def _add_frame(self, frame: kinds.CodeFrame) -> None:
        self._keep(self._frames, frame.frame, frame, MOST_FRAMES)

    def _add_stack(self, stack: kinds.CodeStack) -> None:
        self._references += len(stack.frames)
        if self._references > MOST_REFERENCES:
            self.dropped += 1
        else:
            self._keep(self._stacks, stack.stack, stack, MOST_STACKS)

    def _add_contents(self, contents: kinds.TraceContents) -> None:
        self._keep(self._contents, contents.stack, contents, MOST_STACKS)

    def _keep(self, kept: dict[int, V], number: int, record: V, most: int) -> None:
        if is_sane(record) and (number in kept or len(kept) < most):
            kept[number] = record
        else:
            self.dropped += 1

    def _begin(self, window: kinds.TraceWindow) -> None:
        if is_sane(window) and len(self._windows) < MOST_WINDOWS:
            self._windows[window.window] = _Draft(window)
        else:
            self.dropped += 1

    def _add_rates(self, rates: kinds.TraceRates) -> None:
        """Net figures may be below nothing: more was freed than allocated."""
        sane = all(0 <= n < LARGEST for n in (*rates.calls, *rates.size_calls, rates.window_ns))
        sane = sane and len(rates.calls_of) == len(rates.calls) <= MOST_DEPTH
        sane = sane and len(rates.size_from_bytes) == len(rates.size_calls) <= MOST_DEPTH
        if sane and len(self._rates) < MOST_RATES:
            self._rates.append(rates)
        else:
            self.dropped += 1

    def _add_tool(self, tool: kinds.TraceTool) -> None:
        if is_sane(tool) and len(self._tools) < MOST_TOOLS:
            self._tools.append(tool)
        else:
            self.dropped += 1

    def _add_sites(self, sites: kinds.TraceSites) -> None:
        unknown = [None] * len(sites.stacks)
        columns = (
            sites.allocations, sites.allocated_bytes, sites.freed, sites.kept, sites.kept_bytes,
            unknown if sites.kept_smallest_bytes is None else sites.kept_smallest_bytes,
            unknown if sites.kept_largest_bytes is None else sites.kept_largest_bytes,
        )  # fmt: skip
        draft = self._draft(sites, *columns)
        if draft is not None:
            rows = zip(*columns, strict=True)
            told = zip(sites.stacks, rows, strict=True)
            draft.sites.update({stack: Site(*figures) for stack, figures in told})

    def _add_survival(self, one: kinds.TraceSurvival) -> None:
        draft = self._draft(one, one.alive, one.alive_bytes, one.dead, one.unknown, one.weak)
        if draft is not None and len(draft.looks) < MOST_LOOKS:
            rows = zip(
                one.stacks, one.alive, one.alive_bytes, one.dead, one.unknown, one.weak, strict=True
            )
            found = {stack: Alive(*figures) for stack, *figures in rows}
            draft.looks.append(Survival(one.age_ns / 1e9, found))

    def _add_outstanding(self, one: kinds.TraceOutstanding) -> None:
        unknown = [None] * len(one.stacks)
        older_blocks = unknown if one.older_blocks is None else one.older_blocks
        older_bytes = unknown if one.older_bytes is None else one.older_bytes
        draft = self._draft(
            one, one.blocks, one.bytes_held, one.allocations, older_blocks, older_bytes
        )
        if draft is not None and len(draft.outstanding) < MOST_LOOKS:
            rows = zip(
                one.stacks, one.blocks, one.bytes_held, one.allocations, older_blocks, older_bytes,
                strict=True,
            )  # fmt: skip
            found = {stack: Held(*figures) for stack, *figures in rows}
            draft.outstanding.append((one.taken_ns, found))

    def _draft(self, record: Any, *columns: Sequence[int | None]) -> _Draft | None:
        """The window of a record whose lists go together; None, and counted, where not."""
        rows = len(record.stacks)
        draft = self._windows.get(record.window)
        fits = all(len(column) == rows for column in columns) and self._rows + rows <= MOST_ROWS
        if draft is None or not fits or not is_sane(record):
            self.dropped += 1
            return None
        self._rows += rows + 1
        return draft

    def tracing(self, window: Window, programs: Sequence[str] = ()) -> Tracing:
        """What was told of the judged image's time; `programs`: the paths of its main program."""
        drafts = [d for d in self._windows.values() if window.holds(d.total.started_ns)]
        watched = tuple(
            _watched(draft, window) for draft in sorted(drafts, key=lambda d: d.total.started_ns)
        )
        homes = [home for home in map(interpreters_home, programs) if home is not None]
        frames = {number: _frame(frame, homes) for number, frame in self._frames.items()}
        rates = sorted((one for one in self._rates if window.holds(one.taken_ns)), key=_taken)
        return Tracing(
            windows=watched,
            rates=tuple((window.seconds(one.taken_ns), one) for one in rates),
            stacks={
                number: Stack(
                    tuple(frames.get(one, UNKNOWN_FRAME) for one in stack.frames[:MOST_DEPTH]),
                    stack.end,
                )
                for number, stack in self._stacks.items()
            },
            contents=dict(self._contents),
            tools=tuple(self._tools),
            dropped=self.dropped,
        )


def _taken(rates: kinds.TraceRates) -> int:
    return rates.taken_ns


def _watched(draft: _Draft, window: Window) -> Watched:
    return Watched(
        seconds=window.seconds(draft.total.started_ns),
        total=draft.total,
        sites=draft.sites,
        looks=tuple(sorted(draft.looks, key=lambda look: look.age_seconds)),
        outstanding=tuple(
            Outstanding(window.seconds(taken_ns), rows)
            for taken_ns, rows in sorted(draft.outstanding, key=lambda one: one[0])
        ),
    )


@lru_cache(maxsize=4096)
def readable_function(symbol: str) -> str:
    """A function as its author wrote it, all of it printable."""
    return _text(function_name(symbol)) or symbol


def interpreters_home(program: str) -> str | None:
    """The folder that a Python interpreter of its own place was installed into; None: no such.

    Below it lie its library and packages (`lib/python3.12/`), whose names are pseudonyms there.
    """
    parts = program.split("/")
    if len(parts) < 4 or not re.fullmatch(r"python[23]?(\.\d+)?", parts[-1]):
        return None
    home = "/".join(parts[:-2]) + "/"
    return None if home in ("/usr/", "/usr/local/") else home


def _frame(record: kinds.CodeFrame, homes: Sequence[str]) -> Frame:
    symbol, file = _text(record.function), _text(record.file)
    return Frame(
        code=record.code,
        module=_text(record.module),
        function=None if symbol is None else readable_function(symbol),
        symbol=symbol,
        function_offset=record.function_offset,
        address=record.address,
        file=file,
        line=record.line,
        build_id=_text(record.build_id),
        of_interpreter=file is not None
        and any(file.startswith(home) and file.count("/", len(home)) >= 2 for home in homes),
    )


def _text(token: str | None) -> str | None:
    if token is None:
        return None
    return "".join(c if c.isprintable() else "?" for c in token)
