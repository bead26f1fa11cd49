"""Where references to blocks of the heap may be, beside the heap itself: the roots.

Globals lie in the writable data of modules, locals in stacks, thread-local variables above the
stack of their thread or in a mapping of the loader's, and registers in the kernel. Every private
mapping that was written to counts, whoever made it: a pool of the program's own holds references,
too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import NamedTuple, Optional

from leakcase_collector.errors import NotSupported, TargetGone
from leakcase_collector.system.door import System
from leakcase_collector.system.memory import MemoryMapping

#: A function that calls no other may use so much below the stack pointer (System V ABI, AMD64).
_RED_ZONE_BYTES = 128
#: Shared memory that programs make for themselves; a device's is never read.
_SHARED = (b"/dev/zero", b"/memfd:", b"/dev/shm/", b"/SYSV", b"[anon_shmem")

Span = tuple[int, int]


class ThreadState(NamedTuple):
    """A thread's registers, as far as they are told; `stack_pointer` None: it was running."""

    stack_pointer: Optional[int]
    words: tuple[int, ...]


RUNNING = ThreadState(None, ())


def parse_syscall(content: bytes) -> ThreadState:
    """``/proc/PID/task/TID/syscall`` (proc_pid_syscall(5)).

    Number of the call, its six arguments, stack pointer and program counter; without arguments
    where the thread waits for something else; or the word "running".
    """
    words = []
    with suppress(ValueError):
        words = [int(field, 16) for field in content.split()[1:]]
    return ThreadState(words[-2], tuple(words)) if len(words) in (2, 8) else RUNNING


def thread_states(system: System, pid: int) -> list[ThreadState]:
    """All threads now. A kernel without these files (before 2.6.27) tells as of running ones."""
    states = []
    for name in system.list_directory(f"/proc/{pid}/task"):
        with suppress(TargetGone):  # the thread, not the process
            try:
                content = system.read_bytes(f"/proc/{pid}/task/{name}/syscall")
            except NotSupported:
                content = b""
            states.append(parse_syscall(content))
    return states


def root_spans(
    mappings: Sequence[MemoryMapping], threads: Iterable[ThreadState], heap: Sequence[Span]
) -> list[Span]:
    """The memory to look for references in; `heap`, ascending, is cut out of it."""
    starts = [mapping.start for mapping in mappings]
    lowest: dict[int, int] = {}
    for thread in threads:
        if thread.stack_pointer is not None:
            index = bisect_right(starts, thread.stack_pointer) - 1
            if _is_stack(mappings, index, thread.stack_pointer):
                at = max(thread.stack_pointer - _RED_ZONE_BYTES, mappings[index].start) & ~7
                lowest[index] = min(at, lowest.get(index, at))
    # As each ends, or one before it: in order even where two overlap.
    ends = list(accumulate((end for _, end in heap), max))
    spans: list[Span] = []
    for index, mapping in enumerate(mappings):
        if _may_hold(mappings, index):
            span = (lowest.get(index, mapping.start), mapping.end)
            spans += _without(span, heap, bisect_right(ends, span[0]))
    return spans


def _is_stack(mappings: Sequence[MemoryMapping], index: int, pointer: int) -> bool:
    """Whether nothing but a stack can lie below: the main one, or one with a guard page in front.

    A stack within a larger block of the program's own has neither.
    """
    if index < 0 or pointer >= mappings[index].end:
        return False
    if mappings[index].path == b"[stack]":
        return True
    before = mappings[index - 1] if index else None
    return before is not None and before.end == mappings[index].start and not before.readable


def _may_hold(mappings: Sequence[MemoryMapping], index: int) -> bool:
    mapping = mappings[index]
    if not mapping.readable:
        return False
    if not mapping.is_private:
        return mapping.writable and mapping.path.startswith(_SHARED)
    if mapping.writable:
        return mapping.path == b"/dev/zero" or not mapping.path.startswith(b"/dev/")
    if not mapping.path:
        return True  # Written to, then protected.
    # RELRO: the part of a module's data that the loader protects when it has filled it.
    following = mappings[index + 1] if index + 1 < len(mappings) else None
    return (
        following is not None
        and following.writable
        and following.start == mapping.end
        and following.inode == mapping.inode != 0
    )


def _without(span: Span, holes: Sequence[Span], first: int) -> list[Span]:
    """What is left of `span`; `holes` are ascending, and those before `first` end before it."""
    at, end = span
    left = []
    for index in range(first, len(holes)):
        low, high = holes[index]
        if low >= end:
            break
        if at < low:
            left.append((at, low))
        at = max(at, high)
    if at < end:
        left.append((at, end))
    return left
