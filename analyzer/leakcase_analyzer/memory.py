"""Where the resident memory is, as far as the case tells."""

from __future__ import annotations

from dataclasses import dataclass

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.kinds import STACK_KINDS


@dataclass(frozen=True)
class MemorySplit:
    """Resident memory at the end of the window, in bytes; None: not known.

    `unexplained_bytes` is what is resident and in none of the parts that are known: the heap and
    other anonymous mappings, as long as the memory itself was not read. `swap_bytes` is beside
    what is resident, not part of it.
    """

    resident_bytes: float | None = None
    live_heap_bytes: float | None = None
    kept_free_bytes: float | None = None
    unreachable_bytes: float | None = None
    mapped_file_bytes: float | None = None
    stack_bytes: float | None = None
    shared_bytes: float | None = None
    runtime_bytes: float | None = None
    swap_bytes: float | None = None
    unexplained_bytes: float | None = None


def split(evidence: Evidence) -> MemorySplit:
    """The split from the last sample, and the stacks from the last snapshot of smaps."""
    status = evidence.columns("status")
    if status is None:
        return MemorySplit()
    resident = status.last("rss_bytes")
    parts = (status.last("rss_file_bytes"), status.last("rss_shmem_bytes"), _stacks(evidence))
    rest = None
    if resident is not None:
        rest = max(0.0, resident - sum(part for part in parts if part is not None))
    return MemorySplit(
        resident_bytes=resident,
        mapped_file_bytes=parts[0],
        shared_bytes=parts[1],
        stack_bytes=parts[2],
        swap_bytes=status.last("swap_bytes"),
        unexplained_bytes=rest,
    )


def _stacks(evidence: Evidence) -> float | None:
    shots = [shot for shot in evidence.snapshots if shot.has_resident_sizes]
    if not shots:
        return None
    groups = shots[-1].groups()
    return float(sum(s.rss_bytes or 0 for key, s in groups.items() if key[0] in STACK_KINDS))
