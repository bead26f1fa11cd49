"""Charts of the HTML report as SVG: memory over time, and how long blocks live.

They hold no script and no style sheet; text that comes from a case is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from leakcase_analyzer.columns import Floats
from leakcase_analyzer.report.units import shortened, size, span
from leakcase_analyzer.series.survival import Curve

WIDTH, HEIGHT = 1000, 250
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 14, 34
MOST_POINTS = 600
LINES = 4
INK, FAINT, GRID, MAIN = "#1c2024", "#60646c", "#e8e8ec", "#2563eb"
#: For lines side by side, of those that stay and then of those that go.
COLOURS = ("#c2410c", "#2563eb", "#15803d", "#7c3aed", "#64748b")
NAME_CHARACTERS = 44


@dataclass(frozen=True)
class Living:
    """The curve of one function's blocks."""

    name: str
    curve: Curve


def _x(part: float) -> float:
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def _y(part: float) -> float:
    return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def memory_chart(
    seconds: Floats, values: Floats, windows: Sequence[tuple[float, float]], *, in_bytes: bool
) -> Markup | None:
    """A quantity over time, with the stretches in which allocations were traced; None: no points.

    `windows` are starts and lengths in seconds.
    """
    known = np.isfinite(seconds) & np.isfinite(values)
    if np.count_nonzero(known) < 2:
        return None
    t, y = seconds[known], values[known]
    step = max(1, math.ceil(t.size / MOST_POINTS))
    t, y = t[::step], y[::step]
    start, end = float(t[0]), float(t[-1])
    low, high = float(y.min()), float(y.max())
    margin = 0.06 * (high - low) or 0.02 * abs(high) or 1.0
    low, high = max(0.0, low - margin), high + margin
    if not (end > start and math.isfinite(high - low)):
        return None
    points = [
        (_x((at - start) / (end - start)), _y((value - low) / (high - low)))
        for at, value in zip(t.tolist(), y.tolist(), strict=True)
    ]
    line = " ".join(f"{x:.1f},{y_:.1f}" for x, y_ in points)
    area = f"{points[0][0]:.1f},{_y(0):.1f} {line} {points[-1][0]:.1f},{_y(0):.1f}"

    def amount(value: float) -> str:
        return size(value) if in_bytes else f"{value:,.0f}"

    return _chart(
        "memory over time" if in_bytes else "amount over time",
        [
            *_grid([amount(low + (high - low) * i / LINES) for i in range(LINES + 1)]),
            *_times([start + (end - start) * i / 5 for i in range(6)], start),
            *_windows(windows, start, end),
            f'<polygon points="{area}" fill="{MAIN}" fill-opacity="0.09"/>',
            f'<polyline points="{line}" fill="none" stroke="{MAIN}" stroke-width="2" '
            'stroke-linejoin="round"/>',
        ],
    )


def _windows(windows: Sequence[tuple[float, float]], start: float, end: float) -> Iterator[str]:
    for begun, lasted in windows:
        if start <= begun <= end:
            x = _x((begun - start) / (end - start))
            width = max(1.5, _x((begun + lasted - start) / (end - start)) - x)
            yield (
                f'<g><title>{escape("traced for " + span(lasted))}</title><rect x="{x:.1f}" '
                f'y="{TOP}" width="{min(width, WIDTH - RIGHT - x):.1f}" '
                f'height="{HEIGHT - TOP - BOTTOM}" fill="#f59e0b" fill-opacity="0.35"/></g>'
            )


def survival_chart(living: Sequence[Living]) -> Markup | None:
    """The share of blocks alive by age; None where nobody looked again."""
    curves = [one for one in living if one.curve.ages_seconds][: len(COLOURS)]
    end = max((one.curve.last_age_seconds for one in curves), default=0.0)
    if not (0 < end < math.inf):
        return None
    drawn: list[str] = []
    # The first is drawn last: of lines on top of each other it is the one to see.
    for place, one in reversed(tuple(enumerate(curves))):
        points = [(0.0, 1.0), *zip(one.curve.ages_seconds, one.curve.alive_shares, strict=True)]
        line = " ".join(
            f"{_x(age / end):.1f},{_y(min(1.0, max(0.0, share))):.1f}" for age, share in points
        )
        drawn += [
            f'<polyline points="{line}" fill="none" stroke="{COLOURS[place]}" stroke-width="2.2"/>',
            *(_dot(point, COLOURS[place]) for point in line.split()[1:]),
        ]
    labels = [f"{100 * i // LINES} %" for i in range(LINES + 1)]
    times = [end * i / 5 for i in range(6)]
    keys, height = _keys([one.name for one in curves])
    parts = [*_grid(labels), *_times(times, 0.0), *drawn, *keys]
    return _chart("blocks alive by age", parts, height)


def _dot(point: str, colour: str) -> str:
    x, y = point.split(",")
    return f'<circle cx="{x}" cy="{y}" r="3.4" fill="{colour}"/>'


def _keys(names: Sequence[str]) -> tuple[list[str], int]:
    """The lines' names in rows below the chart, and how high those are."""
    drawn: list[str] = []
    x, y = LEFT, HEIGHT + 8
    for place, name in enumerate(names):
        clean = shortened(name)
        clean = clean if len(clean) <= NAME_CHARACTERS else clean[: NAME_CHARACTERS - 1] + "…"
        width = 40 + 7 * len(clean)
        if x > LEFT and x + width > WIDTH - RIGHT:
            x, y = LEFT, y + 19
        drawn.append(
            f'<rect x="{x}" y="{y - 9}" width="11" height="11" rx="2" fill="{COLOURS[place]}"/>'
            f'<text x="{x + 17}" y="{y}" font-size="12" fill="{INK}">{escape(clean)}</text>'
        )
        x += width
    return drawn, y + 8 - HEIGHT


def _grid(labels: Sequence[str]) -> Iterator[str]:
    """Level lines from the bottom up, each with its value."""
    for place, label in enumerate(labels):
        y = _y(place / LINES)
        yield (
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="{GRID}"/>'
        )
        yield (
            f'<text x="{LEFT - 10}" y="{y + 4:.1f}" font-size="12" text-anchor="end" '
            f'fill="{FAINT}">{escape(label)}</text>'
        )


def _times(times: Sequence[float], start: float) -> Iterator[str]:
    for place, seconds in enumerate(times):
        anchor = "start" if place == 0 else "end" if place == len(times) - 1 else "middle"
        yield (
            f'<text x="{_x(place / (len(times) - 1)):.1f}" y="{HEIGHT - 12}" font-size="12" '
            f'text-anchor="{anchor}" fill="{FAINT}">{escape(span(seconds - start))}</text>'
        )


def _chart(label: str, parts: Sequence[str], below: int = 0) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + below}" role="img" aria-label="{escape(label)}" '
        'font-family="ui-sans-serif, system-ui, sans-serif">' + "\n".join(parts) + "</svg>"
    )
