"""What test vectors are built from: codecs without a library, cases that may be wrong, records.

Bodies are stored rather than compressed (zlib's stored blocks, zstd's raw blocks), so that the
bytes do not depend on the version of a library; the few that a library compressed say so.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from leakcase_bundle import records as kinds
from leakcase_bundle.codecs import CODECS, ZLIB, ZSTD, Codec
from leakcase_bundle.encoding import encode_map
from leakcase_bundle.framing import (
    FORMAT_MINOR,
    LAST,
    RECORDS,
    pack_frame,
    prologue,
)
from leakcase_bundle.scan import INDEX_KIND, INDEX_VERSION
from leakcase_bundle.schema import (
    INT_MAX,
    INT_MIN,
    KIND_KEY,
    TIME_COLUMN,
    VERSION_KEY,
    FieldSpec,
    RecordSpec,
    to_map,
)
from leakcase_bundle.strings import TOKENS_BY_FIELD_CLASS
from leakcase_bundle.vocabulary import VOCABULARIES

Map = dict[str, Any]


@dataclass(frozen=True)
class Vector:
    """A file, what it is about, and whether a library's version shows in its bytes."""

    about: str
    content: bytes
    library_made: bool = False


# --- codecs without a library ----------------------------------------------------------------


def stored_zlib(content: bytes) -> bytes:
    """RFC 1950 and 1951: one stored block for every 65,535 bytes."""
    out = bytearray(b"\x78\x01")
    for start in range(0, max(1, len(content)), 0xFFFF):
        block = content[start : start + 0xFFFF]
        is_last = start + 0xFFFF >= len(content)
        out += struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block
    return bytes(out) + struct.pack(">I", zlib.adler32(content))


_ZSTD_MAGIC = struct.pack("<I", 0xFD2FB528)
_RAW, _RLE = 0, 1
_BLOCK_BYTES = 128 << 10


def _zstd_block(kind: int, size: int, data: bytes, is_last: bool) -> bytes:
    return struct.pack("<I", is_last | kind << 1 | size << 3)[:3] + data


def stored_zstd(content: bytes) -> bytes:
    """RFC 8878: a single-segment frame of raw blocks with a four-byte content size."""
    out = bytearray(_ZSTD_MAGIC + b"\xa0" + struct.pack("<I", len(content)))
    for start in range(0, max(1, len(content)), _BLOCK_BYTES):
        block = content[start : start + _BLOCK_BYTES]
        out += _zstd_block(_RAW, len(block), block, start + _BLOCK_BYTES >= len(content))
    return bytes(out)


def zstd_bomb(blocks: int, window_descriptor: int = 0x68) -> bytes:
    """A frame of run-length blocks: four bytes for each 128 KiB. 0x68 is a window of 8 MiB."""
    out = bytearray(_ZSTD_MAGIC + bytes((0, window_descriptor)))
    for block in range(blocks):
        out += _zstd_block(_RLE, _BLOCK_BYTES, b"\0", block == blocks - 1)
    return bytes(out)


def fixed(codec: int, body: bytes) -> Codec:
    """A codec whose body is the same whatever the content: a frame that lies."""
    return Codec(codec, lambda _: body, CODECS[codec].decompress)


ZLIB_STORED = Codec(ZLIB, stored_zlib, CODECS[ZLIB].decompress)
ZSTD_STORED = Codec(ZSTD, stored_zstd, CODECS[ZSTD].decompress)


# --- building files --------------------------------------------------------------------------


class Draft:
    """A case under construction; anything may be wrong with it."""

    def __init__(self, codec: Codec = ZLIB_STORED, minor: int = FORMAT_MINOR) -> None:
        self.codec = codec
        self.start = prologue(minor)
        self.frames: list[bytes] = []
        self.records = 0

    def add(self, *maps: Any, codec: Optional[Codec] = None) -> Draft:
        """A frame of records, or of maps as they are."""
        as_maps = [item if isinstance(item, dict) else to_map(item) for item in maps]
        content = b"".join(encode_map(item) for item in as_maps)
        return self.add_content(content, len(maps), codec=codec)

    def add_content(
        self,
        content: bytes,
        records: int = 1,
        codec: Optional[Codec] = None,
        kind: int = RECORDS,
        sequence: Optional[int] = None,
    ) -> Draft:
        """A frame of any content."""
        due = len(self.frames) if sequence is None else sequence
        self.frames.append(pack_frame(codec or self.codec, kind, due, records, content))
        self.records += records
        return self

    def last(self, frames: Optional[Sequence[bytes]] = None) -> bytes:
        """The last frame that these frames (all of the draft, unless named) ask for."""
        body = [self.start, *(self.frames if frames is None else frames)]
        index = {
            KIND_KEY: INDEX_KIND,
            VERSION_KEY: INDEX_VERSION,
            "frames": len(self.frames),
            "records": self.records,
            "frame_bytes": [len(frame) for frame in self.frames],
            "sha256": hashlib.sha256(b"".join(body)).digest(),
        }
        return pack_frame(self.codec, LAST, len(self.frames), 1, encode_map(index))

    def whole(self) -> bytes:
        return b"".join((self.start, *self.frames, self.last()))

    def without(self, *left_out: int) -> bytes:
        """The file without some of its frames, but with the last frame of the whole."""
        kept = [frame for number, frame in enumerate(self.frames) if number not in left_out]
        return b"".join((self.start, *kept, self.last()))


def flipped(content: bytes, position: int) -> bytes:
    """The same bytes with one bit of one turned over."""
    return content[:position] + bytes((content[position] ^ 0x10,)) + content[position + 1 :]


# --- records -----------------------------------------------------------------------------------

TOKEN_EXAMPLES: dict[str, str] = {
    "path": "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "name": "<name:1>",
    "user": "<user:1>",
    "host": "<host:1>",
    "address": "<private:1>:5432",
    "arguments": "--port",
    "environment": "4",
    "symbol": "std::vector<int>::push_back(int const&)",
    "package": "libc6",
    "version": "2.36-9+deb12u10",
    "build_id": "0123456789abcdef0123456789abcdef01234567",
    "label": "deploy-2",
}


def filled(spec: RecordSpec) -> Any:
    """A record of a kind with every field filled."""
    return spec.cls(
        **{field.name: _example(field, number) for number, field in enumerate(spec.fields, 2)}
    )


def _example(field: FieldSpec, number: int) -> Any:
    if field.shape == "column":
        return [number, 1_000 + number if field.name == TIME_COLUMN else None, 2_000 * number]
    one: Any
    if field.token is not None:
        one = TOKENS_BY_FIELD_CLASS[field.scalar](TOKEN_EXAMPLES[field.scalar])
    elif field.vocabulary is not None:
        one = min(VOCABULARIES[field.vocabulary])
    else:
        examples = {"int": number * 1_000_003, "bool": number % 2 == 0, "bytes": b"\x00\xff"}
        one = examples[field.scalar]
    return [one, one] if field.shape == "list" else one


GAP = kinds.Gap(taken_ns=1_000, probe="regions", reason="not-permitted", detail="smaps", errno=13)
SERIES = kinds.StatusSeries(
    taken_ns=[1_000_000_000, 2_000_000_000, 3_000_000_017],
    rss_bytes=[40_960, None, 45_056],
    swap_bytes=[0, 0, 0],
    threads=[3, 4, 3],
)
EXTREMES = kinds.StatusSeries(taken_ns=[0, 1, 2, 3], rss_bytes=[INT_MIN, -1, 0, INT_MAX])
END = kinds.CaseEnd(taken_ns=4_000_000_000, reason="duration")


def three_frames(codec: Codec = ZLIB_STORED) -> Draft:
    """Three frames with two, one and one records."""
    return Draft(codec).add(GAP, SERIES).add(SERIES).add(END)
