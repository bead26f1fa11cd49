"""One instruction of a mapped file at which the kernel is to call us."""

from __future__ import annotations

from typing import NamedTuple

#: Calls that only give memory back: their return is of no interest.
FREES = ("free", "operator-delete", "munmap")
#: Calls that give back one block and hand out another.
MOVES = ("realloc", "reallocarray", "mremap")


class EntryPoint(NamedTuple):
    """Where a function of an allocator begins.

    `call` is a word of the vocabulary ``allocator_call``, and says in which order the arguments
    come: (size) for malloc, operator-new, valloc and pvalloc; (n, size) calloc; (p, size) realloc;
    (p, n, size) reallocarray; (alignment, size) memalign and aligned-alloc; (where, alignment,
    size) posix-memalign; (p) free and operator-delete; as in mmap(2), munmap(2), mremap(2) for
    those. A function of another name that takes its arguments so bears the word that fits.
    """

    call: str
    #: As we can open it: ``/proc/PID/root/...`` or ``/proc/PID/map_files/...``.
    path: str
    #: Of the instruction in that file. It may lie a few instructions into the function, where all
    #: argument registers and the stack pointer are still as the caller left them.
    file_offset: int
    #: Whether the call's return is wanted too.
    return_probe: bool
    #: Whether the kernel emulates the instruction, at about 1 µs; stepping it costs 20 and more.
    emulated: bool
