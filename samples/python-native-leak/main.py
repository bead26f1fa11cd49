"""A Python service with a leak in native code, made through ctypes: it needs no compiler.

malloc's block is written and its address forgotten; the interpreter's own memory stays as it is.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import Sample  # noqa: E402

FRAMES_PER_SECOND = 211
FRAME_BYTES = 1_511
# The chunk that glibc cuts: an 8-byte size word, rounded up to 16.
RESIDENT_BYTES = (FRAME_BYTES + 8 + 15) & ~15

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]


def decode_frame() -> bool:
    frame = libc.malloc(FRAME_BYTES)  # LEAK
    if frame is None:
        return False
    ctypes.memset(frame, 0xA7, FRAME_BYTES)
    return True


def main() -> None:
    sample = Sample("python-native-leak")
    leaked = 0
    for _ in sample.ticks():
        while leaked < sample.due(FRAMES_PER_SECOND):
            if not decode_frame():
                sample.limit_reached()
                break
            leaked += 1
    sample.end(leaked * RESIDENT_BYTES, leaked)


if __name__ == "__main__":
    main()
