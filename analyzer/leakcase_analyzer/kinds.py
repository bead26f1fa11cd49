"""Of what a leak of anonymous memory is: the heap, a collected heap, mappings, or thread stacks.

/proc shows where memory lies, not who asked for it. What follows from where it lies, and what
does not, is said beside the answer. Where memory was read, the allocator's books and the runtime's
objects tell who did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import (
    Attribution,
    Finding,
    HeapChange,
    HeapState,
    NotSeen,
    ObjectTypes,
    Trend,
)
from leakcase_analyzer.findings.managed_heap import ManagedChange, ManagedState
from leakcase_analyzer.findings.native_growth import native_blocks_explain
from leakcase_analyzer.findings.object_types import share_in_words
from leakcase_analyzer.findings.retention import LEAST_GROWTH_BYTES
from leakcase_analyzer.findings.tracks import COLLECTED_RUNTIMES
from leakcase_analyzer.sentences import Code, Count, Sentence, Share, Size, say

Kind: TypeAlias = Literal[
    "heap",
    "managed-heap",
    "mmap",
    "threads",
    "fds",
    "shared-memory",
    "file-mapping",
    "gpu",
    "other",
    "none",
]

#: The kind of everything that is not anonymous memory.
KIND_OF_SUBJECT: dict[str, Kind] = {
    "file": "file-mapping",
    "shared": "shared-memory",
    "gpu": "gpu",
    "threads": "threads",
    "descriptors": "fds",
    "kernel": "other",
}
MALLOC_KINDS = frozenset({"main-heap", "arena-heap"})
STACK_KINDS = frozenset({"thread-stack", "main-stack"})
#: Allocators that get most of their heap by mmap, whatever the block's size.
MMAP_ALLOCATORS = frozenset({"jemalloc", "tcmalloc", "mimalloc", "musl"})
#: A thread's stack, arena and first allocations; with more per thread, something else grows too.
PER_THREAD_BYTES = 1 << 20
#: Growth is of a kind where this share of it is, and is not where less than that is.
MOST_OF_IT, HARDLY_ANY = 0.5, 0.3

NATIVE_BLOCKS = say(
    "native code allocates blocks that stay as fast as memory grows: it is not the collected heap"
)

F = TypeVar("F", bound=Finding)


@dataclass(frozen=True)
class KindFound:
    """A kind, why, and how far it lowers the confidence in the answer."""

    kind: Kind
    because: tuple[Sentence, ...] = ()
    not_seen: tuple[NotSeen, ...] = ()
    weight: float = 1.0


def of_type(findings: Sequence[Finding], cls: type[F]) -> list[F]:
    """The findings of one type, in order."""
    return [finding for finding in findings if isinstance(finding, cls)]


def first_of_type(findings: Sequence[Finding], cls: type[F]) -> F | None:
    """The first finding of one type, or None."""
    return next(iter(of_type(findings, cls)), None)


def kind_of(evidence: Evidence, findings: Sequence[Finding], main: Trend) -> KindFound:
    """The kind of the quantity that decides the verdict."""
    if main.subject == "shared" and _is_shared_heap(evidence, main):
        return KindFound(
            "managed-heap",
            (say("the heap of this JVM is mapped shared (ZGC), and what is kept in it grew"),),
        )
    if main.subject != "anonymous":
        return KindFound(KIND_OF_SUBJECT.get(main.subject, "other"))
    shares = _shares(findings)
    malloc = sum(shares.get(kind, 0.0) for kind in MALLOC_KINDS)
    runtime = evidence.runtime
    collected = runtime is not None and runtime.kind in COLLECTED_RUNTIMES
    managed = first_of_type(findings, ManagedState)
    # The runtime's own count of its heap says more than some windows of native calls.
    counted = managed is not None and managed.change is not None and managed.change.is_most
    if collected and not counted and native_blocks_explain(evidence, main.track):
        return KindFound("heap", (NATIVE_BLOCKS,))
    if sum(shares.get(kind, 0.0) for kind in STACK_KINDS) < 0.5:
        found = _by_books(findings, collected)
        if found is not None:
            return found
    if runtime is not None and collected and malloc < 0.5:
        return _managed(runtime.kind, None if managed is None else managed.change)
    return _native(evidence, shares, malloc)


def _is_shared_heap(evidence: Evidence, main: Trend) -> bool:
    """Whether a collected heap that lies in shared memory is what grows there.

    ZGC's does: a memfd, up to JDK 20 mapped three times, and counted by the kernel as often.
    """
    looks = [heap for _, heap in evidence.managed if heap.kept_bytes is not None]
    if len(looks) < 2 or looks[-1].resident_bytes is not None:
        return False
    kept = (looks[-1].kept_bytes or 0) - (looks[0].kept_bytes or 0)
    return kept >= HARDLY_ANY * (main.last - main.first) > 0


def _by_books(findings: Sequence[Finding], collected: bool) -> KindFound | None:
    """What the heap's books and the counted objects tell; None: nothing that would decide."""
    types = first_of_type(findings, ObjectTypes)
    if types is not None and types.share is not None and types.share >= MOST_OF_IT:
        return KindFound("managed-heap", (share_in_words(types.share),))
    state = first_of_type(findings, HeapState)
    change = None if state is None else state.change
    managed = first_of_type(findings, ManagedState)
    if managed is not None and managed.change is not None:
        share = managed.change.share
        # Looks of the two lie at different times: the one that saw more growth is right.
        beside = 0.0 if change is None else change.in_use_bytes
        if share is not None and share >= MOST_OF_IT and managed.change.resident_bytes > beside:
            return _managed_growth(managed, managed.change)
    if change is None or change.held_bytes < LEAST_GROWTH_BYTES or not change.is_certain:
        return None
    if change.in_use_bytes >= MOST_OF_IT * change.held_bytes:
        python = types if types is not None and types.runtime == "cpython" else None
        unsure = python is not None and python.could_hold_all is not False
        return KindFound("heap", _native_blocks(python), (_large_objects(),) if unsure else ())
    if change.in_use_bytes + (change.kept_bytes or 0.0) < HARDLY_ANY * change.held_bytes:
        return None if collected else KindFound("mmap", (_not_by_malloc(change),))
    return None


def _managed_growth(state: ManagedState, change: ManagedChange) -> KindFound:
    if change.is_confirmed:
        return KindFound("managed-heap", state.evidence_for)
    return KindFound("managed-heap", state.evidence_for, (_could_be_freed(change),), weight=0.6)


def _could_be_freed(change: ManagedChange | None) -> NotSeen:
    known = change is not None and change.collections and change.kept_bytes is not None
    return NotSeen(
        claim=say("how much of it the collector could free"),
        because=say("no collection was seen that left that much")
        if known
        else say("no figure from after a collection is part of this case"),
        effect=say("a heap that has not been collected yet looks like a leak"),
    )


def _native_blocks(types: ObjectTypes | None) -> tuple[Sentence, ...]:
    if types is None or types.share is None or types.could_hold_all is not False:
        return ()
    return (
        say(
            "malloc's blocks in use grow, and Python's objects are only {share} of that, "
            "too few to refer to such blocks",
            share=Share(types.share),
        ),
    )


def _large_objects() -> NotSeen:
    return NotSeen(
        claim=say("whether large strings, bytes and tables of Python are among malloc's blocks"),
        because=say("those above 512 bytes are malloc's and are not counted as objects"),
        effect=say("the leak may be in the interpreted program or in a native library"),
    )


def _not_by_malloc(change: HeapChange) -> Sentence:
    return say(
        "malloc's books show {seen} of the {held} that were added: it was mapped directly",
        seen=Size(max(0.0, change.in_use_bytes + (change.kept_bytes or 0.0))),
        held=Size(change.held_bytes),
    )


def _shares(findings: Sequence[Finding]) -> dict[str, float]:
    """The share of the growth of anonymous memory by kind of mapping; empty: not known."""
    found = [a for a in of_type(findings, Attribution) if a.subject == "anonymous"]
    return {part.kind: part.share for part in found[0].regions} if found else {}


def _managed(runtime: str, change: ManagedChange | None) -> KindFound:
    because = say("the process runs {runtime}, whose heap is such memory", runtime=Code(runtime))
    if change is not None and change.fills:
        return KindFound("managed-heap", (because,))
    return KindFound("managed-heap", (because,), (_could_be_freed(change),), weight=0.6)


def _native(evidence: Evidence, shares: dict[str, float], malloc: float) -> KindFound:
    allocator, runtime = evidence.allocator, evidence.runtime
    if malloc > 0 and malloc >= shares.get("anonymous", 0.0):
        return KindFound("heap")
    if not shares:
        return KindFound("heap", (), (_where_unknown(),), weight=0.95)
    if sum(shares.get(kind, 0.0) for kind in STACK_KINDS) >= 0.5:
        return KindFound("threads")
    if allocator is not None and allocator.kind in MMAP_ALLOCATORS:
        name = Code(allocator.kind)
        return KindFound("heap", (say("{name} keeps its heap in such mappings", name=name),))
    if runtime is not None:
        name = Code(runtime.kind)
        return KindFound(
            "heap",
            (say("{name} keeps its objects in such mappings, or in malloc's", name=name),),
            (_objects_unknown(runtime.kind),),
        )
    if max(shares, key=lambda kind: shares[kind]) != "anonymous":
        return KindFound("other")
    return KindFound("mmap", (), (_large_blocks(),))


def _where_unknown() -> NotSeen:
    return NotSeen(
        claim=say("which mappings grew"),
        because=say("the case holds no two snapshots with resident sizes"),
        effect=say("heap is the usual case, direct mmap looks the same"),
    )


def _objects_unknown(runtime: str) -> NotSeen:
    return NotSeen(
        claim=say("whether objects of {name} or native blocks grow", name=Code(runtime)),
        because=say("both are plain memory to the kernel"),
        effect=say("the leak may be in the interpreted program or in a native library"),
    )


def _large_blocks() -> NotSeen:
    return NotSeen(
        claim=say("whether malloc or the program itself made the mappings"),
        because=say("malloc maps large blocks (from 128 KiB up) just as mmap does"),
        effect=say("a leak of large malloc blocks looks the same"),
    )


def threads_explain(memory: Trend | None, threads: Trend, findings: Sequence[Finding]) -> bool:
    """Whether memory grows only because threads are started and never end."""
    if memory is None or memory.status != "leak":
        return True
    stacks = sum(_shares(findings).get(kind, 0.0) for kind in STACK_KINDS)
    started = threads.last - threads.first
    per_thread = (memory.last - memory.first) / started if started > 0 else float("inf")
    return stacks >= 0.5 or per_thread <= PER_THREAD_BYTES


def per_thread(memory: Trend, threads: Trend) -> Sentence:
    """What each of the threads that were added holds."""
    started = max(1.0, threads.last - threads.first)
    return say(
        "memory grew with them, by {size} for each of {count}",
        size=Size((memory.last - memory.first) / started),
        count=Count(started, "thread"),
    )
