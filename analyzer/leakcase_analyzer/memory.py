"""Where the resident memory is, as far as the case tells."""

from __future__ import annotations

from dataclasses import dataclass

from leakcase_analyzer.evidence import Evidence, RegionKey, RegionSize
from leakcase_analyzer.findings.books import Entry, still_true
from leakcase_analyzer.findings.mapped_extent import FILE_KINDS
from leakcase_analyzer.findings.tracks import anonymous_and_swap, books_of
from leakcase_analyzer.kinds import STACK_KINDS

#: Mappings of a runtime's generated code, and those that an allocator, or Go, makes for itself.
CODE_KINDS = frozenset({"jit-code"})
OWN_KINDS = frozenset({"anonymous", "main-heap", "huge-pages"})


@dataclass(frozen=True)
class MemorySplit:
    """Resident memory at the end of the window, in bytes; None: not known.

    All but `unreachable_bytes`, which is part of `live_heap_bytes`, and `swap_bytes`, which is
    beside what is resident, add up to `resident_bytes`. `unexplained_bytes` is the rest: without
    a look into the heap that is the heap and other anonymous mappings.
    """

    resident_bytes: float | None = None
    live_heap_bytes: float | None = None
    kept_free_bytes: float | None = None
    unreachable_bytes: float | None = None
    mapped_file_bytes: float | None = None
    stack_bytes: float | None = None
    shared_bytes: float | None = None
    runtime_bytes: float | None = None
    allocator_bytes: float | None = None
    """Of an allocator whose books are not read: in use, or kept free."""
    swap_bytes: float | None = None
    unexplained_bytes: float | None = None


def split(evidence: Evidence) -> MemorySplit:
    """The split from the last sample, the stacks of the last smaps, and the last look."""
    status = evidence.columns("status")
    if status is None:
        return MemorySplit()
    resident = status.last("rss_bytes")
    look = _last_look(evidence)
    heap = None if look is None else look.heap
    python = None if look is None else look.python
    told = None if look is None else look.told
    kept = None if look is None else look.kept_bytes
    parts = {
        "mapped_file_bytes": status.last("rss_file_bytes"),
        "shared_bytes": _less(status.last("rss_shmem_bytes"), _shared_heap(evidence)),
        "stack_bytes": _stacks(evidence),
        "live_heap_bytes": None if heap is None else float(heap.in_use_bytes),
        "runtime_bytes": None if python is None else float(python.block_bytes),
        "allocator_bytes": None,
        "kept_free_bytes": None if kept is None else float(kept),
    }
    if python is None:
        parts["runtime_bytes"] = _managed(evidence)
    if told is not None:
        parts["live_heap_bytes"] = float(told.in_use_bytes)
    elif heap is None:
        parts["allocator_bytes"] = _allocator(evidence)
    rest = None if resident is None else _cut_to(resident, parts, _private_copies(evidence))
    return MemorySplit(
        resident_bytes=resident,
        unreachable_bytes=_unreachable(evidence, parts["live_heap_bytes"]),
        swap_bytes=status.last("swap_bytes"),
        unexplained_bytes=rest,
        **parts,
    )


def _less(whole: float | None, part: float) -> float | None:
    return None if whole is None else max(0.0, whole - part)


def _cut_to(resident: float, parts: dict[str, float | None], copies_bytes: float) -> float:
    """Cut `parts` to what is resident, the later giving way; returns what is in none of them.

    They were taken a moment apart, and may exceed the whole.
    """
    rest = resident
    for name, part in parts.items():
        if part is not None:
            parts[name] = min(part, rest)
            rest -= min(part, rest)
    files = parts["mapped_file_bytes"]
    if files is not None:
        # Last, as an allocator's mapping that happens to follow a library's data counts as that.
        copies = min(copies_bytes, rest)
        parts["mapped_file_bytes"] = files + copies
        rest -= copies
    return rest


def _last_look(evidence: Evidence) -> Entry | None:
    """The last look into the heap, where it is still true at the end."""
    last = books_of(evidence).last
    return last if last is not None and _is_still_true(evidence, last.seconds) else None


def _is_still_true(evidence: Evidence, seconds: float) -> bool:
    held = anonymous_and_swap(evidence)
    return held is not None and still_true(held, seconds, float(held.seconds[-1]))


def _managed(evidence: Evidence) -> float | None:
    """A collected heap, its classes' data and its generated code, or all that Go has.

    A Go program without a C library has no memory but its runtime's (runtime/mem_linux.go).
    """
    looks = [one for at_seconds, one in evidence.managed if _is_still_true(evidence, at_seconds)]
    if not looks:
        return None
    heap = looks[-1]
    resident = _shared_heap(evidence) if heap.resident_bytes is None else heap.resident_bytes
    if heap.runtime == "go" and not evidence.heap:
        return max(_in_kinds(evidence, OWN_KINDS), float(resident))
    if not resident:
        return None
    metadata = (heap.metadata_bytes or 0) if heap.runtime == "jvm" else 0
    return _in_kinds(evidence, CODE_KINDS) + float(resident) + metadata


def _shared_heap(evidence: Evidence) -> float:
    """What lies in memfds of a JVM that tells no place of its heap: ZGC keeps it there."""
    is_zgc = bool(evidence.managed) and all(
        one.runtime == "jvm" and one.kept_bytes is not None and one.resident_bytes is None
        for _, one in evidence.managed
    )
    return _in_kinds(evidence, frozenset({"memfd"})) if is_zgc else 0.0


def _allocator(evidence: Evidence) -> float | None:
    """Anonymous mappings, where another allocator than glibc's serves the program's calls."""
    allocator = evidence.allocator
    if allocator is None or allocator.kind == "glibc" or _last_groups(evidence) is None:
        return None
    return _in_kinds(evidence, OWN_KINDS)


def _in_kinds(evidence: Evidence, kinds: frozenset[str]) -> float:
    groups = _last_groups(evidence) or {}
    return float(sum(s.rss_bytes or 0 for key, s in groups.items() if key[0] in kinds))


def _unreachable(evidence: Evidence, live_bytes: float | None) -> float | None:
    """What is leaked for certain, at most what is in use."""
    found = evidence.unreachable
    if found is None:
        return None
    leaked = float(found.unreachable_bytes)
    return leaked if live_bytes is None else min(leaked, live_bytes)


def _stacks(evidence: Evidence) -> float | None:
    groups = _last_groups(evidence)
    if groups is None:
        return None
    return float(sum(s.rss_bytes or 0 for key, s in groups.items() if key[0] in STACK_KINDS))


def _private_copies(evidence: Evidence) -> float:
    """Private copies of files' pages that the program has written to, and what belongs to them.

    To the kernel they are anonymous: the data of the program and of its libraries.
    """
    groups = _last_groups(evidence) or {}
    return float(sum(s.anonymous_bytes or 0 for key, s in groups.items() if key[0] in FILE_KINDS))


def _last_groups(evidence: Evidence) -> dict[RegionKey, RegionSize] | None:
    shots = [shot for shot in evidence.snapshots if shot.has_resident_sizes]
    return shots[-1].groups() if shots else None
