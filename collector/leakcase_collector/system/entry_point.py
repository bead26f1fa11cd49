"""A place in a program's code where a call to its memory allocator can be watched."""

from __future__ import annotations

from typing import NamedTuple


class EntryPoint(NamedTuple):
    """One instruction of an allocator function at which the kernel shall call us (uprobe).

    It is at the function's entry or a few instructions later, where each call comes by exactly
    once and what the caller gave is still in registers.
    """

    #: Word of the vocabulary ``allocator_call``; several points may carry the same.
    call: str
    #: Opens the very file that is mapped, ``/proc/self/fd/N``; valid while its owner keeps it open.
    path: str
    #: Of the instruction, in that file.
    file_offset: int
    #: Whether the call yields a block, so that its return must be seen as well. The return address
    #: is then still where the caller put it: at the top of the stack (x86-64), in x30 (aarch64).
    return_probe: bool
    #: Whether the kernel carries the instruction out by itself instead of single-stepping it.
    emulated: bool
    #: What each hit is expected to cost the caller, nanoseconds, without the return's share.
    hit_ns: int
    #: The function's symbol.
    function: str
    #: Numbers of the registers that hold the call's arguments here, in the machine's numbering:
    #: x86-64 0 rax, 1 rcx, 2 rdx, 3 rbx, 4 rsp, 5 rbp, 6 rsi, 7 rdi, 8-15 r8-r15; aarch64 x0-x30.
    arguments: tuple[int, ...]
    #: Whether the function may leave by a C++ exception, which cannot pass a return that is
    #: watched: the C++ runtime finds no unwind rules for the kernel's trampoline and terminates.
    may_throw: bool = False
