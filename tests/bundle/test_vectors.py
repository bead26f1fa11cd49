"""The vectors are what the code makes, and say what the code reads."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import zstandard

from leakcase_bundle.encoding import decode_maps
from leakcase_bundle.plain import plain
from leakcase_bundle.records import CaseEnd, Gap, StatusSeries
from leakcase_bundle.schema import record_kinds
from tests.bundle.shared import NAMES, VECTORS, read, vector


@pytest.fixture(scope="module")
def makers() -> Any:
    # The scripts are importable only after conftest.py has run.
    import make_vectors

    return make_vectors


def test_making_the_vectors_anew_changes_nothing(makers: Any) -> None:
    assert makers.stale(VECTORS) == [], "run python bundle_spec/make_vectors.py"


def test_a_changed_or_missing_or_stray_vector_is_noticed(makers: Any, tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    shutil.copytree(VECTORS, folder)
    whole = vector("whole-zlib")
    (folder / "whole-zlib.leakcase").write_bytes(whole[:40] + b"\xff" + whole[41:])
    (folder / "empty.json").unlink()
    (folder / "stray.json").write_text("{}")
    text = json.loads((folder / "torn-zstd.json").read_text())
    (folder / "torn-zstd.json").write_text(json.dumps({**text, "truncated": False}))
    assert makers.stale(folder) == [
        "whole-zlib.leakcase: other bytes",
        "empty: missing",
        "torn-zstd.json: another reading",
        "stray.json: no vector of this name",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_reads_as_its_json_says(makers: Any, name: str) -> None:
    said = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
    found = makers.expectation(vector(name))
    assert {**found, "about": said["about"], "library_made": said["library_made"]} == said


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("whole-")])
def test_what_was_written_is_read_whichever_the_codec(name: str) -> None:
    records, reader = read(vector(name))
    assert [type(record) for record in records] == [Gap, StatusSeries, StatusSeries, CaseEnd]
    assert records[1].rss_bytes == [40_960, None, 45_056]
    assert reader.complete
    assert not reader.truncated


def test_the_vector_of_every_kind_fills_every_field() -> None:
    records, reader = read(vector("every-kind"))
    assert reader.complete
    assert [type(record) for record in records] == [s.cls for s in record_kinds().values()]
    for record in records:
        assert None not in vars(record).values(), record


def test_a_case_written_with_zstd_is_a_zstd_file_of_its_records() -> None:
    for name in ("whole-zstd", "whole-zstd-compressed"):
        decompressor = zstandard.ZstdDecompressor()
        with decompressor.stream_reader(io.BytesIO(vector(name)), read_across_frames=True) as out:
            maps = list(decode_maps(out.read()))
        assert [raw["record"] for raw in maps] == [
            "gap", "series.status", "series.status", "end", "index",
        ]  # fmt: skip
        said = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
        assert plain(maps[0]) == {**said["records"][0], "record_version": 1}


def test_hostile_vectors_leave_the_good_frames_around_them() -> None:
    for name in NAMES:
        said = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
        if "in a frame that declares" in said["about"] or "msgpack" in str(said.get("problems")):
            assert [r["record"] for r in said["records"]][0] == "gap"
            assert [r["record"] for r in said["records"]][-1] == "end"
            assert not said["complete"]
