"""What is known of an address in a stack: a row of a table, or a guess, or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Optional

from leakcase_collector.errors import CollectorError
from leakcase_collector.unwind.machines import Machine
from leakcase_collector.unwind.modules import CodeModule, CodeModules
from leakcase_collector.unwind.rows import Row

#: The first function of a program calls one other and never returns; it has some 40 bytes.
_ENTRY_BYTES = 128
#: As many bytes as the longest call that the machines have.
_CALL_BYTES = 8
_REMEMBERED_MAX = 2048


class Found(NamedTuple):
    """`row` None: the stack ends here. `end` (vocabulary stack_end) says why it does.

    A guess supposes a frame pointer; where that does not hold, `end` is what is left to say.
    """

    row: Optional[Row]
    end: str
    is_guess: bool = False


_ROOT = Found(None, "root")


class Lookup:
    """Answers for the addresses of one target, remembered until `forget`."""

    def __init__(self, modules: CodeModules, machine: Machine) -> None:
        self._modules = modules
        self._machine = machine
        self._found: dict[tuple[int, bool], Found] = {}

    def forget(self) -> None:
        self._found.clear()

    def find(self, pc: int, after_call: bool) -> Found:
        """By which rule to go on from `pc`, where a call returns to or code was interrupted.

        A call may be its function's last instruction, and rules may differ behind it, so that it
        is the call that is looked for.
        """
        found = self._found.get((pc, after_call))
        if found is None:
            if len(self._found) >= _REMEMBERED_MAX:
                self._found.clear()
            found = self._found[pc, after_call] = self._look_up(pc, 1 if after_call else 0)
        return found

    def _look_up(self, pc: int, back: int) -> Found:
        if not pc:
            return _ROOT
        machine = self._machine
        place = self._modules.place(pc - back)
        if place is None:
            return Found(None, "no-module")
        module, address = place
        if module is None:
            return Found(machine.frame_row, "jit", True)
        if module.elf is None or module.frames is None or address is None:
            return Found(machine.frame_row, "unreadable", True)
        if module.elf.machine != machine.name:
            return Found(None, "unreadable")
        try:
            row = module.frames.row_at(address)
        except CollectorError:
            return Found(None, "unreadable")
        if row is None:
            return self._without_row(module, address + back)
        # The vdso of aarch64 tells of a frame record only, not where the registers were saved.
        if row.is_signal_frame and self._returns_from_signal(module, address + back):
            return Found(machine.signal_row, "no-rule")
        return Found(row, "no-rule")

    def _without_row(self, module: CodeModule, address: int) -> Found:
        entry = 0 if module.elf is None else module.elf.entry
        if entry < address <= entry + _ENTRY_BYTES:
            return _ROOT
        if self._returns_from_signal(module, address):  # musl and Go have no table for it
            return Found(self._machine.signal_row, "no-rule")
        return Found(self._machine.frame_row, "no-rule", True)

    def _returns_from_signal(self, module: CodeModule, address: int) -> bool:
        wanted = self._machine.signal_code
        return module.code_at(address, len(wanted)) == wanted

    def may_be_return(self, pc: int) -> bool:
        """Whether a call stands before `pc`; of code that was made at run time we suppose so."""
        place = self._modules.place(pc - 1)
        if place is None:
            return False
        module, address = place
        if module is None or address is None:
            return True
        before = module.code_at(address + 1 - _CALL_BYTES, _CALL_BYTES)
        return not before or self._machine.ends_with_call(before)

    def returns_elsewhere(self, words: Iterable[int]) -> bool:
        """Whether a call returns to any of these words, but for readable code without tables."""
        mask = self._machine.pointer_mask
        for word in words:
            pc = word & mask
            if self._modules.place(pc) is not None and self.may_be_return(pc):
                found = self.find(pc, True)
                if found.end in ("jit", "unreadable") or (found.row and not found.is_guess):
                    return True
        return False
