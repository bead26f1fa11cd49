"""The documents and the code say the same: a reader made from SPEC.md alone reads the vectors."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from typing import Any

import msgpack
import pytest
import zstandard

from leakcase_bundle import FORMAT_MAJOR, FORMAT_MINOR, encoding, framing, reader, strings
from leakcase_bundle.records import Mark
from leakcase_bundle.strings import LabelToken
from tests.bundle.shared import ROOT, VECTORS, read, vector

SPEC = (ROOT / "bundle_spec" / "SPEC.md").read_text("utf-8")


def decoded(case: bytes) -> list[dict[str, Any]]:
    """The maps of a whole case, by SPEC.md sections 1, 2 and 5.1 and nothing of the package."""
    assert struct.unpack_from("<II8sH", case) == (0x184D2A5E, 12, b"leakcase", 1)
    out: list[dict[str, Any]] = []
    at, due = 20, 0
    while True:
        magic, size, kind, codec, major, number, records, raw_bytes, body_bytes, body_crc, crc = (
            struct.unpack_from("<IIBBHIIIIII", case, at)
        )
        assert (magic, size, major, number) == (0x184D2A5D, 28, 1, due)
        assert zlib.crc32(case[at : at + 32]) == crc
        body = case[at + 36 : at + 36 + body_bytes]
        assert zlib.crc32(body) == body_crc
        if codec == 1:
            assert struct.unpack_from("<II", body) == (0x184D2A5C, len(body) - 8)
            content = zlib.decompress(body[8:])
        else:
            assert codec == 2
            content = zstandard.ZstdDecompressor().decompress(body, max_output_size=raw_bytes)
        assert len(content) == raw_bytes
        unpacker = msgpack.Unpacker(raw=False)
        unpacker.feed(content)
        maps = list(unpacker)
        assert len(maps) == records
        if kind == 2:
            assert at + 36 + body_bytes == len(case)
            assert maps[0]["sha256"] == hashlib.sha256(case[:at]).digest()
            assert (maps[0]["frames"], maps[0]["records"]) == (due, len(out))
            return out
        out += maps
        at, due = at + 36 + body_bytes, due + 1


def values_of(raw: dict[str, Any]) -> dict[str, Any]:
    """A record with its columns summed up, by section 3.1; what is nil is left out."""
    out: dict[str, Any] = {}
    for key, value in raw.items():
        if raw["record"].startswith("series.") and isinstance(value, list):
            total, column = 0, []
            for difference in value:
                total += difference or 0
                column.append(None if difference is None else total)
            value = column
        if value is not None and key != "record_version":
            out[key] = value
    return out


@pytest.mark.parametrize(
    "name",
    ["whole-zlib", "whole-zstd", "whole-zlib-compressed", "whole-zstd-compressed", "mixed-codecs",
     "every-kind", "extreme-integers", "no-records"],
)  # fmt: skip
def test_a_reader_written_from_the_document_finds_the_same_records(name: str) -> None:
    said = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
    assert [values_of(raw) for raw in decoded(vector(name))] == said["records"]


def test_the_example_in_the_document_is_a_case() -> None:
    lines = re.findall(r"^    [0-9a-f]{4}  ((?:[0-9a-f]{2} ){1,16})", SPEC, re.MULTILINE)
    records, found = read(bytes.fromhex("".join(lines)))
    assert records == [Mark(taken_ns=5, label=LabelToken("idle"))]
    assert found.complete


def test_the_limits_in_the_document_are_those_of_the_code() -> None:
    section = SPEC.split("### 1.4 Limits")[1].split("## 2.")[0]
    numbers = [int(n.replace(",", "")) for n in re.findall(r"\| ([0-9,]+) ", section)]
    assert numbers == [
        encoding.MAX_FRAME_BYTES,
        framing.MAX_STORED_BYTES,
        framing.MAX_RECORDS_PER_FRAME,
        encoding.MAX_MAP_LENGTH,
        encoding.MAX_ARRAY_LENGTH,
        encoding.MAX_STRING_BYTES,
        strings.MAX_TOKEN_LENGTH,
        reader.MAX_CONTENT_BYTES,
        reader.MAX_RECORDS,
    ]


def test_the_documents_speak_of_the_version_that_the_code_writes() -> None:
    version = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
    assert f"This is format **{version}**" in SPEC
    changes = (ROOT / "bundle_spec" / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == version


def test_every_class_of_strings_is_in_the_document() -> None:
    section = SPEC.split("## 4. Strings")[1].split("### 4.1")[0]
    for token in strings.TOKEN_CLASSES:
        assert f"`{token.field_class}`" in section


def test_the_registry_is_what_the_code_says() -> None:
    import make_registry

    there = make_registry.REGISTRY.read_text("utf-8")
    assert there == make_registry.updated(there), "run python bundle_spec/make_registry.py"


def test_a_stale_registry_would_be_noticed() -> None:
    import make_registry

    there = make_registry.REGISTRY.read_text("utf-8")
    stale = there.replace("| `rss_bytes` | bytes |", "| `rss_bytes` | KiB |")
    assert stale != there
    assert make_registry.updated(stale) == there
