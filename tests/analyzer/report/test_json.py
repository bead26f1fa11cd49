"""The JSON contract: its schema, and that nothing in it can be anything else than said."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from leakcase_analyzer.analysis import analyze
from leakcase_analyzer.report.json_report import json_text
from tests.analyzer.cases import MIB, Capture, Mapping, as_file, heap_leak
from tests.analyzer.hostile import HOSTILE_NAMES, with_hostile_names

SCHEMA: dict[str, Any] = json.loads(
    resources.files("leakcase_analyzer.report").joinpath("analysis.schema.json").read_text("utf-8")
)


def document(case: Capture, folder: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    text = json_text(analyze(as_file(case, folder)))
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def threads() -> Capture:
    case = Capture()
    case.threads = case.steps(4, 1)
    return case


def descriptors() -> Capture:
    case = Capture()
    case.descriptors = {"total": case.steps(14, 5), "sockets": case.steps(4, 5)}
    return case


def cut_off() -> Capture:
    case = Capture(finish=False, end=None)
    case.keep_only_facts()
    return case


def undecided() -> Capture:
    return heap_leak(seconds=12)


def bounded() -> Capture:
    case = Capture()
    case.anonymous_bytes = case.filling_cache(20 * MIB, 60 * MIB, 40)
    return case


SHAPES: list[Callable[[], Capture]] = [
    heap_leak, Capture, threads, descriptors, cut_off, undecided, bounded,
]  # fmt: skip


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_answer_obeys_the_schema(shape: Callable[[], Capture], tmp_path: Path) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(document(shape(), tmp_path))


def test_the_schema_names_every_key_that_is_written(tmp_path: Path) -> None:
    """A key that the schema does not know is a contract that nobody wrote down."""

    def closed(schema: Any) -> Any:
        if isinstance(schema, dict):
            extra = {"additionalProperties": False} if schema.get("type") == "object" else {}
            return {key: closed(value) for key, value in schema.items()} | extra
        return [closed(item) for item in schema] if isinstance(schema, list) else schema

    jsonschema.Draft202012Validator(closed(SCHEMA)).validate(document(descriptors(), tmp_path))


def test_the_answer_holds_the_fields_that_scripts_rely_on(tmp_path: Path) -> None:
    found = document(heap_leak(), tmp_path)
    verdict = found["verdict"]
    assert found["window_seconds"] == 120
    assert verdict["status"] == "leak"
    assert verdict["rate_bytes_per_hour"] == pytest.approx(40_009 * 3600, rel=0.05)
    low, high = verdict["rate_interval_bytes_per_hour"]
    assert low < verdict["rate_bytes_per_hour"] < high
    assert found["growing"][0]["what"] == "anonymous memory"
    assert found["growing"][1]["part_of"] == "anonymous memory"
    assert found["growing"][1]["share"] == pytest.approx(1, rel=0.02)
    assert found["memory"]["live_heap_bytes"] is None
    assert found["target"] | {"name": "<name:1>", "pid": 4711} == found["target"]
    assert found["suspects"] == [] and found["types"] == []
    assert {"cause", "because"} == set(found["ruled_out"][0])


def test_shares_of_what_grows_add_up_to_one_and_parts_to_their_whole(tmp_path: Path) -> None:
    case = heap_leak()
    case.shared_bytes = case.leak(0, 372_736)
    case.mappings.append(Mapping("memfd", 0, 372_736 * 120, anonymous=False))
    growing = document(case, tmp_path)["growing"]
    wholes = {one["what"]: one["share"] for one in growing if one["part_of"] is None}
    assert sum(wholes.values()) == pytest.approx(1)
    for what, share in wholes.items():
        parts = [one["share"] for one in growing if one["part_of"] == what]
        assert sum(parts) == pytest.approx(share, rel=0.05)


def test_a_name_of_any_length_is_whole(tmp_path: Path) -> None:
    long = "/home/" + "/".join(f"<dir:{i}>" for i in range(20)) + "/<file:1>"
    case = Capture()
    case.file_bytes = case.leak(8 * MIB, 40_009)
    end = MIB + 40_009 * 120
    case.mappings = [Mapping("file-data", MIB, end, path=long, anonymous=False)]
    found = document(case, tmp_path)
    assert any(long in reason for reason in found["verdict"]["reasons"])


def test_hostile_names_stay_strings(tmp_path: Path) -> None:
    found = document(with_hostile_names(HOSTILE_NAMES), tmp_path)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    assert found["target"]["name"] in HOSTILE_NAMES
