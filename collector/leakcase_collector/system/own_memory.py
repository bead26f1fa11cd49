"""Our own memory: given back as soon as it is free."""

from __future__ import annotations

import ctypes
from contextlib import suppress

#: mallopt(3) of glibc; the values are its own defaults.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_DEFAULT_BYTES = 128 << 10


def give_back_early() -> None:
    """Keep glibc from keeping what was freed.

    Once it has freed a large block, its thresholds rise to that block's size, so that the next ones
    come out of its heap and stay there (M_MMAP_THRESHOLD of mallopt(3)). Setting them, be it to
    what they are, ends that. Other C libraries have no such function or do as they like.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _DEFAULT_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _DEFAULT_BYTES)
