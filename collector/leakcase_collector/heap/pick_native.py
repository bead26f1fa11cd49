"""What `pick` does, in C."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterator, Sequence

from .pick import MOST_WORDS, SAMPLES, SizeClass, WordCount

_SLOTS = MOST_WORDS // 3 * 4
#: The classes of `sizes`, by number: 256 sizes below 4,096, then sixteen for each power of two, up
#: to 2 to the 48.
_EXACT, _CLASSES = 256, 256 + 16 * 36


class PickState(ctypes.Structure):
    """struct leakcase_pick of collector/native/pick.c."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("ranges", "slots", "used", "dropped", "samples", "outside")
    ]


class NativePick:
    """The twin in C."""

    def __init__(
        self, library: ctypes.CDLL, ranges: Sequence[tuple[int, int]], samples: int = SAMPLES
    ) -> None:
        self.outside = array("Q")
        self._state = PickState(ranges=len(ranges), slots=_SLOTS, samples=samples)
        self._ranges = array("Q", [bound for bounds in ranges for bound in bounds])
        self._classes = array("Q", [0, 0, 1, 0]) * _CLASSES
        self._slots = array("Q", bytes(32 * _SLOTS))
        self._samples = array("Q", bytes(8 * _CLASSES * samples))
        word, pointer = ctypes.c_uint64, ctypes.c_void_p
        self._pick_blocks = library.leakcase_pick_blocks
        self._pick_blocks.argtypes = [ctypes.POINTER(PickState), *[pointer] * 6, word]
        self._pick_blocks.argtypes += [pointer, word, word]
        self._pick_blocks.restype = None
        self._pick_words = library.leakcase_pick_words
        self._pick_words.argtypes = [ctypes.POINTER(PickState), *[pointer] * 3, word]
        self._pick_words.restype = None

    @property
    def dropped(self) -> int:
        return int(self._state.dropped)

    def visit(self, listed: array[int], content: bytearray, base: int, length: int) -> None:
        outside = array("Q", bytes(len(listed) * 8))
        self._state.outside = 0
        self._pick_blocks(
            self._state,
            *map(_address, (self._ranges, self._classes, self._slots, self._samples, outside)),
            _address(listed),
            len(listed) // 2,
            _content(content),
            base,
            length,
        )
        self.outside += outside[: 2 * self._state.outside]

    def scan(self, content: bytearray, length: int) -> None:
        pointers = (_address(self._ranges), _address(self._slots), _content(content))
        self._pick_words(self._state, *pointers, length)

    def words(self) -> Iterator[WordCount]:
        slots = self._slots
        for at in range(0, len(slots), 4):
            if slots[at + 1]:
                key = _class_bytes(slots[at + 1] - 1)
                yield WordCount(slots[at], key, slots[at + 2], slots[at + 3])

    def classes(self) -> Iterator[SizeClass]:
        most = self._state.samples
        for number in range(_CLASSES):
            seen, size_bytes, _, kept = self._classes[4 * number : 4 * number + 4]
            if seen:
                sampled = self._samples[number * most : number * most + kept]
                yield SizeClass(_class_bytes(number), seen, size_bytes, sampled)


def _class_bytes(number: int) -> int:
    """The smallest size of a class."""
    if number < _EXACT:
        return 16 * number
    doubling, part = divmod(number - _EXACT, 16)
    return (16 + part) << (8 + doubling)


def _address(values: array[int]) -> int:
    return values.buffer_info()[0]


def _content(content: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(content)).from_buffer(content))
