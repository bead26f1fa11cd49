"""What is noted of blocks in use while they are walked.

By class of size: how many there are, their bytes, and a systematic sample of their addresses: every
n-th block, n doubling whenever the sample is full. And how often each address within a program or
library is the first word of a block: which of these are tables of virtual functions is found out
afterwards (`rtti`), once for each different word.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from .layout import HEADER_BYTES, WORD_BYTES
from .sizes import size_class

#: Blocks of one class of size whose contents may be looked at; even, as it is halved.
SAMPLES = 400
#: Different first words that are counted; those that come when there are more are dropped.
MOST_WORDS = 24 << 10


class WordCount(NamedTuple):
    """Blocks that begin with `word`; `class_bytes` 0: no blocks, the word was found somewhere."""

    word: int
    class_bytes: int
    blocks: int
    size_bytes: int


class SizeClass(NamedTuple):
    """Blocks of one class of size, and the addresses of some."""

    class_bytes: int
    chunks: int
    size_bytes: int
    sampled: Sequence[int]


class Pick(Protocol):
    """Either of the twins, `PythonPick` and the one in C."""

    #: Address and size, in turn, of blocks whose first words no window showed: one for each window.
    outside: array[int]

    @property
    def dropped(self) -> int:
        """Words that were not counted, as there were too many different ones."""

    def visit(self, listed: array[int], content: bytearray, base: int, length: int) -> None:
        """Note blocks: a `Visit` of `walk`."""

    def scan(self, content: bytearray, length: int) -> None:
        """Count every word of a window, blocks or not."""

    def words(self) -> Iterator[WordCount]:
        """What was counted, in no order."""

    def classes(self) -> Iterator[SizeClass]:
        """What there is, by ascending size."""


class PythonPick:
    """The twin of ``leakcase_pick`` of the native part, with the same results."""

    def __init__(self, ranges: Sequence[tuple[int, int]], samples: int = SAMPLES) -> None:
        self.dropped = 0
        self.outside = array("Q")
        bounds = ranges or [(0, 0)]
        self._starts = [start for start, _ in bounds]
        self._ends = [end for _, end in bounds]
        self._samples = samples
        self._classes: dict[int, _Class] = {}
        self._by_size: dict[int, _Class] = {}
        self._anywhere = _Class()
        self._different_words = 0

    def visit(self, listed: array[int], content: bytearray, base: int, length: int) -> None:
        words = memoryview(content)[: length & ~7].cast("Q")
        first, last = base - HEADER_BYTES, base + length - HEADER_BYTES - WORD_BYTES
        by_size, lowest, highest = self._by_size, self._starts[0], self._ends[-1]
        for address, size in zip(listed[::2], listed[1::2]):
            kept = by_size.get(size)
            if kept is None:
                kept = by_size[size] = self._class_of(size)
            if not kept.seen % kept.stride:
                kept.add(address, self._samples)
            kept.seen += 1
            kept.size_bytes += size
            if first <= address <= last:
                word = words[(address - first) >> 3]
                entry = kept.words.get(word)
                if entry is not None:
                    entry[0] += 1
                    entry[1] += size
                elif lowest <= word < highest and self._is_within(word):
                    self._count(kept, word, size)
            else:
                self.outside.extend((address, size))

    def scan(self, content: bytearray, length: int) -> None:
        lowest, highest = self._starts[0], self._ends[-1]
        kept = self._anywhere
        for word in struct.unpack_from(f"={length // WORD_BYTES}Q", content):
            if lowest <= word < highest and self._is_within(word):
                self._count(kept, word, 0)

    def words(self) -> Iterator[WordCount]:
        for key, kept in (*self._classes.items(), (0, self._anywhere)):
            for word, (count, size) in kept.words.items():
                yield WordCount(word, key, count, size)

    def classes(self) -> Iterator[SizeClass]:
        for key in sorted(self._classes):
            kept = self._classes[key]
            yield SizeClass(key, kept.seen, kept.size_bytes, kept.addresses)

    def _is_within(self, word: int) -> bool:
        at = bisect_right(self._starts, word) - 1
        return at >= 0 and word < self._ends[at]

    def _class_of(self, size: int) -> _Class:
        return self._classes.setdefault(size_class(size), _Class())

    def _count(self, kept: _Class, word: int, size: int) -> None:
        entry = kept.words.get(word)
        if entry is None:
            if self._different_words >= MOST_WORDS:
                self.dropped += 1
                return
            self._different_words += 1
            entry = kept.words[word] = [0, 0]
        entry[0] += 1
        entry[1] += size


class _Class:
    """Of one class of size; `words`: how many blocks begin with which, and their bytes."""

    def __init__(self) -> None:
        self.seen = self.size_bytes = 0
        self.stride = 1
        self.addresses: list[int] = []
        self.words: dict[int, list[int]] = {}

    def add(self, address: int, most: int) -> None:
        """Sample one more block; where there is no room for it, every second one goes."""
        if len(self.addresses) == most:
            del self.addresses[1::2]
            self.stride *= 2
            if self.seen % self.stride:
                return
        self.addresses.append(address)
