"""What a block's bytes look like: one word for it, and nothing else leaves this file."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from typing import Optional

from leakcase_collector.system.memory import MemoryMapping

_WORD_BYTES = 8
#: Behind a text that is shorter than its block stands what was there before.
_TEXT_SHARE = 0.75
_LEAST_TEXT_BYTES = 4
_POINTER_SHARE = 0.5
#: Fewer bytes do not tell random ones from others.
_LEAST_RANDOM_BYTES = 48
#: Of the different byte values that so many random bytes have on average.
_RANDOM_VALUES_SHARE = 0.85
_WITHIN_A_CHARACTER = bytes(range(0x80, 0xC0))
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\r") | {127}


def label(content: bytes, mapped: Mapped) -> Optional[str]:
    """``zero``, ``text``, ``pointer`` or ``entropy``; None where it is of no one kind."""
    used = content.rstrip(b"\0")
    if not used:
        return "zero"
    if _is_text(used):
        return "text"
    if mapped.is_mostly_pointers(content):
        return "pointer"
    return "entropy" if _is_random(content) else None


class Mapped:
    """Which addresses are mapped."""

    def __init__(self, mappings: Sequence[MemoryMapping]) -> None:
        readable = [m for m in mappings if m.readable]
        self._starts = [m.start for m in readable]
        self._ends = [m.end for m in readable]

    def is_mostly_pointers(self, content: bytes) -> bool:
        """Whether at least half of its words that are not 0 are addresses of mapped memory."""
        count = len(content) // _WORD_BYTES
        words = [word for word in struct.unpack_from(f"={count}Q", content) if word]
        pointers = sum(1 for word in words if self._holds(word))
        return bool(pointers) and pointers >= _POINTER_SHARE * len(words)

    def _holds(self, address: int) -> bool:
        at = bisect_right(self._starts, address) - 1
        return at >= 0 and address < self._ends[at]


def _is_text(used: bytes) -> bool:
    """Whether a run of printable UTF-8 from its beginning covers most of it."""
    text = used.split(b"\0", 1)[0]
    # The look begins and ends somewhere, perhaps within a character of up to four bytes.
    text = text[:3].lstrip(_WITHIN_A_CHARACTER) + text[3:]
    if len(text) < max(_LEAST_TEXT_BYTES, _TEXT_SHARE * len(used)):
        return False
    if not _CONTROL.isdisjoint(text):
        return False
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and len(text) - error.start < 4
    return True


def _is_random(content: bytes) -> bool:
    """Whether there are as many byte values as among random bytes, and none too often."""
    size = len(content)
    if size < _LEAST_RANDOM_BYTES:
        return False
    values = set(content)
    expected = 256 * (1 - (1 - 1 / 256) ** size)
    most = max(content.count(value) for value in values)
    return len(values) >= _RANDOM_VALUES_SHARE * expected and most <= 4 + size / 25
