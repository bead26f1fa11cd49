"""How the value of a setting is reduced to what may be kept: numbers, sizes, booleans, known words.

A rule takes the raw value and returns text of the field class `environment` (its grammar holds for
whatever a rule returns) and the size in bytes where the value is one. What a rule does not
understand becomes ``<value>``.
"""

from __future__ import annotations

import re
from typing import Callable, Optional

#: What a value becomes: text of the class `environment` and the size in bytes, where it is one.
Reduced = tuple[str, Optional[int]]
Rule = Callable[[str], Reduced]

PLACEHOLDER = "<value>"

_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,9})?\Z|0[xX][0-9a-fA-F]{1,16}\Z")
_SIZE = re.compile(r"([0-9]{1,20}|0[xX][0-9a-fA-F]{1,16})([kKmMgGtT]?)(?:[iI]?[bB])?\Z")
_HEX = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,16})\Z")
FLAG_WORDS = "0 1 true false yes no on off enabled disabled t f y n"
_FLAGS = frozenset(FLAG_WORDS.split())
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_INT_LIMIT = 1 << 63
#: Libraries that replace malloc or watch it, as they are named everywhere.
_ALLOCATOR_LIBRARY = re.compile(
    r"lib(?:jemalloc|tcmalloc(?:_minimal)?(?:_debug|_and_profiler)?|mimalloc(?:-secure|-debug)?"
    r"|c_malloc_debug|snmalloc(?:shim)?|hoard|scudo|rpmalloc|asan|lsan|tsan|Electric-?Fence|efence"
    r"|dmalloc|duma|memusage|heaptrack_preload|mtmalloc|umem)"
    r"(?:-?[0-9]{1,2}(?:\.[0-9]{1,2}){0,2})?\.so(?:\.[0-9]{1,3}){0,3}\Z"
)


def number(raw: str) -> Reduced:
    """An integer or decimal number that is not a size."""
    return (raw if _NUMBER.match(raw) else PLACEHOLDER), None


def size(raw: str) -> Reduced:
    """A number of bytes, with or without k, m, g, t (powers of 1024)."""
    return _sized(raw, unit_bytes=1)


def redis_size(raw: str) -> Reduced:
    """As `size`, but 1k is 1000 and only 1kb is 1024 (redis.conf)."""
    return _sized(raw, unit_bytes=1, bare_letter=1000)


def kilobytes(raw: str) -> Reduced:
    """As `size`, but a bare number counts KiB."""
    return _sized(raw, unit_bytes=1024)


def megabytes(raw: str) -> Reduced:
    """As `size`, but a bare number counts MiB."""
    return _sized(raw, unit_bytes=1024**2)


def pages_of_8k(raw: str) -> Reduced:
    """As `size`, but a bare number counts blocks of 8 KiB (PostgreSQL)."""
    return _sized(raw, unit_bytes=8192)


def gigabytes(raw: str) -> Reduced:
    """A decimal number of GiB."""
    text, _ = number(raw)
    known = text != PLACEHOLDER and not text.startswith(("0x", "0X", "-"))
    return text, _fitting(int(float(text) * 1024**3)) if known else None


def hexadecimal(raw: str) -> Reduced:
    """A number in hexadecimal, with or without 0x (.NET)."""
    return (raw if _HEX.match(raw) else PLACEHOLDER), None


def hexadecimal_size(raw: str) -> Reduced:
    """A number of bytes in hexadecimal, with or without 0x (.NET)."""
    match = _HEX.match(raw)
    return (raw, _fitting(int(match.group(1), 16))) if match else (PLACEHOLDER, None)


def flag(raw: str) -> Reduced:
    """A boolean in any of the usual spellings; "" where the name alone switches it on."""
    return (raw if raw == "" or (raw.isascii() and raw.lower() in _FLAGS) else PLACEHOLDER), None


def presence(raw: str) -> Reduced:
    """Only that it is set: the value is a path or free text."""
    return PLACEHOLDER if raw else "", None


def one_of(words: str, otherwise: Rule = number) -> Rule:
    """One of the words listed, else what `otherwise` makes of it."""
    known = frozenset(words.split())

    def reduce(raw: str) -> Reduced:
        return (raw, None) if raw in known else otherwise(raw)

    return reduce


def pairs(between: str, within: str, keys: dict[str, Rule]) -> Rule:
    """A list such as ``narenas:4,prof:true``: known keys with reduced values."""

    def reduce(raw: str) -> Reduced:
        out: list[str] = []
        for item in raw.split(between)[:64]:
            key, found, value = item.strip().partition(within)
            rule = keys.get(key) if found else None
            out.append(f"{key}{within}{rule(value)[0]}" if rule else PLACEHOLDER)
        return between.join(out), None

    return reduce


def libraries(raw: str) -> Reduced:
    """LD_PRELOAD: the basenames of allocators and their debuggers; of others only that they are."""
    names = [path.rsplit("/", 1)[-1] for path in re.split(r"[\s:]+", raw) if path][:16]
    return ":".join(n if _ALLOCATOR_LIBRARY.match(n) else PLACEHOLDER for n in names), None


def _sized(raw: str, unit_bytes: int, bare_letter: int = 1024) -> Reduced:
    match = _SIZE.match(raw)
    if match is None:
        # -1 and the like mean "no limit" or "default".
        return number(raw)
    digits, letter = match.groups()
    count = int(digits, 16) if digits[:2] in ("0x", "0X") else int(digits)
    if raw != digits:
        thousand = bare_letter if raw == digits + letter else 1024
        unit_bytes = thousand ** _POWERS[letter.lower()]
    return raw, _fitting(count * unit_bytes)


def _fitting(value: int) -> Optional[int]:
    return value if value < _INT_LIMIT else None
