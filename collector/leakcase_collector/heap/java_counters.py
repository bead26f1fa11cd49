"""What a JVM counts of itself in shared memory for jstat(1), read without asking it anything.

The layout is that of ``PerfDataPrologue`` and ``PerfDataEntry`` (hotspot's runtime/perfMemory.hpp),
unchanged since JDK 1.5. The counters of a heap's spaces are written at its collections; only some
collectors keep that of eden up to date in between.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.memory import MemoryMapping

from .pages import ResidentPages

_MAGIC = b"\xca\xfe\xc0\xc0"  # in this order on every machine
_FOLDER = b"/hsperfdata_"
_PROLOGUE = struct.Struct("=4sBBBBiiqii")
_ENTRY = struct.Struct("=iiiBBBBi")
_LIMIT_BYTES = 4 << 20
_MOST_ENTRIES = 10_000
#: No memory is larger, and no JVM has run for so many nanoseconds.
_LARGEST = 1 << 60


class JavaCounters(NamedTuple):
    """The figures of a heap, bytes and nanoseconds; None: this JVM does not count it."""

    used_bytes: Optional[int]
    kept_bytes: Optional[int]
    committed_bytes: Optional[int]
    metadata_bytes: Optional[int]
    collections: Optional[int]
    full_collections: Optional[int]
    collection_ns: Optional[int]


def java_counters(
    pages: ResidentPages, mappings: Sequence[MemoryMapping], known_start: Optional[int]
) -> JavaCounters:
    """From the mapped file of the counters, or at `known_start` where there is none, as with
    -XX:+PerfDisableSharedMem.

    NotSupported where the JVM keeps no such counters, or where they are not to be found.
    """
    places = [(m.start, m.end) for m in mappings if _FOLDER in m.path]
    places += [(known_start, m.end) for m in mappings if known_start and _holds(m, known_start)]
    for start, end in places:
        prologue = None if start is None else pages.read(start, _PROLOGUE.size)
        if start is None or prologue is None or not prologue.startswith(_MAGIC):
            continue
        used = _PROLOGUE.unpack(prologue)[5]  # pages behind that may never have been touched
        if 0 < used <= min(end - start, _LIMIT_BYTES):
            content = pages.read(start, used)
            if content is not None:
                return heap_figures(parse_counters(content))
    raise NotSupported(
        "cannot tell how full the Java heap is: this JVM keeps no counters of it in memory, as it "
        "was started with -XX:-UsePerfData. Start it without that option, or do without them."
    )


def _holds(mapping: MemoryMapping, address: int) -> bool:
    return mapping.start <= address < mapping.end


def parse_counters(content: bytes) -> dict[str, int]:
    """The counters that are whole numbers, by name. NotSupported for what is none of these."""
    if len(content) < _PROLOGUE.size:
        raise _unknown()
    prologue = _PROLOGUE.unpack_from(content)
    major, accessible, at, entries = prologue[2], prologue[4], prologue[8], prologue[9]
    if major != 2 or not accessible or not 0 <= entries <= _MOST_ENTRIES:
        raise _unknown()
    found: dict[str, int] = {}
    for _ in range(entries):
        if not 0 < at <= len(content) - _ENTRY.size:
            break
        length, name_at, vector, kind, _, _, _, data_at = _ENTRY.unpack_from(content, at)
        if length < _ENTRY.size:
            break
        is_number = kind == ord("J") and not vector and 0 < data_at <= length - 8
        if is_number and 0 < name_at < length and at + length <= len(content):
            name = content[at + name_at : at + length].split(b"\0", 1)[0]
            value = struct.unpack_from("=q", content, at + data_at)[0]
            found[name.decode("ascii", "replace")] = value
        at += length
    return found


def _unknown() -> NotSupported:
    return NotSupported(
        "cannot tell how full the Java heap is: its counters are of a form that is not known. "
        "The rest of the capture is not affected."
    )


def heap_figures(counters: Mapping[str, int]) -> JavaCounters:
    """Sums over generations and their spaces (share/gc/shared/generationCounters.cpp)."""
    generations = [
        [value for name, value in counters.items() if _is_used(name, number)] for number in (0, 1)
    ]
    used = [sum(spaces) for spaces in generations if spaces]
    capacities = [counters.get(f"sun.gc.generation.{number}.capacity") for number in (0, 1)]
    committed = [capacity for capacity in capacities if capacity is not None]
    runs = [counters.get(f"sun.gc.collector.{i}.invocations") for i in range(3)]
    ticks = [counters.get(f"sun.gc.collector.{i}.time") for i in range(3)]
    frequency = counters.get("sun.os.hrt.frequency")
    known = [run for run in runs if run is not None]
    spent = sum(tick for tick in ticks if tick is not None)
    figures = JavaCounters(
        used_bytes=sum(used) if used else None,
        kept_bytes=sum(generations[1]) if generations[1] else None,
        committed_bytes=sum(committed) if committed else None,
        metadata_bytes=counters.get("sun.gc.metaspace.capacity") or None,
        collections=sum(known) if known else None,
        full_collections=runs[1],
        collection_ns=spent * 1_000_000_000 // frequency if frequency and known else None,
    )
    return JavaCounters(*(n if n is not None and 0 <= n < _LARGEST else None for n in figures))


def _is_used(name: str, generation: int) -> bool:
    return name.startswith(f"sun.gc.generation.{generation}.space.") and name.endswith(".used")
