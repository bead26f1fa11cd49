"""Writes the format's test vectors, `vectors/NAME.leakcase` with `vectors/NAME.json`.

    python bundle_spec/make_vectors.py            write them
    python bundle_spec/make_vectors.py --check    say which differ from what is there, exit 1

The JSON says what a reader must find: the records, what counts as a problem and where. Files
that a library compressed are compared by what they hold, all others byte by byte.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

from vector_list import vectors
from vector_parts import Vector

from leakcase_bundle import BundleError, Reader
from leakcase_bundle.framing import HEADER_BYTES, PROLOGUE_BYTES, read_header
from leakcase_bundle.plain import plain
from leakcase_bundle.schema import KIND_KEY, spec_of

FOLDER = Path(__file__).resolve().parent / "vectors"


def expectation(content: bytes) -> dict[str, Any]:
    """What this reader finds in a file."""
    try:
        reader = Reader(io.BytesIO(content))
    except BundleError as error:
        return {
            "refused": {"error": type(error).__name__, "message": str(error)},
            "salvage": _found(Reader(io.BytesIO(content), salvage=True))
            if type(error).__name__ == "NotACase"
            else None,
        }
    return {"refused": None, **_found(reader)}


def _found(reader: Reader) -> dict[str, Any]:
    records = []
    unknown = []
    for _, raw, record in reader.decoded():
        if record is None:
            unknown.append(plain(raw))
        else:
            spec = spec_of(record)
            values = {field.name: getattr(record, field.name) for field in spec.fields}
            known = {name: value for name, value in values.items() if value is not None}
            records.append(plain({KIND_KEY: spec.kind, **known}))
    return {
        "minor": reader.minor,
        "complete": reader.complete,
        "truncated": reader.truncated,
        "frames": reader.frames,
        "missing_frames": reader.missing_frames,
        "damaged_records": reader.damaged_records,
        "skipped_bytes": reader.skipped_bytes,
        "problems": [{"offset": p.offset, "message": p.message} for p in reader.problems],
        "records": records,
        "unknown": unknown,
    }


def described(vector: Vector) -> str:
    """The text of a vector's JSON file."""
    made = {"about": vector.about, "library_made": vector.library_made}
    return json.dumps({**made, **expectation(vector.content)}, indent=1, sort_keys=True) + "\n"


def essence(vector: Vector) -> Any:
    """What must not change: the bytes, or each frame unpacked where a library compressed it."""
    if not vector.library_made:
        return vector.content
    out: list[Any] = [vector.content[:PROLOGUE_BYTES]]
    at = PROLOGUE_BYTES
    while at < len(vector.content):
        header = read_header(vector.content[at : at + HEADER_BYTES])
        assert header is not None
        at += HEADER_BYTES + header.stored_bytes
        out.append((header.kind, header.codec, header.sequence, header.records, header.raw_bytes))
    return out


def stale(folder: Path) -> list[str]:
    """The vectors in `folder` that are not what the format's code makes, each with the reason."""
    made = vectors()
    out = []
    for name, vector in made.items():
        case, text = folder / f"{name}.leakcase", folder / f"{name}.json"
        if not case.is_file() or not text.is_file():
            out.append(f"{name}: missing")
        elif essence(Vector("", case.read_bytes(), vector.library_made)) != essence(vector):
            out.append(f"{name}.leakcase: other bytes")
        elif text.read_text("utf-8") != described(
            Vector(vector.about, case.read_bytes(), vector.library_made)
        ):
            out.append(f"{name}.json: another reading")
    known = {f"{name}.{suffix}" for name in made for suffix in ("leakcase", "json")}
    strays = {path.name for path in folder.iterdir()} - known - {".gitattributes"}
    return out + [f"{name}: no vector of this name" for name in sorted(strays)]


def write(folder: Path) -> None:
    """Write all vectors; those that did not change in essence keep their bytes."""
    folder.mkdir(exist_ok=True)
    for name, vector in vectors().items():
        case = folder / f"{name}.leakcase"
        if case.is_file():
            there = Vector(vector.about, case.read_bytes(), vector.library_made)
            vector = there if essence(there) == essence(vector) else vector
        case.write_bytes(vector.content)
        (folder / f"{name}.json").write_text(described(vector), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the format's test vectors.")
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args().check:
        write(FOLDER)
        return 0
    differing = stale(FOLDER)
    for line in differing:
        print(line, file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
