"""The functions of Python that a thread is in, and where they belong among those of C.

Frames come either from the walk at an event (collector/bpf/python.h) or from the memory of a
program that goes on meanwhile; then a frame that was left while it was read can end the list early.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Optional, TypeVar, Union

from leakcase_collector.system.memory import Memory

from .cpython_blocks import ResidentBlocks
from .cpython_code import CodeNames
from .cpython_layout import PythonLayout, layout_of
from .cpython_runtime import PythonImage
from .cpython_threads import find_threads, main_interpreter, number_at

#: No frame is larger up to the last field that is read.
_FRAME_BYTES = 112
_FRAMES_MAX = 4096
#: struct python_frames: how many, whether there are more; then code and instruction of each.
_HEAD = struct.Struct("=II")
_FRAME = struct.Struct("=QQ")
_CODE_MASK = ~7
#: Code of the frames of 3.12 that stand for C; met where one is made while it is read.
_SHIM_NAME = "<interpreter trampoline>"
_EVALUATES = "_PyEval_EvalFrameDefault"

Native = TypeVar("Native")
Interpreted = TypeVar("Interpreted")


class RawFrame(NamedTuple):
    """A frame as it stands in memory: address of its code object, and its instruction.

    The instruction is an address, before 3.11 an index (f_lasti). `is_entry`: C called it, so that
    what lies further out belongs to another call of the evaluating function.
    """

    code: int
    instruction: int
    is_entry: bool


class PythonFrame(NamedTuple):
    """A place in a program's own Python; `line` is None where the instruction is of no line."""

    function: str
    file: str
    line: Optional[int]


#: What one call from C executes, innermost first; calls of Python by Python need no C since 3.11.
Run = list[PythonFrame]


def frames_of_sample(content: bytes) -> list[RawFrame]:
    """What the walk at an event wrote, innermost first; as much of it as there is."""
    if len(content) < _HEAD.size:
        return []
    count = min(_HEAD.unpack_from(content)[0], (len(content) - _HEAD.size) // _FRAME.size)
    return [
        RawFrame(code & _CODE_MASK, instruction, bool(code & 1))
        for code, instruction in _FRAME.iter_unpack(
            content[_HEAD.size : _HEAD.size + count * _FRAME.size]
        )
    ]


class Interpreter:
    """A running CPython, read from outside. NotSupported where its version is not known."""

    def __init__(self, memory: Memory, image: PythonImage) -> None:
        self._image = image
        self._blocks = ResidentBlocks(memory)
        self.layout: PythonLayout = layout_of(image, self._blocks)
        self._names = CodeNames(image, self.layout)

    def look_again(self, memory: Memory) -> None:
        """Read from this memory from here on, of the same process; what is known stays known."""
        self._blocks = ResidentBlocks(memory)

    def threads(self, numbers: Mapping[int, int]) -> dict[int, int]:
        """Threads as ``/proc`` numbers them -> their thread states, by now. NotSupported where
        they cannot be found. `numbers`: of `cpython_threads.thread_numbers`."""
        return find_threads(self._image, self.layout, self._blocks, numbers)

    def for_kernel(self, numbers: Mapping[int, int], threads: Mapping[int, int]) -> bytes:
        """The layout for the walk at an event; `numbers` and `threads`: of and from `threads`."""
        where, offset = self.layout.running
        start = self._image.runtime
        if where == "interpreter":
            start = main_interpreter(self._image, self.layout, self._blocks)
        found = number_at(self.layout, self._blocks, threads.values(), numbers)
        return self.layout.for_kernel(start + offset, found)

    def stack(self, thread: int) -> list[Run]:
        """What the thread with this thread state executes now, innermost first."""
        return self.named(self._raw_frames(thread))

    def named(self, frames: Sequence[RawFrame]) -> list[Run]:
        """Frames with the names of their code, by call from C; what is no code (any more) is left
        out of its run."""
        runs: list[Run] = []
        is_entry = True
        for frame in frames:
            if is_entry:
                runs.append([])
            is_entry = frame.is_entry
            code = self._names.find(self._blocks, frame.code)
            if code is not None and code.function != _SHIM_NAME:
                line = code.line(self._offset(frame), self.layout.minor)
                runs[-1].append(PythonFrame(code.function, code.file, line))
        return runs

    def _offset(self, frame: RawFrame) -> int:
        """Of the instruction, in bytes from the first one."""
        if self.layout.code.start is not None:
            return frame.instruction - frame.code - self.layout.code.start
        index = frame.instruction - (1 << 32) if frame.instruction >> 31 else frame.instruction
        return index * 2 if self.layout.minor == 10 else index

    def _raw_frames(self, thread: int) -> list[RawFrame]:
        layout = self.layout
        frame = self._word(thread + layout.thread_frame)
        if layout.cframe_frame is not None:
            frame = self._word(frame + layout.cframe_frame)
        found: list[RawFrame] = []
        for _ in range(_FRAMES_MAX):
            if not frame:
                break
            content = self._blocks.read_now(frame, _FRAME_BYTES)
            if layout.shim_owner is not None and content[layout.owner or 0] == layout.shim_owner:
                if found:
                    found[-1] = found[-1]._replace(is_entry=True)
            else:
                found.append(_raw_frame(layout, content))
            frame = _word_at(content, layout.previous)
        return found

    def _word(self, address: int) -> int:
        return _word_at(self._blocks.read_now(address, 8), 0)


def _raw_frame(layout: PythonLayout, content: bytes) -> RawFrame:
    instruction = _word_at(content, layout.instruction)
    is_entry = layout.instruction_is_index
    if is_entry:
        instruction &= 0xFFFFFFFF
    elif layout.is_entry is not None:
        is_entry = content[layout.is_entry] == 1
    return RawFrame(_word_at(content, layout.frame_code) & _CODE_MASK, instruction, is_entry)


def _word_at(content: bytes, offset: int) -> int:
    return int.from_bytes(content[offset : offset + 8], "little")


def evaluates_python(function: Optional[str]) -> bool:
    """Whether a function of C, by its symbol, is the one that executes frames of Python.

    Compilers split the parts that are seldom used off, as ``….cold``.
    """
    return function is not None and function.split(".")[0] == _EVALUATES


def interleave(
    native: Sequence[Native],
    is_evaluating: Callable[[Native], bool],
    runs: Sequence[Sequence[Interpreted]],
) -> list[Union[Native, Interpreted]]:
    """Both stacks, innermost first, as one: before each frame of the evaluating function the
    run of Python that it executes. What is left, as of a stack of C that was cut, comes last."""
    out: list[Union[Native, Interpreted]] = []
    rest = iter(runs)
    for frame in native:
        if is_evaluating(frame):
            out += next(rest, ())
        out.append(frame)
    for run in rest:
        out += run
    return out
