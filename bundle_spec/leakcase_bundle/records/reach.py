"""Blocks of the heap that nothing in the process refers to any more."""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import record, says, word


@record("heap.unreachable")
class HeapUnreachable:
    """What no reference was found to, in any of several looks: leaked, however long ago.

    A reference is any aligned word that points into a block. It counts where it lies in a root
    (writable data of modules, stacks, registers as far as they are told, other private memory) or
    in a block that is reachable itself. Entry i of each list goes together; classes of size are
    those of `heap.sizes`.
    """

    taken_ns: int
    method: str = word("heap_method", "Both give the same numbers.")
    passes: int = says(
        "Looks that were taken some time apart. A block counts that was unreachable in each, at "
        "the same address, of the same size and with the same content."
    )
    complete: bool = says(
        "The heap was walked without a loss, its mapped blocks are all known, and no page of the "
        "process is swapped out: no reference was overlooked for not having been read."
    )
    looked_at_chunks: int = says("Blocks in use, mapped ones included.")
    looked_at_bytes: int
    unreachable_chunks: int
    unreachable_bytes: int
    direct_chunks: int = says(
        "Those of the unreachable ones that not even another unreachable one refers to."
    )
    direct_bytes: int
    unsteady_chunks: int = says(
        "Unreachable in the first look and not in all: in use, while references to them moved."
    )
    root_bytes: int = says("Resident memory outside of the heap that was searched.")
    threads: int
    running_threads: int = says(
        "Threads that ran while they were looked at: their registers were not seen."
    )
    chunk_bytes: list[int] = says("The smallest size of the class.")
    class_chunks: list[int]
    class_bytes: list[int]
    skipped_bytes: Optional[int] = says(
        "Of the heap, not known to be what; searched for references.", default=None
    )
    swapped_bytes: Optional[int] = says(
        "Of the process, in swap or left out of a core file, and not read: references there were "
        "not seen.",
        default=None,
    )
    read_bytes: Optional[int] = says("How much of the target's memory was read.", default=None)
    cpu_ns: Optional[int] = None
    duration_ns: Optional[int] = None
