"""Compression of a frame's content: zstd where it can be loaded, zlib always."""

from __future__ import annotations

import zlib
from typing import Callable, NamedTuple

from .errors import CodecMissing, Damaged, LimitExceeded

try:
    import zstandard
except ImportError:  # A zipapp cannot load C extensions, and some hosts have no wheel.
    zstandard = None  # type: ignore[assignment]

ZLIB = 1
ZSTD = 2

_MAX_WINDOW_BYTES = 8 << 20

#: Levels that keep a second of samples far below a millisecond of CPU.
_ZSTD_LEVEL = 9
_ZLIB_LEVEL = 9


class Codec(NamedTuple):
    number: int
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]


def _zstd_compress(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=True).compress(content)


def _zstd_decompress(stored: bytes, raw_bytes: int) -> bytes:
    if zstandard is None:
        raise CodecMissing(
            "this case is compressed with zstd, which Python cannot load here: "
            "install the package 'zstandard'"
        )
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    try:
        # Streaming: the size that the zstd header claims is never allocated on trust. RFC 8878
        # (3.1.1.1.2) recommends that decoders support windows of 8 MiB; more is refused.
        with decompressor.stream_reader(stored, read_across_frames=False) as stream:
            return _exactly(stream.read(raw_bytes + 1), raw_bytes)
    except zstandard.ZstdError as error:
        raise Damaged("it does not decompress") from error


def _zlib_decompress(stored: bytes, raw_bytes: int) -> bytes:
    engine = zlib.decompressobj()
    try:
        content = _exactly(engine.decompress(stored, raw_bytes + 1), raw_bytes)
    except zlib.error as error:
        raise Damaged("it does not decompress") from error
    if not engine.eof or engine.unused_data:
        raise Damaged("its body is not one compressed stream")
    return content


def _exactly(content: bytes, raw_bytes: int) -> bytes:
    if len(content) > raw_bytes:
        raise LimitExceeded("it decompresses to more than it declares")
    if len(content) < raw_bytes:
        raise Damaged("it decompresses to less than it declares")
    return content


CODECS: dict[int, Codec] = {
    ZLIB: Codec(ZLIB, lambda content: zlib.compress(content, _ZLIB_LEVEL), _zlib_decompress),
    ZSTD: Codec(ZSTD, _zstd_compress, _zstd_decompress),
}


def preferred_codec() -> Codec:
    """zstd where it can be loaded, else zlib."""
    return CODECS[ZLIB if zstandard is None else ZSTD]
