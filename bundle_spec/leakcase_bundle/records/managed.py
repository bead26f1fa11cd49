"""The heap of a language runtime with a collector of its own: the JVM, Go, Node."""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import record, says, word
from leakcase_bundle.strings import SymbolToken


@record("managed.heap")
class ManagedHeap:
    """A runtime's own figures of its heap at one moment.

    What `used_bytes` grows by between two moments may be garbage that was not collected yet;
    `kept_bytes` does not rise by that.
    """

    taken_ns: int
    runtime: str = word("runtime")
    source: str = word("managed_source", "Where the figures of this record are from.")
    used_bytes: Optional[int] = says(
        "Objects, some of them garbage. hsperfdata: as counted at the last collection, and at any "
        "time in the young generation of some collectors.",
        default=None,
    )
    kept_bytes: Optional[int] = says(
        "Objects that outlived collections: the old generation as it was after the last one. "
        "Absent: the runtime does not tell.",
        default=None,
    )
    committed_bytes: Optional[int] = says(
        "Memory of the heap that the runtime may use now, free parts included.", default=None
    )
    limit_bytes: Optional[int] = says("What the heap may grow to.", default=None)
    resident_bytes: Optional[int] = says("Pages of the heap that are in RAM.", default=None)
    metadata_bytes: Optional[int] = says(
        "What the runtime has for classes, or for its stacks and own books, beside the heap.",
        default=None,
    )
    collections: Optional[int] = says("Since the runtime's start, of every kind.", default=None)
    full_collections: Optional[int] = says("Those of the whole heap among them.", default=None)
    collection_ns: Optional[int] = says("The time that they took together.", default=None)


@record("managed.classes")
class ManagedClasses:
    """Objects on a runtime's heap by class; entry i of each list goes together, largest first."""

    taken_ns: int
    runtime: str = word("runtime")
    includes_garbage: bool = says("Objects are counted that a collection would have freed.")
    names: list[SymbolToken]
    counts: list[int]
    sizes_bytes: list[int] = says("All objects of the class together, without what they refer to.")
    folded_classes: int = says("Classes with fewer bytes, of which only these sums are told.")
    folded_count: int
    folded_bytes: int


@record("managed.native")
class ManagedNative:
    """What a JVM itself allocated natively, by purpose: its Native Memory Tracking.

    What native libraries allocate with malloc is not part of it. Entry i of each list goes
    together; the Java heap itself is one of the purposes.
    """

    taken_ns: int
    purposes: list[str] = word("native_purpose")
    reserved_bytes: list[int] = says("Address space.")
    committed_bytes: list[int] = says("What may be used of it; not all of it is resident.")
