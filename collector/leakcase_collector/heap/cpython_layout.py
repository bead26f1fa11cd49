"""Where things stand in CPython's thread states, frames and code objects, by version.

The numbers up to 3.12 are offsets in the headers of those releases (Include/cpython/pystate.h,
Include/internal/pycore_frame.h, pycore_interp.h and pycore_runtime.h, code.h, frameobject.h), the
same in every bug-fix release of each. 3.13 and later publish their own (`cpython_offsets`). Both
are believed only where what is read by them has the shape that it must have: a thread state names
its interpreter, a frame's code is a code object.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple, Optional

from leakcase_collector.errors import NotSupported

from .cpython_blocks import ResidentBlocks
from .cpython_offsets import OFFSETS_BYTES, PublishedOffsets, published_offsets
from .cpython_runtime import PythonImage

_ABSENT = 0xFFFF
#: struct python_layout of collector/bpf/python.h.
_FOR_KERNEL = struct.Struct("=QQ11H2x4BI")


class CodeLayout(NamedTuple):
    """In a code object: offsets in bytes. `name` is the qualified one where there is such a field.

    `start`: where its instructions begin, since 3.11 within the object itself; None before.
    """

    first_line: int
    file: int
    name: int
    line_table: int
    start: Optional[int]

    @property
    def head_bytes(self) -> int:
        """As much of a code object as holds all of these."""
        return self.line_table + 8


class PythonLayout(NamedTuple):
    """Offsets in bytes; None for what a version does not have."""

    minor: int
    #: In _PyRuntime, in an interpreter, in a thread state.
    interpreters: int
    next_interpreter: int
    threads: int
    thread_id: int
    native_id: Optional[int]
    thread_frame: int
    #: In what `thread_frame` points to, a _PyCFrame (3.11 and 3.12).
    cframe_frame: Optional[int]
    previous: int
    frame_code: int
    instruction: int
    #: 3.11 and later: since then a frame is no object, and calls of Python by Python need no C.
    owner: Optional[int]
    #: 3.11: one byte, whether this frame is the outermost of its C call.
    is_entry: Optional[int]
    #: 3.12 and later: the owner of a frame that stands for a call from C.
    shim_owner: Optional[int]
    code: CodeLayout
    #: Where the data of strings begin: those of ASCII characters only, and others.
    ascii_data: int
    unicode_data: int
    #: From which structure and where on the running thread state is found.
    running: tuple[str, int]

    @property
    def instruction_is_index(self) -> bool:
        """f_lasti, an int, before 3.11; an address since."""
        return self.owner is None

    def for_kernel(self, running_thread_at: int, number_at: Optional[tuple[int, int]]) -> bytes:
        """The same for the walk at an event, as struct python_layout of collector/bpf/python.h.

        `running_thread_at`: the address of the pointer to the running thread state. `number_at`:
        where that tells the kernel's number of its thread, and 0 or where in what it points to
        there; None where it is not known or the target counts its threads otherwise.
        """
        thread_number, descriptor_number = number_at or (0, 0)
        # What there is not is read all the same, somewhere within.
        fields = (self.previous, self.frame_code, self.instruction, self.owner, self.is_entry)
        start = min(self.previous, self.frame_code)
        places = [start if field is None else field for field in fields]
        return _FOR_KERNEL.pack(
            running_thread_at,
            0xFFFFFFFF if self.instruction_is_index else 0xFFFFFFFFFFFFFFFF,
            thread_number,
            descriptor_number,
            self.thread_frame,
            _ABSENT if self.cframe_frame is None else self.cframe_frame,
            start,
            max(places) + 8 - start,
            *(place - start for place in places),
            int(self.is_entry is not None),
            int(self.instruction_is_index),
            int(self.shim_owner is not None),
            self.shim_owner or 0,
            1,
        )


_BEFORE_3_11 = PythonLayout(
    minor=9,
    interpreters=32,
    next_interpreter=0,
    threads=8,
    thread_id=176,
    native_id=None,
    thread_frame=24,
    cframe_frame=None,
    previous=24,
    frame_code=32,
    instruction=104,
    owner=None,
    is_entry=None,
    shim_owner=None,
    code=CodeLayout(first_line=40, file=104, name=112, line_table=120, start=None),
    ascii_data=48,
    unicode_data=72,
    running=("runtime", 568),  # gilstate.tstate_current
)
_TABLE = {
    8: _BEFORE_3_11._replace(minor=8, running=("runtime", 1368)),
    9: _BEFORE_3_11,
    10: _BEFORE_3_11._replace(minor=10, instruction=96),
    11: PythonLayout(
        minor=11,
        interpreters=40,
        next_interpreter=0,
        threads=16,
        thread_id=152,
        native_id=160,
        thread_frame=56,
        cframe_frame=8,
        previous=48,
        frame_code=32,
        instruction=56,
        owner=69,
        is_entry=68,
        shim_owner=None,
        code=CodeLayout(first_line=72, file=112, name=128, line_table=136, start=184),
        ascii_data=48,
        unicode_data=72,
        running=("runtime", 576),
    ),
    12: PythonLayout(
        minor=12,
        interpreters=40,
        next_interpreter=0,
        threads=72,
        thread_id=136,
        native_id=144,
        thread_frame=56,
        cframe_frame=0,
        previous=8,
        frame_code=0,
        instruction=56,
        owner=70,
        is_entry=None,
        shim_owner=3,
        code=CodeLayout(first_line=68, file=112, name=128, line_table=136, start=192),
        ascii_data=40,
        unicode_data=56,
        running=("interpreter", 1048),  # _gil.last_holder
    ),
}


def layout_of(image: PythonImage, blocks: ResidentBlocks) -> PythonLayout:
    """Of the CPython that is at `image`. NotSupported for other versions than 3.8 to 3.14."""
    published = published_offsets(blocks.read_now(image.runtime, OFFSETS_BYTES), _unknown)
    if published is not None:
        return _published(published)
    match = re.match(r"3\.(\d+)", image.version or "")
    layout = _TABLE.get(int(match.group(1))) if match else None
    if layout is None:
        raise _unknown(f"its version is {image.version or 'not known'}")
    return layout


def _published(offsets: PublishedOffsets) -> PythonLayout:
    return PythonLayout(
        minor=offsets.minor,
        interpreters=offsets.runtime_interpreters,
        next_interpreter=offsets.interpreter_next,
        threads=offsets.interpreter_threads,
        thread_id=offsets.thread_id,
        native_id=offsets.thread_native_id,
        thread_frame=offsets.thread_frame,
        cframe_frame=None,
        previous=offsets.frame_previous,
        frame_code=offsets.frame_code,
        instruction=offsets.frame_instruction,
        owner=offsets.frame_owner,
        is_entry=None,
        shim_owner=3,
        code=CodeLayout(
            first_line=offsets.code_first_line,
            file=offsets.code_file,
            name=offsets.code_name,
            line_table=offsets.code_line_table,
            start=offsets.code_start,
        ),
        ascii_data=40,
        unicode_data=56,
        running=("interpreter", offsets.interpreter_lock_holder),
    )


def _unknown(why: str) -> NotSupported:
    return NotSupported(
        f"cannot name the functions of the Python interpreter: {why}. CPython 3.8 to 3.14 with a "
        "global lock is covered; the functions of C beneath are named all the same."
    )
