"""A flame graph as one SVG file that needs nothing else: no script, no style sheet, no font.

Each frame is a box as wide as its share of the bytes that stayed, on top of its caller. Names come
from the case, so all text is escaped.
"""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import TypeAlias

from markupsafe import escape

from leakcase_analyzer.code_names import in_full, part_of, place
from leakcase_analyzer.export.flame_tree import Node
from leakcase_analyzer.report.units import count, share, size
from leakcase_analyzer.trace_looks import Frame

WIDTH = 1200
MARGIN = 16
ROW = 19
HEAD = 64
FOOT = 34
FONT = "ui-sans-serif, system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
TEXT_SIZE = 11.5
#: The mean width of a character of that size.
CHARACTER = 6.9
#: Boxes that are narrower are drawn together, without a name.
LEAST_WIDTH = 0.6
#: A screen has no room for more.
MOST_BOXES = 20_000
LEAST_TEXT_WIDTH = 30
Kind: TypeAlias = tuple[int, int, float, float]
#: Hue, spread of hue, saturation and lightness, by whose code it is.
OWN, PYTHON, COMMON = (18, 22, 0.78, 0.66), (150, 22, 0.42, 0.66), (212, 10, 0.26, 0.82)
LEGEND = ((OWN, "the program's and its libraries' code"), (PYTHON, "Python code"),
          (COMMON, "C and C++ library, allocator, interpreter"))  # fmt: skip


def flame_graph(root: Node, title: str, subtitle: str) -> str:
    """The file's text."""
    height = HEAD + FOOT + ROW * (root.depth + 1)
    boxes = "\n".join(islice(_boxes(root, height - FOOT - ROW), MOST_BOXES))
    kinds = _kinds(root)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="{FONT}" role="img">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>\n'
        f'<text x="{MARGIN}" y="28" font-size="17" font-weight="600" fill="#1c2024">'
        f"{escape(title)}</text>\n"
        f'<text x="{MARGIN}" y="48" font-size="12.5" fill="#60646c">{escape(subtitle)}</text>\n'
        f"{boxes}\n{_legend(kinds, height)}</svg>\n"
    )


def _boxes(root: Node, bottom: float) -> Iterator[str]:
    """Boxes row by row from the root upwards, the widest callee first."""
    if not root.size_bytes:
        return
    scale = (WIDTH - 2 * MARGIN) / root.size_bytes
    level = [(root, float(MARGIN))]
    y = bottom
    while level:
        above = []
        for node, x in level:
            width = node.size_bytes * scale
            yield _box(node, x, y, width, node.size_bytes / root.size_bytes)
            callees = sorted(node.callees.items(), key=lambda one: (-one[1].size_bytes, one[0]))
            for _, callee in callees:
                if callee.size_bytes * scale >= LEAST_WIDTH:
                    above.append((callee, x))
                x += callee.size_bytes * scale
        level = above
        y -= ROW


def _box(node: Node, x: float, y: float, width: float, part: float) -> str:
    frame = node.frame
    whole = "all that stayed" if frame is None else in_full(frame)
    told = f"{whole}: {size(node.size_bytes)} in {count(node.blocks, 'block')}, {share(part)}"
    name = f"all that stayed: {size(node.size_bytes)}" if frame is None else place(frame)
    text = ""
    if width >= LEAST_TEXT_WIDTH:
        # A picture within the picture cuts off what is wider than its box after all.
        text = (
            f'<svg x="{x:.2f}" y="{y}" width="{width - 3:.2f}" height="{ROW}">'
            f'<text x="5" y="{ROW - 6}" font-size="{TEXT_SIZE}" fill="#1c2024">'
            f"{escape(_fitting(name, width - 9))}</text></svg>"
        )
    return (
        f"<g><title>{escape(told)}</title>"
        f'<rect x="{x:.2f}" y="{y}" width="{max(0.4, width - 1):.2f}" height="{ROW - 1}" rx="2.5" '
        f'fill="{_colour(frame)}"/>{text}</g>'
    )


def _fitting(name: str, width: float) -> str:
    """As many of a name's characters as a box has room for."""
    room = int(width / CHARACTER)
    return name if len(name) <= room else name[: max(0, room - 1)] + "…"


def _colour(frame: Frame | None) -> str:
    if frame is None:
        return "#e4e6ea"
    return _shade(_kind(frame), zlib.crc32(place(frame).encode("utf-8", "replace")) % 100 / 100)


def _kind(frame: Frame) -> Kind:
    if part_of(frame) == "common":
        return COMMON
    return PYTHON if frame.code == "python" else OWN


def _shade(kind: Kind, place_in_it: float) -> str:
    """The same name has the same colour in every graph."""
    hue, spread, saturation, lightness = kind
    red, green, blue = colorsys.hls_to_rgb(
        (hue + spread * place_in_it) / 360, lightness + 0.07 * place_in_it, saturation
    )
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _kinds(root: Node) -> set[Kind]:
    """Whose code is drawn at all."""
    found, level = set(), [root]
    while level := [callee for node in level for callee in node.callees.values()]:
        found |= {_kind(node.frame) for node in level if node.frame is not None}
    return found


def _legend(kinds: set[Kind], height: float) -> str:
    x, y, drawn = MARGIN, height - 12, ""
    for kind, words in ((kind, words) for kind, words in LEGEND if kind in kinds):
        colour = _shade(kind, 0.5)
        drawn += (
            f'<rect x="{x}" y="{y - 10}" width="12" height="12" rx="2.5" fill="{colour}"/>'
            f'<text x="{x + 18}" y="{y}" font-size="11.5" fill="#60646c">{words}</text>\n'
        )
        x += 40 + round(6.2 * len(words))
    return drawn
