"""What a block's bytes look like: each label, and what must not be taken for it."""

from __future__ import annotations

import base64
import math
import random
import struct
import zlib
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakcase_collector.heap.contents import Mapped, label
from leakcase_collector.system.memory import MemoryMapping

HEAP = 0x5555_0000_0000
MAPPED = Mapped([
    MemoryMapping(HEAP, HEAP + (1 << 24), True, True, False, True, 0, b"00:00", 0, b"[heap]"),
    MemoryMapping(1 << 46, (1 << 46) + 4096, False, False, False, True, 0, b"00:00", 0, b""),
])  # fmt: skip
SOURCE = random.Random(11)
SENTENCE = "The quick brown fox jumps over the lazy dog; Grüße, 你好.\n" * 9


def words(*values: int) -> bytes:
    return struct.pack(f"={len(values)}Q", *values)


def doubles(count: int) -> bytes:
    return struct.pack(f"={count}d", *(math.sin(n) * n for n in range(count)))


CONTENTS: dict[str, tuple[Optional[str], bytes]] = {
    "zeros": ("zero", bytes(64)),
    "text": ("text", SENTENCE.encode()),
    "short text in a block": ("text", b"session-42".ljust(24, b"\0")),
    "text cut within a character": ("text", ("x" * 509 + "你").encode()[:511]),
    "text that begins within a character": ("text", ("你" * 20).encode()[1:]),
    "base64": ("text", base64.b64encode(SOURCE.randbytes(300))),
    "text with lines and tabs": ("text", b"a\tb\r\nc\td\r\n" * 7),
    "a string before old bytes": (None, b"name\0".ljust(64, b"\x83")),
    "text in Latin-1": (None, "Grüße und Küsse, ".encode("latin-1") * 9),
    "control characters": (None, b"\x1b[31mred\x1b[0m" * 9),
    "pointers": ("pointer", words(*(HEAP + 48 * n for n in range(60)))),
    "a list's node": ("pointer", words(HEAP + 64, HEAP + 128, 7, 0, 0)),
    "one pointer among numbers": (None, words(HEAP + 64, 1, 2, 3, 4, 5)),
    "addresses of what is not readable": (None, words(*((1 << 46) + n for n in range(60)))),
    "random": ("entropy", SOURCE.randbytes(512)),
    "a small random block": ("entropy", SOURCE.randbytes(64)),
    "compressed": ("entropy", zlib.compress(bytes(SOURCE.choices(range(97, 123), k=900)), 9)[:512]),
    "doubles": (None, doubles(64)),
    "small numbers": (None, struct.pack("=128I", *range(128))),
    "too few bytes to tell": (None, bytes.fromhex("81f3a92c9dbe01e7")),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENTS)
def test_a_block_is_labelled_by_what_its_bytes_look_like(name: str) -> None:
    expected, content = CONTENTS[name]
    assert label(content, MAPPED) == expected


def test_random_bytes_are_known_as_such_whatever_they_are() -> None:
    for size in (48, 64, 100, 256, 512, 1000):
        known = sum(label(SOURCE.randbytes(size), MAPPED) == "entropy" for _ in range(200))
        assert known >= 190, size


@given(st.binary(max_size=1024))
def test_any_bytes_have_a_label_or_none(content: bytes) -> None:
    assert label(content, MAPPED) in ("zero", "text", "pointer", "entropy", None)
