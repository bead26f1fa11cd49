"""Case in, answer out, where it was looked into what the heap's blocks are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.report.json_report import json_text
from leakcase_analyzer.report.markdown import markdown_text
from leakcase_analyzer.report.units import render
from leakcase_bundle import records as kinds
from leakcase_bundle.strings import SymbolToken
from tests.analyzer.cases import MIB, Capture, as_file
from tests.analyzer.heap_cases import Heap, growing, see

Answer = Callable[[Capture], Analysis]
SESSION = "N4acme7SessionE"
RATE = 400_009
SECONDS = 120


@pytest.fixture
def answer(tmp_path: Path) -> Answer:
    return lambda capture: analyze(as_file(capture, tmp_path))


def look(
    case: Capture,
    seconds: float,
    classes: dict[tuple[str, int], int],
    labels: Mapping[int, tuple[int, int, str | None]] | None = None,
    source: str = "blocks",
    folded: int = 0,
) -> None:
    """Objects by class and class of size; by class of size chunks, sampled ones and their label."""
    number = sum(isinstance(record, kinds.HeapClasses) for record in case.extra)
    taken_ns = case.at(seconds)
    rows = sorted(classes.items(), key=lambda row: -row[1])
    has_blocks = source == "blocks"
    if labels is not None:
        sizes = sorted(labels)

        def column(label: str) -> list[int]:
            return [labels[size][1] if labels[size][2] == label else 0 for size in sizes]

        case.extra.append(
            kinds.HeapLabels(
                number,
                taken_ns,
                sizes,
                [labels[size][0] for size in sizes],
                [size * labels[size][0] for size in sizes],
                [labels[size][1] for size in sizes],
                object_chunks=column("object"),
                text_chunks=column("text"),
                pointer_chunks=column("pointer"),
                entropy_chunks=column("entropy"),
                zero_chunks=column("zero"),
                method="python",
            )
        )
    case.extra.append(
        kinds.HeapClasses(
            number,
            taken_ns,
            source,
            has_blocks,
            [SymbolToken(name) for (name, _), _ in rows],
            [count for _, count in rows],
            [size for (_, size), _ in rows] if has_blocks else None,
            [size * count for (_, size), count in rows] if has_blocks else None,
            folded_names=folded,
            folded_count=folded,
        )
    )


def sessions() -> Capture:
    """All that grows is objects of one class, and text of another size."""
    case = growing()
    for seconds in (0, SECONDS):
        more, text = RATE * seconds * 3 // 4 // 224, RATE * seconds // 4 // 1008
        grown = 224 * more + 1008 * text
        see(case, seconds, Heap(in_use=5 * MIB + grown, blocks={224: 9 + more, 1008: 7 + text}))
        classes = {(SESSION, 224): 9 + more, ("N4acme4PoolE", 4096): 3}
        labels = {224: (9 + more, 200, "object"), 1008: (7 + text, 200, "text")}
        look(case, seconds, classes, labels)
    return case


def test_classes_that_grow_are_named_with_their_objects_and_bytes(answer: Answer) -> None:
    analysis = answer(sessions())
    more = RATE * SECONDS * 3 // 4 // 224
    found = json.loads(json_text(analysis))
    assert found["types"] == [
        {"name": "acme::Session", "count_delta": more, "bytes_delta": 224 * more}
    ]
    reasons = [render(reason) for reason in analysis.verdict.reasons]
    assert f"C++ class acme::Session grew by 34.3 MiB: {more:,} more objects" in reasons
    assert (
        "100 % of the blocks of 201 to 216 bytes are objects of C++ class acme::Session" in reasons
    )
    assert "100 % of the blocks of 985 to 1,000 bytes hold text" in reasons
    advice = [render(action.what) for action in analysis.actions]
    assert "look for where objects of C++ class acme::Session are made and not deleted" in advice


def test_each_size_says_what_it_holds_in_every_report(answer: Answer) -> None:
    analysis = answer(sessions())
    sizes = json.loads(json_text(analysis))["heap"]["sizes"]
    assert [size["holds"] for size in sizes] == [
        {"label": "object", "class": "acme::Session", "share": 1},
        {"label": "text", "class": None, "share": 1},
    ]
    text = markdown_text(analysis)
    assert "| acme::Session (100 %) |" in text.replace("`", "")
    assert "| text (100 %) |" in text


def test_what_is_less_than_half_is_not_said_to_be_all(answer: Answer) -> None:
    case = growing()
    for seconds in (0, SECONDS):
        blocks = 9 + RATE * seconds // 224
        see(case, seconds, Heap(in_use=5 * MIB + 224 * blocks, blocks={224: blocks}))
        look(case, seconds, {(SESSION, 224): 2 * blocks // 5}, {224: (blocks, 200, None)})
    found = json.loads(json_text(answer(case)))
    assert [size["holds"] for size in found["heap"]["sizes"]] == [None]
    assert found["types"][0]["name"] == "acme::Session"


def test_under_other_allocators_objects_are_counted_without_sizes(answer: Answer) -> None:
    case = growing()
    for seconds in (0, SECONDS):
        look(case, seconds, {(SESSION, 0): 100 + 50 * seconds}, source="words")
    analysis = answer(case)
    found = json.loads(json_text(analysis))
    assert found["types"] == [
        {"name": "acme::Session", "count_delta": 50 * SECONDS, "bytes_delta": None}
    ]
    reasons = [render(reason) for reason in analysis.verdict.reasons]
    assert "there are about 6,000 more objects of C++ class acme::Session" in reasons


def test_a_class_that_may_have_been_among_the_unlisted_did_not_surely_grow(answer: Answer) -> None:
    case = growing()
    look(case, 0, {("1A", 32): 5000, ("1B", 32): 900}, folded=3)
    look(case, SECONDS, {("1A", 32): 5100, ("1B", 32): 900, ("1C", 32): 1000, ("1D", 32): 60_000})
    found = json.loads(json_text(answer(case)))
    assert {one["name"]: one["count_delta"] for one in found["types"]} == {"A": 100, "D": 60_000}


@pytest.mark.parametrize("cut", ("names", "counts", "sizes_bytes", "chunk_bytes", "text_chunks"))
def test_lists_of_a_strangers_case_that_differ_in_length_do_no_harm(
    cut: str, answer: Answer
) -> None:
    case = sessions()

    def rewrite(raw: dict[str, Any]) -> dict[str, Any]:
        if raw["record"] in ("heap.classes", "heap.labels") and cut in raw:
            return {**raw, cut: raw[cut][:-1]}
        return raw

    case.rewrite = rewrite
    assert json.loads(json_text(answer(case)))["verdict"]["status"] == "leak"


def test_figures_that_no_process_has_are_left_out(answer: Answer) -> None:
    case = sessions()

    def rewrite(raw: dict[str, Any]) -> dict[str, Any]:
        return {**raw, "counts": [-5] * 2} if raw["record"] == "heap.classes" else raw

    case.rewrite = rewrite
    analysis = answer(case)
    assert analysis.types == ()
    assert analysis.evidence.reading.left_out_records == 2
