"""What an allocator said of itself when it was asked in the process."""

from __future__ import annotations

from dataclasses import dataclass

from leakcase_bundle.records import AllocatorArena, AllocatorWords

#: A capture asks twice.
MOST_LOOKS = 64


@dataclass(frozen=True)
class ToldLook:
    """One answer."""

    seconds: float
    total: AllocatorWords
    arenas: tuple[AllocatorArena, ...]

    @property
    def in_use_bytes(self) -> int | None:
        """Handed out to the program; None: it does not tell (mimalloc)."""
        return self.total.in_use_bytes

    @property
    def kept_bytes(self) -> int | None:
        """Freed and still in RAM, at most; None where it tells of address space only (glibc)."""
        total = self.total
        if total.allocator == "tcmalloc":
            return total.free_bytes
        if total.allocator == "jemalloc" and total.resident_bytes is not None:
            used = (total.in_use_bytes or 0) + (total.metadata_bytes or 0)
            return max(0, total.resident_bytes - used)
        return None
