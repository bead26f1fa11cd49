"""Maps to bytes and back: a strict profile of msgpack.

Profile (SPEC.md, "Encoding"): a record is one map with string keys in sorted order; values are
nil, booleans, integers in their smallest form, strings (UTF-8), binaries, or arrays of those;
no floats, no extension types, no nested maps, no arrays in arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack

from .errors import Damaged, LimitExceeded

#: A frame's content may not be larger than this, nor any array or map longer than its count.
MAX_FRAME_BYTES = 1 << 20
MAX_ARRAY_LENGTH = 1 << 16
MAX_MAP_LENGTH = 256
MAX_STRING_BYTES = 4096

_packer = msgpack.Packer(use_bin_type=True)


def encode_map(raw: dict[str, Any]) -> bytes:
    """One record's map as bytes, keys sorted."""
    packed: bytes = _packer.pack({key: raw[key] for key in sorted(raw)})
    return packed


def decode_maps(content: bytes) -> Iterator[dict[str, Any]]:
    """The maps of a frame's content, one after another.

    Raises Damaged on anything outside the profile, LimitExceeded on lengths beyond it.
    """
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        max_buffer_size=MAX_FRAME_BYTES,
        max_str_len=MAX_STRING_BYTES,
        max_bin_len=MAX_STRING_BYTES,
        max_array_len=MAX_ARRAY_LENGTH,
        max_map_len=MAX_MAP_LENGTH,
        max_ext_len=0,
    )
    if len(content) > MAX_FRAME_BYTES:
        raise LimitExceeded(
            f"a frame holds {len(content)} bytes; the format allows {MAX_FRAME_BYTES}"
        )
    unpacker.feed(content)
    while unpacker.tell() < len(content):
        yield _checked(_next(unpacker))


def _next(unpacker: Any) -> Any:
    try:
        return unpacker.unpack()
    except msgpack.exceptions.OutOfData as error:
        raise Damaged("a record ends before its last field") from error
    except msgpack.exceptions.StackError as error:
        raise LimitExceeded("a record is nested deeper than the format allows") from error
    except (ValueError, RecursionError) as error:  # all of msgpack's own, UnicodeDecodeError too
        raise Damaged("a record is not valid in the format's msgpack profile") from error


def _checked(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise Damaged("something else than a record stands in a frame")
    for key, value in item.items():
        if not isinstance(key, str):
            raise Damaged("a record has a field name that is not a string")
        if isinstance(value, list):
            if any(isinstance(v, (list, dict, float)) for v in value):
                raise Damaged("a record holds a nested or fractional value")
        elif not (value is None or isinstance(value, (bool, int, str, bytes))):
            raise Damaged("a record holds a nested or fractional value")
    return item
