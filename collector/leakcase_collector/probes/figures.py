"""Numbers out of the kernel's text: what several parsers share. Nothing here raises."""

from __future__ import annotations

from typing import Optional

_INT_LIMIT = 1 << 63
_LONGEST = 32


def whole(text: bytes, unit: int = 1) -> Optional[int]:
    """The number that `text` is (blanks around it allowed), times `unit`.

    None where it is no number, negative, or too large for a case's 64 bits.
    """
    if len(text) > _LONGEST:
        return None
    try:
        value = int(text) * unit
    except ValueError:
        return None
    return value if 0 <= value < _INT_LIMIT else None


def keyed(content: bytes) -> dict[bytes, int]:
    """Lines of ``key number``, as in a control group's memory.stat; other lines are passed over."""
    out: dict[bytes, int] = {}
    for line in content.split(b"\n"):
        key, _, number = line.partition(b" ")
        value = whole(number)
        if value is not None:
            out[key] = value
    return out


def parse_pressure(content: bytes) -> tuple[Optional[int], Optional[int]]:
    """The microseconds for which some, and for which all tasks were stalled, since boot.

    Pressure stall information (Documentation/accounting/psi.rst, Linux 4.20):
    ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0``.
    """
    return _stalled(content, b"some "), _stalled(content, b"full ")


def _stalled(content: bytes, which: bytes) -> Optional[int]:
    for line in content.split(b"\n"):
        if line.startswith(which):
            _, found, total = line.rpartition(b"total=")
            return whole(total) if found else None
    return None
