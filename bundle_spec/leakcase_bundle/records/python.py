"""The objects of a CPython interpreter, counted by type from outside."""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import record, says, word
from leakcase_bundle.strings import SymbolToken, VersionToken


@record("python.census")
class PythonCensus:
    """One count of the interpreter's objects; its `python.types` record carries the same number.

    Tracked objects are those on the lists of the garbage collector (containers: list, dict,
    instances of classes), each visited. Small objects that it does not track (int, str, float,
    bytes, also tuples and dicts of such) are found in the pools of pymalloc by what their blocks
    look like. What is larger than 512 bytes and not tracked is in neither.
    """

    census: int
    taken_ns: int
    tracked_complete: bool = says(
        "All lists were walked to their ends, and no collection moved objects between them "
        "meanwhile: `tracked_objects` is exact but for what came and went during the walk. If not, "
        "but `tracked_objects` is there, only the young lists, usually some thousand objects, are "
        "uncertain."
    )
    lost_places: int = says("How often a list changed under the walk, which found its way again.")
    tracked_objects: Optional[int] = says(
        "Absent: the lists could not be walked to their ends (too many objects for the time, or "
        "one full collection after the other).",
        default=None,
    )
    tracked_bytes: Optional[int] = says(
        "Headers, fields and items of these objects, and the arrays of lists; not the tables of "
        "dicts and sets, nor what native code allocates for an object.",
        default=None,
    )
    frozen_objects: Optional[int] = says(
        "Of the tracked ones those that gc.freeze() set aside.", default=None
    )
    version: Optional[VersionToken] = None
    pool_bytes: Optional[int] = says(
        "Pools of pymalloc with at least one block in use. Absent: no pymalloc pools were found "
        "(another allocator, PYTHONMALLOC=malloc), or there was no time for them.",
        default=None,
    )
    free_pool_bytes: Optional[int] = says(
        "Pools in RAM without a block in use, kept for later.", default=None
    )
    block_bytes: Optional[int] = says(
        "Blocks in use in these pools: exact, from each pool's own counter. `pool_bytes` less "
        "`block_bytes` is what pymalloc keeps free in pools that are partly used.",
        default=None,
    )
    blocks: Optional[int] = says("How many blocks `block_bytes` are.", default=None)
    untracked_objects: Optional[int] = says(
        "Blocks in use that look like an object of a known type that the collector does not track.",
        default=None,
    )
    untracked_bytes: Optional[int] = says("The sizes of these blocks.", default=None)
    other_blocks: Optional[int] = says(
        "Blocks in use that look like no object: tables of dicts, arrays of lists, free lists.",
        default=None,
    )
    other_bytes: Optional[int] = None
    looked_at_blocks: Optional[int] = says(
        "Blocks whose contents were looked at. Fewer than `blocks`: every n-th pool was, and "
        "untracked and other figures are estimates, scaled up by size of block.",
        default=None,
    )
    cpu_ns: Optional[int] = None
    duration_ns: Optional[int] = None


@record("python.types")
class PythonTypes:
    """Objects by type at one census; entry i of each list goes together, largest bytes first.

    A type is called by its tp_name: "module.Type" for those written in C, "Type" for classes of
    Python code, so that classes of one name in several modules are one entry. A name can occur
    twice, once for each source: added up, the counts of two censuses can be compared. Where the
    lists could not be walked (`tracked_objects` absent), all types are told from the pools.
    """

    census: int
    names: list[SymbolToken]
    sources: list[str] = word(
        "python_source",
        "gc: visited on the collector's lists. pymalloc: found in the pools; blocks of at most 512 "
        "bytes.",
    )
    counts: list[int]
    sizes_bytes: list[int] = says("All objects of the type together, as in the census.")
    folded_types: int = says("Types with fewer bytes, of which only these sums are told.")
    folded_count: int
    folded_bytes: int
