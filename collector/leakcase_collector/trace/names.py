"""Who knows what a place in the code is called: symbol tables, and what compilers write down."""

from __future__ import annotations

from contextlib import suppress
from typing import Optional

from leakcase_collector.errors import CollectorError, TargetGone
from leakcase_collector.system.door import System
from leakcase_collector.unwind.modules import CodeModule

from .functions import FunctionNames
from .jit_names import JitNames
from .stacks import Place


class Names:
    """The functions of one process."""

    def __init__(self, system: System, pid: int) -> None:
        self._functions = FunctionNames(system, pid)
        self._jit = JitNames(system, pid)

    def name(self, module: Optional[CodeModule], place: Place) -> Optional[tuple[str, int]]:
        """The function and the bytes from its start, as `stacks.Namer` asks."""
        if place.address is None:
            return None
        back = 1 if place.after_call else 0  # What follows a call may be another function's.
        address = place.address - back
        if place.code == "jit":
            with suppress(CollectorError):
                made = self._jit.name_of(address)
                return None if made is None else (made.name, made.offset + back)
            return None
        if module is None or module.elf is None:
            return None
        try:
            found = self._functions.name_of(module.elf, address)
        except TargetGone:
            # Its root went with it, and what was there of symbols; the files that we hold are left.
            self._functions = FunctionNames()
            found = self._functions.name_of(module.elf, address)
        return None if found is None else (found.name, found.offset + back)
