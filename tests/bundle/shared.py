"""What tests of the format share."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Optional

from leakcase_bundle import Reader, Writer
from leakcase_bundle.codecs import Codec

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "bundle_spec" / "vectors"
NAMES = sorted(path.stem for path in VECTORS.glob("*.leakcase"))


def vector(name: str) -> bytes:
    """The bytes of a test vector."""
    return (VECTORS / f"{name}.leakcase").read_bytes()


def case_of(*frames: list[Any], codec: Optional[Codec] = None) -> bytes:
    """A whole case with these records, a list for each frame."""
    descriptor = os.memfd_create("case")
    with open(descriptor, "rb") as file:
        writer = Writer(descriptor, codec)
        for records in frames:
            for record in records:
                writer.add(record)
            writer.flush()
        writer.finish()
        file.seek(0)
        return file.read()


def read(case: bytes, **options: Any) -> tuple[list[Any], Reader]:
    """All records of a case, and the reader after the pass."""
    reader = Reader(io.BytesIO(case), **options)
    return list(reader), reader


class CountedFile(io.BytesIO):
    """Counts the bytes that are read from it."""

    read_bytes = 0

    def read(self, size: Optional[int] = -1, /) -> bytes:
        out = super().read(size)
        self.read_bytes += len(out)
        return out
