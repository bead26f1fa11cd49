"""The container: a valid zstd stream in which every frame can be found and checked on its own.

    file   = prologue frame* last-frame
    frame  = header body

The prologue, each frame's header and each zlib body travel in zstd *skippable frames* (RFC 8878,
section 3.1.2), so that ``zstd -dc`` prints the msgpack stream of a zstd-written case. See SPEC.md.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Optional

from .codecs import CODECS, ZLIB, Codec
from .encoding import MAX_FRAME_BYTES
from .errors import Damaged, LimitExceeded, NewerFormat, NotACase

FORMAT_MAJOR = 1
FORMAT_MINOR = 0

MAX_STORED_BYTES = MAX_FRAME_BYTES + (MAX_FRAME_BYTES >> 4) + 1024
MAX_RECORDS_PER_FRAME = 1 << 16

_SKIPPABLE_PROLOGUE = 0x184D2A5E
_SKIPPABLE_HEADER = 0x184D2A5D
_SKIPPABLE_BODY = 0x184D2A5C

_PROLOGUE = struct.Struct("<II8sHH")  # skippable magic, size, "leakcase", major, minor
_PROLOGUE_MAGIC = b"leakcase"
PROLOGUE_BYTES = _PROLOGUE.size

# skippable magic, size | kind, codec, major format number, sequence, records, raw bytes,
# stored bytes, crc of the body | crc of all before. The major number stands in every header, so
# that a file whose first bytes are lost can still be salvaged by a reader that knows its format.
_HEADER = struct.Struct("<IIBBHIIIIII")
HEADER_BYTES = _HEADER.size
_BODY_WRAP = struct.Struct("<II")

#: What a header starts with: where to look for the next frame after damage.
HEADER_START = struct.pack("<II", _SKIPPABLE_HEADER, HEADER_BYTES - 8)

#: Kinds of frames. A reader passes over a kind that it does not know.
RECORDS = 1
LAST = 2


@dataclass(frozen=True)
class FrameHeader:
    """What a frame says of itself; `stored_bytes` is the length of the body that follows."""

    kind: int
    codec: int
    major: int
    sequence: int
    records: int
    raw_bytes: int
    stored_bytes: int
    body_crc: int


def prologue(minor: int = FORMAT_MINOR) -> bytes:
    """The first bytes of every case."""
    return _PROLOGUE.pack(
        _SKIPPABLE_PROLOGUE, PROLOGUE_BYTES - 8, _PROLOGUE_MAGIC, FORMAT_MAJOR, minor
    )


def read_prologue(start: bytes) -> int:
    """The minor format number of a case that begins with `start`.

    Raises NotACase, or NewerFormat for a major number that this reader does not know.
    """
    if len(start) < PROLOGUE_BYTES:
        raise NotACase("this is not a leakcase file: it is shorter than a case's first bytes")
    magic, size, name, major, minor = _PROLOGUE.unpack_from(start)
    if (magic, size, name) != (_SKIPPABLE_PROLOGUE, PROLOGUE_BYTES - 8, _PROLOGUE_MAGIC):
        raise NotACase("this is not a leakcase file: its first bytes are not those of a case")
    if major > FORMAT_MAJOR:
        raise NewerFormat(
            f"this case has format {major}.{minor} and this reader knows up to "
            f"{FORMAT_MAJOR}.{FORMAT_MINOR}: update leakcase"
        )
    if major == 0:
        raise NotACase("this is not a leakcase file: its format number is 0")
    return int(minor)


def pack_frame(codec: Codec, kind: int, sequence: int, records: int, content: bytes) -> bytes:
    """A whole frame, header and body."""
    body = codec.compress(content)
    if codec.number == ZLIB:
        body = _BODY_WRAP.pack(_SKIPPABLE_BODY, len(body)) + body
    header = _HEADER.pack(
        _SKIPPABLE_HEADER, HEADER_BYTES - 8, kind, codec.number, FORMAT_MAJOR, sequence, records,
        len(content), len(body), zlib.crc32(body), 0,
    )  # fmt: skip
    return header[:-4] + struct.pack("<I", zlib.crc32(header[:-4])) + body


def read_header(raw: bytes) -> Optional[FrameHeader]:
    """The header in `raw` (HEADER_BYTES long), or None where there is none.

    Raises Damaged where an intact header is of another major format, LimitExceeded where it
    declares more than the format allows.
    """
    if len(raw) < HEADER_BYTES or not raw.startswith(HEADER_START):
        return None
    fields = _HEADER.unpack_from(raw)
    if zlib.crc32(raw[: HEADER_BYTES - 4]) != fields[10]:
        return None
    header = FrameHeader(*fields[2:10])
    if header.major != FORMAT_MAJOR:
        raise Damaged(f"a frame is of format {header.major}, in a case of format {FORMAT_MAJOR}")
    if header.raw_bytes > MAX_FRAME_BYTES or header.stored_bytes > MAX_STORED_BYTES:
        raise LimitExceeded("a frame declares more bytes than the format allows")
    if header.records > MAX_RECORDS_PER_FRAME:
        raise LimitExceeded("a frame declares more records than the format allows")
    return header


def unpack_body(header: FrameHeader, body: bytes) -> bytes:
    """The content of a frame. Raises Damaged, LimitExceeded or CodecMissing."""
    if len(body) != header.stored_bytes:
        raise Damaged("the file ends in the middle of it")
    if zlib.crc32(body) != header.body_crc:
        raise Damaged("its checksum does not match its bytes")
    codec = CODECS.get(header.codec)
    if codec is None:
        raise Damaged("it is compressed in an unknown way")
    if codec.number == ZLIB:
        if len(body) < _BODY_WRAP.size or _BODY_WRAP.unpack_from(body) != (
            _SKIPPABLE_BODY,
            len(body) - _BODY_WRAP.size,
        ):
            raise Damaged("its body is not wrapped as the format says")
        body = body[_BODY_WRAP.size :]
    return codec.decompress(body, header.raw_bytes)
