"""Memory read in blocks that are kept for a while: one system call for some thousand objects.

Pages that are not in RAM are never read; they appear as zeros, which no structure of CPython's
takes for a valid pointer.
"""

from __future__ import annotations

from contextlib import suppress

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.memory import Memory

#: Large enough to pay for the call, small enough for lists that jump about.
SHIFT = 15
BLOCK_BYTES = 1 << SHIFT
MASK = BLOCK_BYTES - 1
#: What a block holds of the next one, so that a structure that begins in it can be unpacked.
OVERLAP_BYTES = 256
#: 8 MB; a walk goes through memory mostly in the order in which the objects were made.
_KEPT_MAX = 256
_ADDRESS_LIMIT = 1 << 47


class ResidentBlocks:
    """What was read of a target's memory, by the number of the block (address >> SHIFT)."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        #: For inner loops: `kept.get(address >> SHIFT) or load(address >> SHIFT)`.
        self.kept: dict[int, bytes] = {}
        self.read_bytes = 0

    def load(self, number: int) -> bytes:
        """The block, BLOCK_BYTES + OVERLAP_BYTES long; zeros where there is nothing in RAM."""
        if len(self.kept) >= _KEPT_MAX:
            self.kept.clear()
        block = self.kept[number] = self._read(number << SHIFT, BLOCK_BYTES + OVERLAP_BYTES)
        return block

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes, at most OVERLAP_BYTES, from what is kept or from the target."""
        number = address >> SHIFT
        start = address & MASK
        block = self.kept.get(number) or self.load(number)
        return block[start : start + size]

    def read_now(self, address: int, size: int) -> bytes:
        """`size` bytes as they are now; zeros where there is nothing in RAM."""
        return self._read(address, size)

    def forget(self) -> None:
        """Read everything anew from here on: what is kept may have changed in the target."""
        self.kept.clear()

    def _read(self, start: int, size: int) -> bytes:
        content = bytearray(size)
        if 0 < start < _ADDRESS_LIMIT:
            view = memoryview(content)
            # A page of the vsyscall kind has no entry in pagemap.
            with suppress(NotSupported):
                for low, high in self._memory.resident_runs(start, start + size):
                    self.read_bytes += high - low
                    self._memory.read_into(low, view[low - start : high - start])
        return bytes(content)
