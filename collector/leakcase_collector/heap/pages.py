"""Words of a target's memory, of pages that are in RAM; others are not there as far as we look."""

from __future__ import annotations

import struct

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.memory import PAGE_BYTES, Memory

#: Two megabytes; a look that goes through more of them begins anew.
_KEPT_PAGES = 512


class ResidentPages:
    """Reads small structures. A page is read once and kept, so make a new one for each look."""

    def __init__(self, memory: Memory, kept_pages: int = _KEPT_PAGES) -> None:
        self._memory = memory
        self._kept_pages = kept_pages
        self._kept: dict[int, bytes | None] = {}
        self._are_resident: dict[int, bool] = {}

    def fresh_words(self, address: int, count: int) -> tuple[int, ...] | None:
        """As `words`, read now though the page was read before: lists change while one looks."""
        if not 0 < address < 1 << 47:
            return None
        last = (address + 8 * count - 1) // PAGE_BYTES
        for number in range(address // PAGE_BYTES, last + 1):
            if not self._is_resident(number):
                return None
        try:
            return struct.unpack(f"={count}Q", self._memory.read(address, 8 * count))
        except NotSupported:  # unmapped since
            return None

    def _is_resident(self, number: int) -> bool:
        if number not in self._are_resident:
            start = number * PAGE_BYTES
            found = bool(self._memory.resident_runs(start, start + PAGE_BYTES))
            self._are_resident[number] = found
        return self._are_resident[number]

    def words(self, address: int, count: int) -> tuple[int, ...] | None:
        """`count` 64-bit words; None where one of them is not mapped or not in RAM."""
        content = self.read(address, 8 * count)
        return None if content is None else struct.unpack(f"={count}Q", content)

    def read(self, address: int, size: int) -> bytes | None:
        if not 0 < address < 1 << 47:
            return None
        first, last = address // PAGE_BYTES, (address + size - 1) // PAGE_BYTES
        pages = [self._page(number) for number in range(first, last + 1)]
        known = [page for page in pages if page is not None]
        if len(known) < len(pages):
            return None
        start = address - first * PAGE_BYTES
        return b"".join(known)[start : start + size]

    def _page(self, number: int) -> bytes | None:
        if number not in self._kept:
            if len(self._kept) >= self._kept_pages:
                self._kept.clear()
            self._kept[number] = self._read(number * PAGE_BYTES)
        return self._kept[number]

    def _read(self, start: int) -> bytes | None:
        if not self._is_resident(start // PAGE_BYTES):
            return None
        try:
            return self._memory.read(start, PAGE_BYTES)
        except NotSupported:  # unmapped since
            return None
