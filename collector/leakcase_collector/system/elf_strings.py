"""Searching an ELF file's constant data for telling strings: bounded, for stripped programs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from leakcase_collector.system.elf import PF_W, PT_LOAD, SHT_NOBITS, ElfFile

SCAN_LIMIT_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
#: Longer than any string that is looked for, so that none is cut by a chunk's end.
_OVERLAP_BYTES = 256


def find_strings(elf: ElfFile, needles: Collection[bytes]) -> frozenset[bytes]:
    """Those of `needles` that occur in the file's constant data."""
    missing = set(needles)
    for content in _constant_data(elf):
        missing -= {needle for needle in missing if needle in content}
        if not missing:
            break
    return frozenset(needles) - missing


def search_strings(elf: ElfFile, pattern: re.Pattern[bytes]) -> str | None:
    """Group 1 of the first match of `pattern` in the file's constant data."""
    for content in _constant_data(elf):
        match = pattern.search(content)
        if match:
            return match.group(1).decode("ascii", "replace")
    return None


def _constant_data(elf: ElfFile) -> Iterator[bytes]:
    """Overlapping pieces of .rodata, or of all unwritable segments where sections are stripped."""
    places = [
        (section.offset, section.size_bytes)
        for section in elf.sections
        if section.name.startswith(".rodata") and section.kind != SHT_NOBITS
    ] or [
        (segment.offset, segment.file_bytes)
        for segment in elf.segments
        if segment.kind == PT_LOAD and not segment.flags & PF_W
    ]
    left = SCAN_LIMIT_BYTES
    for offset, size in places:
        size = min(size, left)
        left -= size
        for at in range(0, size, _CHUNK_BYTES):
            yield elf.read(offset + at, min(_CHUNK_BYTES + _OVERLAP_BYTES, size - at))
