"""What a walk over chunks knows and fills: shared by its two twins, Python and C."""

from __future__ import annotations

import ctypes
from array import array
from typing import Callable, NamedTuple

from leakcase_collector.system.memory import PAGE_BYTES

from .layout import IS_MMAPPED

#: Sizes below it are counted by size; chunks of that size and more are listed one by one.
COUNTED_BYTES = 64 << 10
_CAPACITY = 4096
#: What a step says.
MORE, DONE, FULL = 0, 1, 2


class WalkState(ctypes.Structure):
    """struct leakcase_walk of collector/native/walk.c: every field an unsigned 64-bit word."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            # Where the next header is; where the memory ends, and in it the top (0: it has none).
            "position end top_end"
            # Header bits that no chunk here has.
            " forbidden"
            # The chunk before `position` (0: none), its size, and whether it may be a tcache.
            " pending pending_bytes pending_is_tcache"
            # From where on the walk is lost; 0: it is not.
            " lost"
            # In-use chunks of at least that size are listed.
            " listed_from_bytes"
            # What was found.
            " found_top found_top_bytes closing_bytes lost_bytes resyncs"
            " in_use_chunks in_use_bytes free_chunks free_bytes"
            # How many entries the lists hold; `capacity` is that of each.
            " listed spans tcaches capacity page_bytes"
        ).split()
    ]


class Lists(NamedTuple):
    """What a step fills: counts by size / 16; pairs of address and size; addresses."""

    counts: array[int]
    listed: array[int]
    spans: array[int]
    tcaches: array[int]

    @classmethod
    def empty(cls) -> Lists:
        return cls(
            array("Q", bytes(8 * (COUNTED_BYTES // 16))),
            array("Q", bytes(16 * _CAPACITY)),
            array("Q", bytes(16 * _CAPACITY)),
            array("Q", bytes(8 * _CAPACITY)),
        )


#: (state, lists, bytes of a window, its address, its length, whether nothing readable follows)
Step = Callable[[WalkState, Lists, bytearray, int, int, bool], int]


def new_state(start: int, end: int, top_end: int, forbidden: int) -> WalkState:
    """A walk from the first chunk at `start`. `forbidden`: NON_MAIN_ARENA in the main arena."""
    return WalkState(
        position=start,
        end=end,
        top_end=top_end,
        # A size is a multiple of 16: bit 3 is never set.
        forbidden=forbidden | IS_MMAPPED | 8,
        listed_from_bytes=COUNTED_BYTES,
        capacity=_CAPACITY,
        page_bytes=PAGE_BYTES,
    )


def native_step(library: ctypes.CDLL) -> Step:
    """The twin in C."""
    function = library.leakcase_walk
    word, pointer = ctypes.c_uint64, ctypes.c_void_p
    function.argtypes = [ctypes.POINTER(WalkState), *[pointer] * 5, word, word, ctypes.c_int]
    function.restype = ctypes.c_int

    def step(
        state: WalkState, lists: Lists, content: bytearray, base: int, length: int, is_last: bool
    ) -> int:
        addresses = [found.buffer_info()[0] for found in lists]
        window = ctypes.addressof((ctypes.c_char * len(content)).from_buffer(content))
        return int(function(state, *addresses, window, base, length, is_last))

    return step
