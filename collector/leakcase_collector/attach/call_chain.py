"""The calls that a thread is in, where its stack alone cannot tell live words from old ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from leakcase_collector.unwind.modules import CodeModules, Target
from leakcase_collector.unwind.unwinder import Unwinder

#: The registers' numbers in DWARF (System V ABI, AMD64, figure 3.36).
_NUMBERS = ("rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip").split()
_DEPTH_MAX = 512


class CallChain:
    """Follows stacks by the unwind tables of the program's files."""

    def __init__(self, modules: CodeModules) -> None:
        self._unwinder = Unwinder(modules, "x86_64")

    def is_outside(
        self, registers: Mapping[str, int], low: int, stack: bytes, code: Sequence[tuple[int, int]]
    ) -> bool:
        """Whether it leads to the thread's first function without any place in `code`.

        False as well where it cannot be followed so far: then nothing is proven.
        """
        numbered = {number: registers[name] for number, name in enumerate(_NUMBERS)}
        found = self._unwinder.unwind(numbered, low, stack, _DEPTH_MAX, after_call=False)
        return found.end == "root" and not any(
            start <= pc <= end for pc in found.pcs for start, end in code
        )


@contextmanager
def call_chain(target: Target) -> Iterator[CallChain]:
    """Opens the files that are needed, and closes them."""
    modules = CodeModules(target)
    try:
        yield CallChain(modules)
    finally:
        modules.close()
