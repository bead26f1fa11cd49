"""What is known of an address in a stack: a row of a table, or a guess, or nothing."""

from __future__ import annotations

from typing import NamedTuple, Optional

from leakcase_collector.errors import CollectorError
from leakcase_collector.unwind.machines import Machine
from leakcase_collector.unwind.modules import CodeModule, CodeModules
from leakcase_collector.unwind.rows import Row

#: The first function of a program calls one other and never returns; it has some 40 bytes.
_ENTRY_BYTES = 128


class Found(NamedTuple):
    """`row` None: the stack ends here. `end` (vocabulary stack_end) says why it does.

    A guess supposes a frame pointer; where that does not hold, `end` is what is left to say.
    """

    row: Optional[Row]
    end: str
    is_guess: bool = False


_ROOT = Found(None, "root")


def find(modules: CodeModules, machine: Machine, pc: int, after_call: bool) -> Found:
    """By which rule to go on from `pc`, which a call returns to, or at which code was interrupted.

    A call may be its function's last instruction, and rules may differ behind it, so that it is the
    call that is looked for.
    """
    if not pc:
        return _ROOT
    back = 1 if after_call else 0
    place = modules.place(pc - back)
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
        return _without_row(machine, module, address + back)
    # The vdso of aarch64 tells of a frame record only, not where the registers were saved.
    if row.is_signal_frame and _is_signal_return(machine, module, address + back):
        return Found(machine.signal_row, "no-rule")
    return Found(row, "no-rule")


def _without_row(machine: Machine, module: CodeModule, address: int) -> Found:
    assert module.elf is not None
    entry = module.elf.entry
    if entry < address <= entry + _ENTRY_BYTES:
        return _ROOT
    if _is_signal_return(machine, module, address):  # musl and Go have no table for it
        return Found(machine.signal_row, "no-rule")
    return Found(machine.frame_row, "no-rule", True)


def _is_signal_return(machine: Machine, module: CodeModule, address: int) -> bool:
    assert module.elf is not None
    try:
        offset = module.elf.offset_of(address)
        return module.elf.read(offset, len(machine.signal_code)) == machine.signal_code
    except CollectorError:
        return False
