"""What CPython says of its structures: _Py_DebugOffsets, since 3.13 the beginning of _PyRuntime.

A cookie, PY_VERSION_HEX and whether the build is free-threaded; then for each structure its size
and where its fields are, a word each. Which fields there are differs by version
(Include/internal/pycore_debug_offsets.h of CPython).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, Optional

from leakcase_collector.errors import NotSupported

_COOKIE = b"xdebugpy"
_HEAD = struct.Struct("=8sQQ")
#: How many words are of runtime, interpreter, thread state, frame and code; of the structures
#: between these and the garbage collector's; which words of an interpreter are the latter and the
#: holder of its lock.
_SHAPES = {0x030D: ((3, 13, 9, 6, 10), 27, 4, 12), 0x030E: ((3, 16, 9, 8, 11), 31, 5, 13)}
_WORDS_MAX = 96
#: As much of _PyRuntime as holds all that is read.
OFFSETS_BYTES = _HEAD.size + 8 * _WORDS_MAX
#: No structure is larger up to the last field that is read: by the first word of the field's name
#: here, and all others. Of a frame no more is copied at an event, nor read.
_LIMITS_BYTES = {"thread": 4096, "frame": 112, "code": 4096}
_LARGE_BYTES = 1 << 20


class PublishedOffsets(NamedTuple):
    """Offsets in bytes, in the structure that the name begins with."""

    minor: int
    runtime_interpreters: int
    interpreter_next: int
    interpreter_threads: int
    interpreter_collector: int
    interpreter_lock_holder: int
    thread_frame: int
    thread_id: int
    thread_native_id: int
    frame_previous: int
    frame_code: int
    frame_instruction: int
    frame_owner: int
    code_file: int
    code_name: int
    code_line_table: int
    code_first_line: int
    code_start: int
    collector_bytes: int
    collector_collecting: int


def published_offsets(
    content: bytes, refusal: Callable[[str], NotSupported]
) -> Optional[PublishedOffsets]:
    """From the first OFFSETS_BYTES of _PyRuntime; None before 3.13.

    Raises `refusal` of the reason where there are some that cannot be used.
    """
    if len(content) < OFFSETS_BYTES or not content.startswith(_COOKIE):
        return None
    _, version, is_free_threaded = _HEAD.unpack_from(content)
    if is_free_threaded:
        raise refusal("it is a free-threaded build")
    if version >> 16 not in _SHAPES:
        raise refusal(f"it is version {version >> 24 & 0xFF}.{version >> 16 & 0xFF}")
    sizes, between, collector_at, holder_at = _SHAPES[version >> 16]
    words = struct.unpack_from(f"={_WORDS_MAX}Q", content, _HEAD.size)
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    runtime, interpreter, thread, frame, code = (
        words[end - size : end] for end, size in zip(ends, sizes)
    )
    collector = words[ends[-1] + between :]
    found = PublishedOffsets(
        version >> 16 & 0xFF,
        runtime[2],
        interpreter[2],
        interpreter[3],
        interpreter[collector_at],
        interpreter[holder_at],
        thread[4],
        thread[5],
        thread[6],
        frame[1],
        frame[2],
        frame[3],
        frame[5],
        code[1],
        code[3],
        code[4],
        code[5],
        code[9],
        collector[0],
        collector[1],
    )
    if not all(map(_is_likely, found._fields, found)):
        raise refusal("its own description of itself is damaged")
    return found


def _is_likely(name: str, offset: int) -> bool:
    return offset + 8 <= _LIMITS_BYTES.get(name.partition("_")[0], _LARGE_BYTES)
