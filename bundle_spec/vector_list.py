"""The test vectors of the format, by what they are about. `make_vectors.py` writes them down."""

from __future__ import annotations

import struct
import zlib

from vector_contents import outside_the_profile, outside_the_registry
from vector_parts import (
    END,
    EXTREMES,
    GAP,
    SERIES,
    ZLIB_STORED,
    ZSTD_STORED,
    Draft,
    Vector,
    filled,
    fixed,
    flipped,
    three_frames,
    zstd_bomb,
)

from leakcase_bundle.codecs import CODECS, ZLIB, ZSTD
from leakcase_bundle.encoding import MAX_FRAME_BYTES, encode_map
from leakcase_bundle.framing import (
    FORMAT_MAJOR,
    FORMAT_MINOR,
    HEADER_BYTES,
    HEADER_START,
    PROLOGUE_BYTES,
    pack_frame,
)
from leakcase_bundle.schema import KIND_KEY, VERSION_KEY, record_kinds, to_map


def vectors() -> dict[str, Vector]:
    """All vectors by name."""
    out: dict[str, Vector] = {}
    for group in (_whole, _newer, _refused, _torn, _damaged, _frames_out_of_place, _bombs):
        out.update(group())
    for name, (about, content, records) in {
        **outside_the_profile(),
        **outside_the_registry(),
    }.items():
        # A good frame before and behind: what is bad must not take them along.
        draft = Draft().add(GAP).add_content(content, records).add(END)
        out[name] = Vector(about, draft.whole())
    return out


def _whole() -> dict[str, Vector]:
    every = Draft()
    for spec in record_kinds().values():
        every.add(filled(spec))
    lonely = Draft()
    return {
        "whole-zlib": Vector("Three frames of records, zlib.", three_frames().whole()),
        "whole-zstd": Vector("The same, zstd.", three_frames(ZSTD_STORED).whole()),
        "whole-zlib-compressed": Vector(
            "The same, compressed by a library.", three_frames(CODECS[ZLIB]).whole(), True
        ),
        "whole-zstd-compressed": Vector(
            "The same, compressed by a library.", three_frames(CODECS[ZSTD]).whole(), True
        ),
        "mixed-codecs": Vector(
            "Each frame has a codec of its own.",
            Draft().add(GAP, codec=ZSTD_STORED).add(SERIES).add(END, codec=ZSTD_STORED).whole(),
        ),
        "every-kind": Vector("A record of every kind with every field filled.", every.whole()),
        "extreme-integers": Vector(
            "A column that runs through the whole range of integers.", Draft().add(EXTREMES).whole()
        ),
        "no-records": Vector(
            "A last frame and nothing before it: whole, and empty.", lonely.whole()
        ),
    }


def _newer() -> dict[str, Vector]:
    gap = to_map(GAP)
    stranger = {KIND_KEY: "later_kind", VERSION_KEY: 3, "blob": b"\x01\xff", "sizes": [1, None, -2]}
    return {
        "unknown-fields": Vector(
            "A known kind with fields that came later: they are ignored.",
            Draft().add({**gap, "zz_later": [True, "x", b"\x00"], "a_later": 5}).add(END).whole(),
        ),
        "unknown-kinds": Vector(
            "Records of kinds that came later are counted and passed over.",
            Draft().add(stranger, GAP).add(END).whole(),
        ),
        "unknown-frame-kind": Vector(
            "A frame of a kind that came later is passed over; the digest covers it.",
            Draft().add(GAP).add_content(b"anything", 0, kind=3).add(END).whole(),
        ),
        "unknown-words": Vector(
            "A word that came later is handed on as it is.",
            Draft().add({**gap, "reason": "later-reason"}).add(END).whole(),
        ),
        "newer-record-version": Vector(
            "A known kind in a version that came later counts as unknown.",
            Draft().add({**gap, VERSION_KEY: 2, "errno": "other"}, END).whole(),
        ),
        "newer-minor": Vector(
            "A newer minor format is read.",
            Draft(minor=FORMAT_MINOR + 7).add(GAP, SERIES).add(END).whole(),
        ),
    }


def _refused() -> dict[str, Vector]:
    whole = three_frames().whole()
    return {
        "newer-major": Vector(
            "A newer major format is refused: update leakcase.",
            whole[:16] + struct.pack("<HH", FORMAT_MAJOR + 1, 0) + whole[PROLOGUE_BYTES:],
        ),
        "major-zero": Vector(
            "There is no format 0.", whole[:16] + struct.pack("<HH", 0, 0) + whole[PROLOGUE_BYTES:]
        ),
        "empty": Vector("An empty file is not a case.", b""),
        "half-a-prologue": Vector("Ten bytes are not a case.", whole[:10]),
        "garbage": Vector("Bytes of anything.", bytes(n * n * 7 & 0xFF for n in range(2_000))),
        "damaged-prologue": Vector(
            "One bit of the first bytes is wrong: refused, but a salvage finds all frames.",
            flipped(whole, 9),
        ),
        "bytes-before": Vector(
            "Something put bytes before a case: refused, but a salvage finds all frames.",
            b"\xef\xbb\xbfContent-Type: text/plain\r\n\r\n" + whole,
        ),
    }


def _torn() -> dict[str, Vector]:
    draft = three_frames()
    whole, last = draft.whole(), len(draft.last())
    second = PROLOGUE_BYTES + len(draft.frames[0])
    return {
        "prologue-only": Vector("Killed before the first frame.", whole[:PROLOGUE_BYTES]),
        "torn-between-frames": Vector("Killed between two frames.", whole[:second]),
        "torn-in-a-header": Vector("Killed within a header.", whole[: second + HEADER_BYTES - 5]),
        "torn-after-4-bytes": Vector("Killed within a header's first bytes.", whole[: second + 4]),
        "torn-in-a-body": Vector("Killed within a body.", whole[: second + HEADER_BYTES + 30]),
        "torn-before-the-last": Vector("All records, no last frame.", whole[:-last]),
        "torn-in-the-last": Vector("All records, half a last frame.", whole[: -last // 2]),
        "torn-zstd": Vector(
            "Killed within a body, zstd.", three_frames(ZSTD_STORED).whole()[: second + 60]
        ),
    }


def _damaged() -> dict[str, Vector]:
    draft = three_frames()
    whole = draft.whole()
    first = PROLOGUE_BYTES
    second = first + len(draft.frames[0])
    last = len(whole) - len(draft.last())
    return {
        "bit-in-a-header": Vector("One bit of a header is wrong.", flipped(whole, second + 20)),
        "bit-in-a-header-start": Vector("One bit of a magic number.", flipped(whole, second + 1)),
        "bit-in-a-body": Vector("One bit of a body.", flipped(whole, second + HEADER_BYTES + 25)),
        "bit-in-the-last-body": Vector("One bit of the index.", flipped(whole, len(whole) - 20)),
        "bit-in-the-last-header": Vector("One bit of its header.", flipped(whole, last + 13)),
        "bytes-lost": Vector(
            "Ten bytes of a body are gone: the next frame begins too early and is found.",
            whole[: second + 60] + whole[second + 70 :],
        ),
        "bytes-between": Vector(
            "Bytes that are no frame between two frames.",
            whole[:second] + b"\0" * 77 + whole[second:],
        ),
        "bytes-after": Vector("Bytes follow the last frame.", whole + b"trailing"),
        "two-cases": Vector("One case behind another: the first one counts.", whole * 2),
        "frame-exchanged": Vector(
            "A frame was replaced by another good one: only the digest tells.",
            whole[:second]
            + pack_frame(ZLIB_STORED, 1, 1, 1, encode_map(to_map(GAP)))
            + whole[second + len(draft.frames[1]) :],
        ),
        "body-wrapped-wrongly": Vector(
            "The body of a zlib frame is not in a skippable frame.",
            _with_frame(_rewrapped(pack_frame(ZLIB_STORED, 1, 1, 1, b"\x80"))),
        ),
    }


def _with_frame(frame: bytes) -> bytes:
    draft = Draft().add(GAP)
    draft.frames.append(frame)
    return draft.add(END).whole()


def _rewrapped(frame: bytes) -> bytes:
    """The same frame, with the magic number before its zlib body changed and checksums mended."""
    body = b"\x5b" + frame[HEADER_BYTES + 1 :]
    header = frame[: HEADER_BYTES - 8] + struct.pack("<I", zlib.crc32(body))
    return header + struct.pack("<I", zlib.crc32(header)) + body


def _frames_out_of_place() -> dict[str, Vector]:
    draft = three_frames()
    start, (one, two, three), last = draft.start, draft.frames, draft.last()
    return {
        "missing-frame": Vector("The middle frame is gone.", draft.without(1)),
        "missing-frames": Vector("The first two frames are gone.", draft.without(0, 1)),
        "missing-before-last": Vector("The frame before the last is gone.", draft.without(2)),
        "repeated-frame": Vector("A frame stands twice.", start + one + two + two + three + last),
        "frames-swapped": Vector("Two frames stand in the wrong order.", start + two + one + three),
        "last-in-the-middle": Vector(
            "Frames follow the last frame: they are not read.", start + one + last + two + three
        ),
        "huge-sequence": Vector(
            "A frame number far ahead.",
            Draft().add(GAP).add_content(encode_map(to_map(END)), sequence=0xFFFFFFF0).whole(),
        ),
    }


def _bombs() -> dict[str, Vector]:
    zeros = zlib.compress(b"\0" * (24 << 20), 9)
    fixed_zlib = fixed(ZLIB, zeros)
    short = encode_map(to_map(END))
    body = {
        "zstd": fixed(ZSTD, zstd_bomb(512)),
        "window": fixed(ZSTD, zstd_bomb(1, 0x80)),
        "tail": fixed(ZLIB, ZLIB_STORED.compress(short) + b"tail"),
        "short": fixed(ZSTD, ZSTD_STORED.compress(short)),
    }

    return {
        "bomb-zlib": Vector(
            "24 MiB in a frame that declares 1 MiB.",
            _with_frame(pack_frame(fixed_zlib, 1, 1, 1, b"\0" * MAX_FRAME_BYTES)), True,
        ),
        "bomb-zstd": Vector(
            "64 MiB of run-length blocks in a frame that declares 1 MiB.",
            _with_frame(pack_frame(body["zstd"], 1, 1, 1, b"\0" * MAX_FRAME_BYTES)),
        ),
        "bomb-zstd-window": Vector(
            "A zstd frame that asks for a window of 64 MiB.",
            _with_frame(pack_frame(body["window"], 1, 1, 1, short)),
        ),
        "declares-too-little": Vector(
            "A body that holds more than its header declares.",
            _with_frame(pack_frame(fixed(ZLIB, ZLIB_STORED.compress(short)), 1, 1, 1, short[:-1])),
        ),
        "declares-too-much": Vector(
            "A body that holds less than its header declares.",
            _with_frame(pack_frame(body["short"], 1, 1, 1, short + b"\0")),
        ),
        "declares-beyond-limits": Vector(
            "An intact header that declares a content of 4 GiB.",
            _with_frame(_header_only(raw_bytes=0xFFFFFFFF)),
        ),
        "declares-too-many-records": Vector(
            "An intact header that declares four thousand million records.",
            _with_frame(_header_only(records=0xFFFFFFFF)),
        ),
        "tail-in-a-body": Vector(
            "Bytes behind the zlib stream within a body.",
            _with_frame(pack_frame(body["tail"], 1, 1, 1, short)),
        ),
        "unknown-codec": Vector(
            "A codec that the format does not have.", _with_frame(_header_only(codec=9))
        ),
        "other-major-in-a-header": Vector(
            "A frame of another major format.", _with_frame(_header_only(major=2))
        ),
        "only-header-starts": Vector(
            "Two thousand false beginnings of a header.", Draft().start + HEADER_START * 2_000
        ),
    }  # fmt: skip


def _header_only(
    raw_bytes: int = 1, records: int = 1, codec: int = ZLIB, major: int = FORMAT_MAJOR
) -> bytes:
    header = HEADER_START + struct.pack(
        "<BBHIIIII", 1, codec, major, 1, records, raw_bytes, 0, zlib.crc32(b"")
    )
    return header + struct.pack("<I", zlib.crc32(header))
