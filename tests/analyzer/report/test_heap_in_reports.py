"""What the looks into the heap add to each report, and that nothing in a type's name does harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from markdown_it import MarkdownIt

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.report.json_report import json_text
from leakcase_analyzer.report.markdown import markdown_text
from leakcase_analyzer.report.terminal import MOST_LINES, WIDTH, terminal_text
from tests.analyzer.cases import MIB, Capture, as_file, heap_leak
from tests.analyzer.heap_cases import (
    Heap,
    Objects,
    count,
    growing,
    python_leak,
    see,
    spike_that_is_kept,
)
from tests.analyzer.hostile import HOSTILE_NAMES

SCHEMA: dict[str, Any] = json.loads(
    resources.files("leakcase_analyzer.report").joinpath("analysis.schema.json").read_text("utf-8")
)


def sessions() -> Capture:
    return python_leak({"Session": (100, 4_800)}, {"Session": (60_100, 28_804_800)})


def many_arenas() -> Capture:
    case = growing()
    for seconds in (0, 120):
        grown = 400_009 * seconds
        see(
            case, seconds,
            Heap(
                in_use=5 * MIB + grown, whole_pages=6 * MIB, thread_arenas=40,
                blocks={32: 1_000, 224: 100 + grown // 224},
            ),
        )  # fmt: skip
    return case


def hostile_types() -> Capture:
    """Types of a stranger's case bear names that would do harm where they are not text."""
    case = growing(runtime="cpython")
    size = {f"type{place}": (100 * place, MIB * place) for place in range(1, len(HOSTILE_NAMES))}
    see(case, 0, Heap(in_use=5 * MIB))
    see(case, 120, Heap(in_use=5 * MIB))
    count(case, 0, Objects())
    count(case, 120, Objects(types=size, pools=80 * MIB, blocks=70 * MIB))

    def rewrite(raw: dict[str, Any]) -> dict[str, Any]:
        if raw["record"] != "python.types":
            return raw
        return {**raw, "names": HOSTILE_NAMES[: len(raw["names"])]}

    case.rewrite = rewrite
    return case


SHAPES: list[Callable[[], Capture]] = [spike_that_is_kept, many_arenas, sessions, hostile_types]
each_shape = pytest.mark.parametrize("shape", SHAPES)


def analysis_of(case: Capture, folder: Path) -> Analysis:
    return analyze(as_file(case, folder))


@each_shape
def test_every_key_of_the_heap_is_in_the_schema(
    shape: Callable[[], Capture], tmp_path: Path
) -> None:
    def closed(schema: Any) -> Any:
        if isinstance(schema, dict):
            is_object = "object" in schema.get("type", ())
            extra = {"additionalProperties": False} if is_object else {}
            return {key: closed(value) for key, value in schema.items()} | extra
        return [closed(item) for item in schema] if isinstance(schema, list) else schema

    found = json.loads(json_text(analysis_of(shape(), tmp_path)))
    assert found["heap"] is not None
    jsonschema.Draft202012Validator(closed(SCHEMA)).validate(found)


def test_scripts_find_sizes_and_types(tmp_path: Path) -> None:
    found = json.loads(json_text(analysis_of(sessions(), tmp_path)))
    assert found["types"] == [{"name": "Session", "count_delta": 60_000, "bytes_delta": 28_800_000}]
    found = json.loads(json_text(analysis_of(many_arenas(), tmp_path)))
    assert found["heap"]["arenas"] == 41 and found["heap"]["looks"] == 2
    assert found["heap"]["sizes"][0]["count_delta"] == 400_009 * 120 // 224
    assert found["heap"]["change"]["in_use_bytes"] == 400_009 * 120


def test_without_a_look_there_is_no_heap_in_any_report(tmp_path: Path) -> None:
    analysis = analysis_of(heap_leak(), tmp_path)
    assert json.loads(json_text(analysis))["heap"] is None
    assert "Arenas" not in markdown_text(analysis)
    assert "  heap  " not in terminal_text(analysis, colour=False, unicode=True)


@each_shape
def test_the_terminal_still_fits_a_screen_and_shows_the_heap(
    shape: Callable[[], Capture], tmp_path: Path
) -> None:
    text = terminal_text(analysis_of(shape(), tmp_path), colour=False, unicode=False)
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES and max(len(line) for line in lines) <= WIDTH
    assert "heap in use" in " ".join(lines) or any(
        line.startswith("  heap        in use ") for line in lines
    )


def test_the_ticket_has_tables_of_arenas_sizes_and_types(tmp_path: Path) -> None:
    arenas = markdown_text(analysis_of(many_arenas(), tmp_path))
    assert "| main | " in arenas and "| 201 to 216 bytes | +214,290 |" in arenas
    assert arenas.count("\n| 4") + arenas.count("\n| 3") < 12, "forty arenas are too many to list"
    assert "| `Session` | +60,000 | +27.5 MiB |" in markdown_text(analysis_of(sessions(), tmp_path))


@each_shape
def test_every_table_of_the_ticket_is_one(shape: Callable[[], Capture], tmp_path: Path) -> None:
    text = markdown_text(analysis_of(shape(), tmp_path))
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    tables = sum(piece.type == "table_open" for piece in reader.parse(text))
    assert tables == sum(line.startswith("| ---") for line in text.splitlines())
    assert "\n\n\n\n" not in text


def test_a_types_name_stands_in_a_code_span_in_the_ticket(tmp_path: Path) -> None:
    text = markdown_text(analysis_of(hostile_types(), tmp_path))
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    pieces = [child for piece in reader.parse(text) for child in piece.children or []]
    html = [piece.content for piece in pieces if piece.type == "html_inline"]
    assert not any("script" in tag or "img" in tag for tag in html)
    assert not [piece for piece in pieces if piece.type in ("link_open", "image")]
