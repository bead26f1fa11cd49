"""Where a JVM keeps its Java heap: by the table that libjvm exports for debuggers.

``gHotSpotVMStructs`` lists fields of the JVM's own structures by name, with offsets and, of static
ones, addresses (hotspot's runtime/vmStructs.cpp; the serviceability agent uses the same).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional

from leakcase_collector.system.elf import ElfError, ElfFile
from leakcase_collector.system.elf_symbols import dynamic_symbol
from leakcase_collector.system.memory import Memory, MemoryMapping

from .cpython_runtime import load_bias
from .pages import ResidentPages
from .resident import total

_TABLE = "gHotSpotVMStructs"
_ENTRY = "gHotSpotVMStructEntry"
_MOST_ENTRIES = 8192
_NAME_BYTES = 32
_WANTED = {
    ("Universe", "_collectedHeap"),
    ("CollectedHeap", "_reserved"),
    ("MemRegion", "_start"),
    ("MemRegion", "_word_size"),
}
_WORD_BYTES = 8

Range = tuple[int, int]


def java_heap(
    elf: ElfFile, mappings: Sequence[MemoryMapping], pages: ResidentPages
) -> Optional[Range]:
    """The addresses that are reserved for the Java heap; None where this JVM does not tell.

    `mappings` are those of libjvm, which `elf` is.
    """
    fields = dict(_fields(elf, load_bias(elf, mappings), pages))
    if set(fields) != _WANTED:
        return None
    heap = pages.words(fields["Universe", "_collectedHeap"], 1)
    if heap is None or not heap[0]:
        return None
    region = heap[0] + fields["CollectedHeap", "_reserved"]
    start = pages.words(region + fields["MemRegion", "_start"], 1)
    words = pages.words(region + fields["MemRegion", "_word_size"], 1)
    if start is None or words is None or not start[0] or not 0 < words[0] < 1 << 44:
        return None
    return start[0], start[0] + words[0] * _WORD_BYTES


def resident_bytes(memory: Memory, heap: Range, mappings: Sequence[MemoryMapping]) -> int:
    """What of the heap is in RAM, but for objects that are mapped from the JVM's archive file."""
    return sum(
        total(memory.resident_runs(max(heap[0], m.start), min(heap[1], m.end)))
        for m in mappings
        if m.start < heap[1] and heap[0] < m.end and not m.path.startswith(b"/")
    )


def _fields(elf: ElfFile, bias: int, pages: ResidentPages) -> Iterator[tuple[tuple[str, str], int]]:
    """The wanted fields: their offsets, and of static ones their addresses."""

    def exported(name: str) -> int:
        symbol = dynamic_symbol(elf, name)
        found = None if symbol is None else pages.words(symbol.address + bias, 1)
        return 0 if found is None else found[0]

    table, stride = exported(_TABLE), exported(f"{_ENTRY}ArrayStride")
    names = ("TypeName", "FieldName", "IsStatic", "Offset", "Address")
    places = [exported(f"{_ENTRY}{name}Offset") // _WORD_BYTES for name in names]
    if not table or not 40 <= stride <= 128 or max(places) * _WORD_BYTES >= stride:
        return
    # The names are constants: read from the file, as nothing brings these pages into memory.
    known: dict[int, str] = {}
    for index in range(_MOST_ENTRIES):
        entry = pages.words(table + index * stride, stride // _WORD_BYTES)
        if entry is None or not entry[places[0]]:
            return
        texts = [_name(elf, entry[place] - bias, known) for place in places[:2]]
        if (texts[0], texts[1]) in _WANTED:
            is_static = entry[places[2]] & 0xFFFFFFFF
            yield (texts[0], texts[1]), entry[places[4] if is_static else places[3]]


def _name(elf: ElfFile, address: int, known: dict[int, str]) -> str:
    if address not in known:
        try:
            offset = elf.offset_of(address)
            known[address] = elf.string(offset, offset + _NAME_BYTES)
        except ElfError:  # longer than any that is wanted
            known[address] = ""
    return known[address]
