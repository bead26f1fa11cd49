"""Gives the native frames of traced stacks their lines, and the functions that were put into them.

The host names functions by the symbols that it has; lines it does not have, and where a function
was copied into its caller it names the caller. Debug information knows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from leakcase_analyzer.gather_trace import readable_function
from leakcase_analyzer.symbols.debug_files import DebugFile, DebugFiles
from leakcase_analyzer.symbols.symbolizers import Line, Lines, Symbolizer, SymbolizerFailed
from leakcase_analyzer.trace_looks import Frame, LineGap, Stack, Tracing

#: Addresses of all modules together; stacks of which most stays come first.
MOST_ADDRESSES = 2000
MOST_MODULES = 32
#: After which no further module is begun with.
MOST_SECONDS = 60


@dataclass
class _Module:
    """What is asked of one build; ordered, and each once."""

    paths: dict[str, None]
    addresses: dict[int, None]
    all_named: bool = True


def with_source_lines(
    tracing: Tracing, files: DebugFiles, find_symbolizer: Callable[[], Symbolizer | None]
) -> Tracing:
    """The same tracing, its native frames resolved as far as debug information is found here."""
    modules = _asked(tracing)
    found = files.find({build_id: list(one.paths) for build_id, one in modules.items()})
    # Symbols alone tell no more than the host had, where it had all.
    useful = {
        build_id: file
        for build_id, file in found.items()
        if file.facts.has_lines or not modules[build_id].all_named
    }
    gaps: dict[str, LineGap] = {
        build_id: "missing"
        for build_id in modules
        if build_id not in found or not found[build_id].facts.has_lines
    }
    lines = _looked_up(modules, useful, find_symbolizer() if useful else None, gaps)
    expanded: dict[Frame, tuple[Frame, ...]] = {}

    def expand(frame: Frame) -> tuple[Frame, ...]:
        if frame not in expanded:
            expanded[frame] = _expanded(frame, lines)
        return expanded[frame]

    return replace(
        tracing,
        stacks={
            number: Stack(tuple(one for f in stack.frames for one in expand(f)), stack.end)
            for number, stack in tracing.stacks.items()
        },
        line_gaps=gaps,
    )


def _asked(tracing: Tracing) -> dict[str, _Module]:
    modules: dict[str, _Module] = {}
    left = MOST_ADDRESSES
    for number in _by_weight(tracing):
        for frame in tracing.stack(number).frames:
            address = _asked_address(frame)
            if address is None or frame.build_id is None:
                continue
            if frame.build_id not in modules and len(modules) == MOST_MODULES:
                continue
            one = modules.setdefault(frame.build_id, _Module({}, {}))
            if address in one.addresses:
                continue
            if not left:
                return modules
            left -= 1
            one.addresses[address] = None
            one.all_named = one.all_named and frame.function is not None
            if frame.module is not None:
                one.paths[frame.module] = None
    return modules


def _by_weight(tracing: Tracing) -> list[int]:
    """Numbers of stacks by the bytes that stayed, as far as single windows tell."""
    held: dict[int, int] = {}
    for window in tracing.windows:
        rows: Mapping[int, int] = {n: site.kept_bytes for n, site in window.sites.items()}
        if window.outstanding:
            rows = {n: one.held_bytes for n, one in window.outstanding[-1].rows.items()}
        elif window.looks:
            rows = {n: one.alive_bytes for n, one in window.looks[-1].rows.items()}
        for number, size in rows.items():
            held[number] = held.get(number, 0) + size
    return sorted(held, key=lambda number: (-held[number], number))


def _asked_address(frame: Frame) -> int | None:
    """Of an instruction that belongs to the frame's line; None: it cannot be asked for."""
    if frame.code != "native" or frame.address is None or frame.build_id is None:
        return None
    # What is told is where a call returns to: the call itself lies before it, and its line too.
    at_start = frame.function_offset == 0 or not frame.address
    return frame.address if at_start else frame.address - 1


def _looked_up(
    modules: Mapping[str, _Module],
    files: Mapping[str, DebugFile],
    symbolizer: Symbolizer | None,
    gaps: dict[str, LineGap],
) -> dict[str, Lines]:
    found: dict[str, Lines] = {}
    end = time.monotonic() + MOST_SECONDS
    for build_id, file in files.items():
        if symbolizer is None:
            gaps[build_id] = "no-symbolizer"
            continue
        try:
            if time.monotonic() > end:
                raise SymbolizerFailed
            found[build_id] = symbolizer(file, list(modules[build_id].addresses))
        except SymbolizerFailed:
            gaps[build_id] = "failed"
    return found


def _expanded(frame: Frame, lines: Mapping[str, Lines]) -> tuple[Frame, ...]:
    """The frame with its line, behind those of the functions that were put into it."""
    address = _asked_address(frame)
    told = lines.get(frame.build_id or "", {}).get(-1 if address is None else address, ())
    if not told:
        return (frame,)
    *inner, outer = told
    symbol = frame.symbol or outer.function
    return (
        *(_inlined(frame, one) for one in inner if one.function is not None),
        replace(
            frame,
            # The host's own name is what nm and perf show as well.
            function=frame.function or _readable(outer),
            symbol=symbol,
            file=outer.file,
            line=outer.line,
        ),
    )


def _inlined(frame: Frame, one: Line) -> Frame:
    return replace(
        frame,
        function=_readable(one),
        symbol=one.function,
        function_offset=None,
        file=one.file,
        line=one.line,
        inlined=True,
    )


def _readable(one: Line) -> str | None:
    return None if one.function is None else readable_function(one.function)
