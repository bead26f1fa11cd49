"""Where a JVM keeps its Java heap: by the table that libjvm exports for debuggers.

``gHotSpotVMStructs`` lists fields of the JVM's own structures by name, with offsets and, of static
ones, addresses (hotspot's runtime/vmStructs.cpp; the serviceability agent uses the same).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Optional

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
_OF_THE_HEAP = {
    ("Universe", "_collectedHeap"),
    ("CollectedHeap", "_reserved"),
    ("MemRegion", "_start"),
    ("MemRegion", "_word_size"),
}
_WANTED = {*_OF_THE_HEAP, ("PerfMemory", "_start")}
_WORD_BYTES = 8

Range = tuple[int, int]


class JavaPlaces(NamedTuple):
    """The addresses reserved for the Java heap, and where the JVM's counters begin; None: it does
    not tell, as ZGC does not of its heap."""

    heap: Optional[Range]
    counters: Optional[int]


def java_places(
    elf: ElfFile, mappings: Sequence[MemoryMapping], pages: ResidentPages
) -> JavaPlaces:
    """What the tables of libjvm lead to; `mappings` are those of libjvm, which `elf` is."""
    fields = dict(_fields(elf, load_bias(elf, mappings), pages))
    counters = _word(pages, fields.get(("PerfMemory", "_start")))
    return JavaPlaces(_heap(fields, pages), counters)


def _heap(fields: Mapping[tuple[str, str], int], pages: ResidentPages) -> Optional[Range]:
    if not set(fields) >= _OF_THE_HEAP:
        return None
    heap = _word(pages, fields["Universe", "_collectedHeap"])
    if heap is None:
        return None
    region = heap + fields["CollectedHeap", "_reserved"]
    start = _word(pages, region + fields["MemRegion", "_start"])
    words = _word(pages, region + fields["MemRegion", "_word_size"])
    if start is None or words is None or words >= 1 << 44:
        return None
    return start, start + words * _WORD_BYTES


def _word(pages: ResidentPages, address: Optional[int]) -> Optional[int]:
    """The word there; None where it is 0 or not to be read."""
    found = None if address is None else pages.words(address, 1)
    return None if found is None else found[0] or None


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
