"""CPython's objects counted by type: one look at a running program, from outside.

Exact: what is on the garbage collector's lists. Estimated: small objects that it does not track,
told from the blocks of pymalloc by their headers. Not seen: untracked objects of more than 512
bytes, which come from malloc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Optional

from leakcase_collector.system.clock import NS_PER_SECOND, monotonic_ns, thread_cpu_ns
from leakcase_collector.system.memory import Memory

from .cpython_blocks import ResidentBlocks
from .cpython_gc import Budget, Tracked, Walker
from .cpython_pools import Contents, KnownTypes, Pools, block_bytes, find_pools, look_into
from .cpython_runtime import PythonImage, find_collector
from .cpython_types import TypeTable

#: Some three million objects; beyond that all types are told from a sample of the pools.
_LISTS_CPU_NS = 3 * NS_PER_SECOND
#: Of the pools, their headers and their contents. All headers are looked at, or none counts.
_HEADERS_CPU_NS = 3 * NS_PER_SECOND
_POOLS_CPU_NS = NS_PER_SECOND
#: What the target does meanwhile can make a walk wait.
_WALL_NS = 10 * NS_PER_SECOND


class TypeCount(NamedTuple):
    """Objects of one type; `source` is a word of the vocabulary ``python_source``."""

    name: str
    source: str
    objects: int
    size_bytes: int


class TrackedFigures(NamedTuple):
    """What is on the collector's lists."""

    tracked_objects: int
    tracked_bytes: int
    frozen_objects: int


class PoolFigures(NamedTuple):
    """What pymalloc's pools hold. The first four are exact, the others scaled estimates."""

    pool_bytes: int
    free_pool_bytes: int
    blocks: int
    block_bytes: int
    looked_at_blocks: int
    untracked_objects: int
    untracked_bytes: int
    other_blocks: int
    other_bytes: int


class Census(NamedTuple):
    """One look at all objects; `types` by descending bytes.

    Without `tracked` the lists could not be walked to their ends (too many objects for the time,
    or one full collection after the other): then `types` are told from the pools alone. Where
    `pools` are not there for lack of time, and not because there are none, `pools_in_time` is
    False.
    """

    tracked_complete: bool
    tracked: Optional[TrackedFigures]
    lost_places: int
    pools: Optional[PoolFigures]
    pools_in_time: bool
    types: list[TypeCount]
    cpu_ns: int
    duration_ns: int


def count_objects(
    memory: Memory,
    image: PythonImage,
    lists_cpu_ns: int = _LISTS_CPU_NS,
    pools_cpu_ns: int = _POOLS_CPU_NS,
    headers_cpu_ns: int = _HEADERS_CPU_NS,
) -> Census:
    """Count the objects of the interpreter. NotSupported where its state has no known shape."""
    started_ns, started_cpu_ns = monotonic_ns(), thread_cpu_ns()
    blocks = ResidentBlocks(memory)
    collector = find_collector(image, blocks)
    types = TypeTable(blocks, image.type_type)
    walker = Walker(blocks, types, collector, Budget(lists_cpu_ns, _WALL_NS))
    tracked = walker.walk()
    counts = _of_lists(tracked) if tracked.is_usable else []
    figures = None
    pools, in_time = find_pools(memory, Budget(headers_cpu_ns, _WALL_NS))
    if pools is not None:
        known = KnownTypes(types, walker.heap_types, memory.mappings())
        contents = look_into(memory, pools, known, pools_cpu_ns)
        untracked = _scaled(pools, contents, contents.untracked)
        figures = _figures(pools, contents, untracked)
        if tracked.is_usable:
            counts += untracked
        else:
            counts = _scaled(pools, contents, contents.untracked + contents.tracked)
    return Census(
        tracked.is_complete,
        _totals(tracked),
        tracked.lost_places,
        figures,
        in_time,
        sorted(counts, key=lambda entry: (-entry.size_bytes, entry.name)),
        thread_cpu_ns() - started_cpu_ns,
        monotonic_ns() - started_ns,
    )


def _totals(tracked: Tracked) -> Optional[TrackedFigures]:
    if not tracked.is_usable:
        return None
    size = sum(size for _, _, size in tracked.tally.totals())
    return TrackedFigures(tracked.tally.objects, size, tracked.frozen)


def _of_lists(tracked: Tracked) -> list[TypeCount]:
    sums: dict[str, list[int]] = {}
    for kind, count, size in tracked.tally.totals():
        entry = sums.setdefault(kind.name, [0, 0])
        entry[0] += count
        entry[1] += size
    return [TypeCount(name, "gc", count, size) for name, (count, size) in sums.items()]


def _scaled(
    pools: Pools, contents: Contents, counts: Mapping[tuple[int, int], int]
) -> list[TypeCount]:
    """Counts in all pools from those in the pools that were looked at, by size class."""
    sums: dict[str, list[float]] = {}
    everywhere, chosen = pools.blocks(), pools.blocks(contents.stride)
    for (address, size_class), count in counts.items():
        # A pool that was freed since may have another size class now.
        estimate = (
            count * everywhere[size_class] / (chosen[size_class] or everywhere[size_class] or 1)
        )
        entry = sums.setdefault(contents.types[address].name, [0, 0])
        entry[0] += estimate
        entry[1] += estimate * block_bytes(size_class)
    return [
        TypeCount(name, "pymalloc", round(count), round(size))
        for name, (count, size) in sums.items()
    ]


def _figures(pools: Pools, contents: Contents, untracked: list[TypeCount]) -> PoolFigures:
    objects = _scaled(pools, contents, contents.untracked + contents.tracked)
    by_class = pools.blocks()
    blocks = sum(by_class)
    size = sum(count * block_bytes(index) for index, count in enumerate(by_class))
    return PoolFigures(
        pool_bytes=len(pools.addresses) * pools.pool_bytes,
        free_pool_bytes=pools.free_pools * pools.pool_bytes,
        blocks=blocks,
        block_bytes=size,
        looked_at_blocks=contents.blocks,
        untracked_objects=sum(entry.objects for entry in untracked),
        untracked_bytes=sum(entry.size_bytes for entry in untracked),
        other_blocks=max(blocks - sum(entry.objects for entry in objects), 0),
        other_bytes=max(size - sum(entry.size_bytes for entry in objects), 0),
    )
