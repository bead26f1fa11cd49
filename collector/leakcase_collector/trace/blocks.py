"""Blocks of the target, read from outside: what they hold, and whether they are freed.

glibc's headers and lists say of many blocks that they were freed. Of other allocators nothing is
known but the contents.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple, Optional

from leakcase_collector.heap.layout import (
    ALIGNMENT,
    HEADER_BYTES,
    IS_MMAPPED,
    MIN_CHUNK_BYTES,
    PREV_INUSE,
    SIZE_MASK,
    WORD_BYTES,
)
from leakcase_collector.heap.pages import ResidentPages
from leakcase_collector.system.memory import Memory, MemoryMapping

from .fingerprints import CONTENT_BYTES, Words, words_of

#: A remainder that would be too small for a chunk stays with the block (_int_malloc's split).
_SPARE_BYTES = 2 * ALIGNMENT
#: Blocks are read by ascending address, so that few pages need be kept.
_KEPT_PAGES = 64


class BlockLook(NamedTuple):
    """One block at one time: its first words, and the size of its chunk, 0 where there is none."""

    words: Words
    chunk_bytes: int


class BlockReader:
    """Looks at blocks, in the order of their addresses; a new one for each look."""

    def __init__(self, memory: Memory, is_glibc: bool) -> None:
        self._pages = ResidentPages(memory, kept_pages=_KEPT_PAGES)
        mappings = memory.mappings()
        self._mapped = _Ranges([m for m in mappings if m.readable])
        self._heap = _Ranges([m for m in mappings if m.writable and not m.inode])
        self._is_glibc = is_glibc

    def is_mapped(self, address: int) -> bool:
        """Whether there is memory at all; what a block was in may have been unmapped."""
        return self._mapped.hold(address)

    def read(self, address: int, size_bytes: int) -> Optional[BlockLook]:
        """The block as it is now; None where it is not in RAM or not mapped."""
        content = self._pages.read(address, max(min(size_bytes, CONTENT_BYTES), 1))
        if content is None:
            return None
        if not self._is_glibc:
            return BlockLook(words_of(content), 0)
        header = self._pages.words(address - WORD_BYTES, 1)
        return (
            None if header is None else BlockLook(words_of(content), _chunk(header[0], size_bytes))
        )

    def is_freed(self, address: int, then: BlockLook, now: BlockLook) -> bool:
        """Whether glibc's own books say that the block of `then` was freed."""
        if not then.chunk_bytes:
            return False
        if now.chunk_bytes != then.chunk_bytes:
            return True
        head = self._pages.words(address - HEADER_BYTES, 2)
        if head is None or head[1] & IS_MMAPPED:
            return False
        following = self._pages.words(address - HEADER_BYTES + now.chunk_bytes + WORD_BYTES, 1)
        if following is not None and not following[0] & PREV_INUSE:
            return True
        return self._is_absorbed(address, *head) or self._is_listed(address, then, now)

    def _is_absorbed(self, address: int, before_bytes: int, header: int) -> bool:
        """Whether a free chunk in front of it has grown over it, which leaves its header behind."""
        if header & PREV_INUSE:
            return False
        before = self._pages.words(address - HEADER_BYTES - before_bytes + WORD_BYTES, 1)
        return before is not None and before[0] & SIZE_MASK != before_bytes

    def _is_listed(self, address: int, then: BlockLook, now: BlockLook) -> bool:
        """Whether the first word was made a link of a thread's cache or of a fastbin.

        Links are stored as ``address >> 12 ^ next`` since 2.32 (PROTECT_PTR). A cache's blocks
        carry a key in their second word (tcache_put, since 2.29).
        """
        if len(now.words) < 2 or now.words[0] == then.words[0]:
            return False
        following = now.words[0] ^ address >> 12
        if following == 0:
            return True
        if following % ALIGNMENT or not self._heap.hold(following):
            return False
        if now.words[1] != then.words[1]:
            return True
        head = self._pages.words(following + WORD_BYTES, 1)  # A fastbin's links point to chunks.
        return head is not None and head[0] & SIZE_MASK == now.chunk_bytes


def _chunk(header: int, size_bytes: int) -> int:
    """The size of a chunk that can hold such a block; 0 where the word is no such header."""
    chunk_bytes = header & SIZE_MASK
    if header & IS_MMAPPED:
        return chunk_bytes if chunk_bytes >= size_bytes else 0
    needed = max(-(-(size_bytes + WORD_BYTES) // ALIGNMENT) * ALIGNMENT, MIN_CHUNK_BYTES)
    return chunk_bytes if needed <= chunk_bytes < needed + _SPARE_BYTES else 0


class _Ranges:
    """Address ranges, ascending and apart."""

    def __init__(self, mappings: Sequence[MemoryMapping]) -> None:
        self._starts = [m.start for m in mappings]
        self._ends = [m.end for m in mappings]

    def hold(self, address: int) -> bool:
        at = bisect_right(self._starts, address) - 1
        return at >= 0 and address < self._ends[at]


__all__ = ["BlockLook", "BlockReader"]
