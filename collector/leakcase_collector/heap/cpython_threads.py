"""CPython's thread states: which interpreter state belongs to which thread of the kernel.

Since 3.11 a thread state has the kernel's number of its thread. Before that it has what
pthread_self(3) gives, the address of the C library's descriptor of the thread, and that has the
number, at a place that has not changed in twenty years (glibc: nptl/descr.h, `tid`; musl:
src/internal/pthread_impl.h).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Optional

from leakcase_collector.errors import CollectorError, NotSupported
from leakcase_collector.system.door import System

from .cpython_blocks import ResidentBlocks
from .cpython_layout import PythonLayout
from .cpython_runtime import PythonImage

_INTERPRETERS_MAX = 256
_THREADS_MAX = 65_536
_READS = 3
#: Thread states begin with: previous, next, interpreter.
_LINKS = struct.Struct("=3Q")
#: In the descriptors of glibc and of musl on x86-64, and of glibc on aarch64.
_NUMBER_AT = (720, 48, 208)


def thread_numbers(system: System, pid: int) -> dict[int, int]:
    """The process's threads: as the target itself numbers them -> as our ``/proc`` does.

    They differ where the target has a pid namespace of its own (``NSpid``, proc_pid_status(5)).
    """
    folder = f"/proc/{pid}/task"
    numbers = [int(name) for name in system.list_directory(folder) if name.isdigit()]
    if _own_number(system, f"/proc/{pid}/status", pid) == pid:
        return {number: number for number in numbers}
    found = {}
    for number in numbers:
        with suppress(CollectorError):  # the thread has ended
            found[_own_number(system, f"{folder}/{number}/status", number)] = number
    return found


def _own_number(system: System, path: str, otherwise: int) -> int:
    for line in system.read_text(path).splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return otherwise  # before Linux 4.1 nobody tells


def main_interpreter(image: PythonImage, layout: PythonLayout, blocks: ResidentBlocks) -> int:
    """The address of the interpreter that started first. NotSupported where there is none."""
    last = 0
    for interpreter in _interpreters(image, layout, blocks):
        last = interpreter  # New ones are put before it.
    if not last:
        raise NotSupported(
            "cannot read the threads of the Python interpreter: it has none, as before its start "
            "and after its end. Try again while the program runs."
        )
    return last


def find_threads(
    image: PythonImage, layout: PythonLayout, blocks: ResidentBlocks, numbers: Mapping[int, int]
) -> dict[int, int]:
    """Threads as ``/proc`` numbers them -> the addresses of their thread states.

    `numbers` is of `thread_numbers`. NotSupported where there is no thread state of known shape.
    The program goes on meanwhile: a thread that has just started or is ending may be left out.
    """
    states: list[int] = []
    for _ in range(_READS):
        found, is_whole = _thread_states(image, layout, blocks)
        states = found if is_whole else [*states, *found]
        if is_whole:
            break
    if not states:
        raise NotSupported(
            "cannot read the threads of the Python interpreter: its list of them has no known "
            "shape. The functions of C are named all the same."
        )
    threads: dict[int, int] = {}
    for state in states:
        number = _number_of(blocks, layout, state, numbers)
        if number is not None and _is_better(blocks, layout, state, threads.get(number)):
            threads[number] = state
    return threads


def _is_better(
    blocks: ResidentBlocks, layout: PythonLayout, state: int, other: Optional[int]
) -> bool:
    """A thread has a state in each interpreter that it was in; that of the newest, which comes
    first, counts where it executes something."""
    return (
        other is None
        or not _innermost(blocks, layout, other)
        and bool(_innermost(blocks, layout, state))
    )


def _innermost(blocks: ResidentBlocks, layout: PythonLayout, state: int) -> int:
    frame = _word(blocks, state + layout.thread_frame)
    return frame if layout.cframe_frame is None else _word(blocks, frame + layout.cframe_frame)


def _thread_states(
    image: PythonImage, layout: PythonLayout, blocks: ResidentBlocks
) -> tuple[list[int], bool]:
    """All thread states, and whether each list was followed to its end."""
    states: dict[int, None] = {}  # a set in order
    is_whole = True
    for interpreter in _interpreters(image, layout, blocks):
        before, state = 0, _word(blocks, interpreter + layout.threads)
        while state and len(states) < _THREADS_MAX:
            previous, following, owner = _LINKS.unpack(blocks.read_now(state, _LINKS.size))
            if owner != interpreter or previous != before or state in states:
                is_whole = False
                break
            states[state] = None
            before, state = state, following
    return list(states), is_whole


def _interpreters(
    image: PythonImage, layout: PythonLayout, blocks: ResidentBlocks
) -> Iterator[int]:
    interpreter = _word(blocks, image.runtime + layout.interpreters)
    for _ in range(_INTERPRETERS_MAX):
        if not interpreter or interpreter % 8:
            return
        yield interpreter
        interpreter = _word(blocks, interpreter + layout.next_interpreter)


def number_at(
    layout: PythonLayout,
    blocks: ResidentBlocks,
    states: Iterable[int],
    numbers: Mapping[int, int],
) -> Optional[tuple[int, int]]:
    """Where thread states tell the kernel's number of their thread: the place in them, and 0 or
    the place in what that points to. None where it is not known, or the target has numbers of its
    own."""
    if any(inner != outer for inner, outer in numbers.items()):
        return None
    if layout.native_id is not None:
        return layout.native_id, 0
    for state in states:
        descriptor = _word(blocks, state + layout.thread_id)
        for offset in _NUMBER_AT:
            if _int(blocks, descriptor + offset) in numbers:
                return layout.thread_id, offset
    return None


def _number_of(
    blocks: ResidentBlocks, layout: PythonLayout, state: int, numbers: Mapping[int, int]
) -> Optional[int]:
    if layout.native_id is not None:
        number = _word(blocks, state + layout.native_id)
        if number in numbers:
            return numbers[number]
    # A forked child's main thread still has its parent's number there (3.11 and later).
    descriptor = _word(blocks, state + layout.thread_id)
    for offset in _NUMBER_AT:
        number = _int(blocks, descriptor + offset)
        if number in numbers:
            return numbers[number]
    return None


def _word(blocks: ResidentBlocks, address: int) -> int:
    return int.from_bytes(blocks.read_now(address, 8), "little")


def _int(blocks: ResidentBlocks, address: int) -> int:
    return int.from_bytes(blocks.read_now(address, 4), "little")
