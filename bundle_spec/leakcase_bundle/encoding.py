"""Maps to bytes and back: a strict profile of msgpack.

Profile (SPEC.md, "Encoding"): a record is one map with string keys in sorted order; values are
nil, booleans, integers in their smallest form, strings (UTF-8), binaries, or arrays of those;
no floats, no extension types, no nested maps, no arrays in arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack

from .errors import Damaged, LimitExceeded, SpecViolation

#: A frame's content may not be larger than this, nor any array or map longer than its count.
MAX_FRAME_BYTES = 1 << 20
MAX_ARRAY_LENGTH = 1 << 16
MAX_MAP_LENGTH = 256
MAX_STRING_BYTES = 4096

_PLAIN = frozenset((type(None), bool, int, str, bytes))
_PLAIN_OR_LIST = _PLAIN | {list}

_packer = msgpack.Packer(use_bin_type=True)


def encode_map(raw: dict[str, Any]) -> bytes:
    """One record's map as bytes, keys sorted. Raises SpecViolation beyond the format's lengths."""
    if len(raw) > MAX_MAP_LENGTH:
        raise SpecViolation(f"a record has {len(raw)} fields; the format allows {MAX_MAP_LENGTH}")
    for key, value in raw.items():
        if isinstance(value, list) and len(value) > MAX_ARRAY_LENGTH:
            raise SpecViolation(
                f"{key} holds {len(value)} values; the format allows {MAX_ARRAY_LENGTH}"
            )
    packed: bytes = _packer.pack({key: raw[key] for key in sorted(raw)})
    if len(packed) > MAX_FRAME_BYTES:
        raise SpecViolation(
            f"a record takes {len(packed)} bytes; the format allows {MAX_FRAME_BYTES}"
        )
    return packed


def decode_maps(content: bytes) -> Iterator[dict[str, Any]]:
    """The maps of a frame's content, one after another.

    Raises Damaged on anything outside the profile, LimitExceeded where `content` is too long.
    """
    if len(content) > MAX_FRAME_BYTES:
        raise LimitExceeded(
            f"a frame holds {len(content)} bytes; the format allows {MAX_FRAME_BYTES}"
        )
    record = _RecordInProgress()
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        list_hook=record.take_list,
        object_hook=record.take_map,
        max_buffer_size=MAX_FRAME_BYTES,
        max_str_len=MAX_STRING_BYTES,
        max_bin_len=MAX_STRING_BYTES,
        max_array_len=MAX_ARRAY_LENGTH,
        max_map_len=MAX_MAP_LENGTH,
        max_ext_len=0,
    )
    unpacker.feed(content)
    while unpacker.tell() < len(content):
        record.lists = record.maps = 0
        try:
            item = unpacker.unpack()
        # OutOfData; else all of msgpack's own, and UnicodeDecodeError, are ValueErrors.
        except (msgpack.exceptions.OutOfData, ValueError, RecursionError) as error:
            raise _outside_profile() from error
        if type(item) is not dict:
            raise _outside_profile()
        yield item


class _RecordInProgress:
    """Checks lists and maps while msgpack finishes them, inner ones first.

    What is nested is thus refused at the second of its kind, before a frame has become a million
    of them.
    """

    lists = 0
    maps = 0

    def take_list(self, values: list[Any]) -> list[Any]:
        self.lists += 1
        if self.lists > MAX_MAP_LENGTH or not _PLAIN.issuperset(map(type, values)):
            raise _outside_profile()
        return values

    def take_map(self, raw: dict[Any, Any]) -> dict[str, Any]:
        self.maps += 1
        if self.maps > 1 or not all(type(key) is str for key in raw):
            raise _outside_profile()
        # Lists have been looked into when they were finished.
        if not _PLAIN_OR_LIST.issuperset(map(type, raw.values())):
            raise _outside_profile()
        return raw


def _outside_profile() -> Damaged:
    # One sentence for every cause: msgpack's C and Python halves notice nesting, lengths and ends
    # in different orders, and a case must read the same with either.
    return Damaged("a record is outside the format's profile of msgpack")
