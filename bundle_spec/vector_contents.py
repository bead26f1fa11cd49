"""Frames whose checksums hold and whose content is wrong, each with what is wrong about it."""

from __future__ import annotations

import struct

import msgpack
from vector_parts import END, GAP, SERIES, Map, filled

from leakcase_bundle.encoding import MAX_ARRAY_LENGTH, MAX_STRING_BYTES, encode_map
from leakcase_bundle.records import ThreadGroup
from leakcase_bundle.schema import KIND_KEY, VERSION_KEY, record_kinds, to_map
from leakcase_bundle.strings import NameToken

#: By name: what it is about, the content, how many records the header declares.
Bad = dict[str, tuple[str, bytes, int]]


def outside_the_profile() -> Bad:
    """Contents outside the profile of msgpack."""
    end = encode_map(to_map(END))

    def with_field(value: bytes, key: bytes = b"\xa1a") -> bytes:
        return b"\x83\xa6record\xa3gap\xaerecord_version\x01" + key + value

    return {
        "nested-deeply": ("Arrays in arrays, 5,000 deep.", with_field(b"\x91" * 5_000), 1),
        "nested-array": ("An array in an array.", with_field(b"\x91\x91\x01"), 1),
        "nested-map": ("A map in a map.", with_field(b"\x81\xa1b\x01"), 1),
        "map-in-array": ("A map in an array.", with_field(b"\x91\x81\xa1b\x01"), 1),
        "long-array": (
            "An array that claims one value more than allowed.",
            with_field(b"\xdd" + struct.pack(">I", MAX_ARRAY_LENGTH + 1) + b"\xc0" * 9), 1,
        ),
        "huge-array": ("An array that claims 4 G values.", with_field(b"\xdd\xff\xff\xff\xff"), 1),
        "huge-map": ("A map that claims 4 G fields.", b"\xdf\xff\xff\xff\xff", 1),
        "many-fields": (
            "A record of 257 fields.", msgpack.packb({f"f{n:03}": n for n in range(257)}), 1,
        ),
        "long-string": (
            "A string of one byte more than allowed.",
            with_field(msgpack.packb("x" * (MAX_STRING_BYTES + 1))), 1,
        ),
        "huge-string": ("A string that claims 4 GiB.", with_field(b"\xdb\xff\xff\xff\xff"), 1),
        "huge-binary": ("A binary that claims 4 GiB.", with_field(b"\xc6\xff\xff\xff\xff"), 1),
        "invalid-utf8": ("A string that is not UTF-8.", with_field(b"\xa3\xff\xfea"), 1),
        "surrogate": ("A string with an encoded surrogate.", with_field(b"\xa3\xed\xa0\x80"), 1),
        "float": ("A fraction.", with_field(msgpack.packb(1.5)), 1),
        "float-in-array": ("A fraction in an array.", with_field(msgpack.packb([1, 1.5])), 1),
        "extension": ("An extension type.", with_field(b"\xd4\x05\x00"), 1),
        "empty-extension": ("An extension type without a byte.", with_field(b"\xc7\x00\x05"), 1),
        "timestamp": ("A timestamp.", with_field(b"\xd6\xff\0\0\0\1"), 1),
        "extension-in-array": ("An extension in an array.", with_field(b"\x91\xc7\x00\x05"), 1),
        "reserved-byte": ("The byte that msgpack never uses.", with_field(b"\xc1"), 1),
        "integer-key": ("A field whose name is a number.", with_field(b"\x01", b"\x07"), 1),
        "binary-key": ("A field whose name is a binary.", with_field(b"\x01", b"\xc4\x01a"), 1),
        "array-key": ("A field whose name is an array.", with_field(b"\x01", b"\x90"), 1),
        "not-a-map": ("A number where a record should be.", b"\x07" + end, 2),
        "cut-record": ("A record that ends within a field.", end + end[:-3], 2),
        "more-records": ("More records than the header declares.", end * 3, 1),
        "fewer-records": ("Fewer records than the header declares.", end, 3),
    }  # fmt: skip


def outside_the_registry() -> Bad:
    """Records that decode but are not what their kind says."""
    gap, series = to_map(GAP), to_map(SERIES)
    name = to_map(ThreadGroup(taken_ns=1, name=NameToken("<name:1>"), count=2))

    def one(raw: Map) -> bytes:
        return encode_map(raw)

    return {
        "no-kind": ("A record without a kind.", one({VERSION_KEY: 1}), 1),
        "no-version": ("A record without a version.", one({KIND_KEY: "gap"}), 1),
        "kind-is-a-list": ("A kind that is a list.", one({**gap, KIND_KEY: ["gap"]}), 1),
        "kind-is-unprintable": (
            "A kind with an escape in it.", one({**gap, KIND_KEY: "\x1b[2J"}), 1,
        ),
        "version-is-true": ("A version that is a boolean.", one({**gap, VERSION_KEY: True}), 1),
        "version-zero": ("A version that never was.", one({**gap, VERSION_KEY: 0}), 1),
        "field-missing": (
            "A field that must be there is not.", one({**gap, "probe": None}), 1,
        ),
        "string-for-integer": ("A string for an integer.", one({**gap, "errno": "13"}), 1),
        "boolean-for-integer": ("A boolean for an integer.", one({**gap, "errno": True}), 1),
        "unsigned-integer": ("An integer beyond 63 bits.", one({**gap, "errno": 1 << 63}), 1),
        "list-for-one": ("A list where one value belongs.", one({**gap, "reason": ["failed"]}), 1),
        "one-for-list": ("One value where a column belongs.", one({**series, "rss_bytes": 4}), 1),
        "not-a-word": ("A sentence in a field of words.", one({**gap, "reason": "It failed."}), 1),
        "control-characters": (
            "A name that moves the cursor.", one({**name, "name": "a\x1b]0;x\x07"}), 1,
        ),
        "right-to-left": ("A name that turns the line.", one({**name, "name": "a\u202ecba"}), 1),
        "long-token": ("A name of 513 characters.", one({**name, "name": "x" * 513}), 1),
        "columns-differ": ("A column that is too short.", one({**series, "threads": [1, 2]}), 1),
        "column-of-strings": ("A string in a column.", one({**series, "threads": [1, "2", 3]}), 1),
        "column-overflows": (
            "A column whose sums leave 64 bits.",
            one({**series, "threads": [(1 << 63) - 1, 1, 0]}), 1,
        ),
        "no-times": ("A series without times.", one({**series, "taken_ns": None}), 1),
        "no-samples": (
            "A series of no samples.",
            one({KIND_KEY: "series.status", VERSION_KEY: 1, "taken_ns": []}), 1,
        ),
        "time-unknown": (
            "A sample whose time is nil.", one({**series, "taken_ns": [1, None, 2]}), 1,
        ),
        "nil-in-a-list": (
            "A nil in a list of words.",
            one({**to_map(filled(record_kinds()["case"])), "levels": ["observe", None]}), 1,
        ),
    }  # fmt: skip
