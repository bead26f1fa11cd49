"""One stack, frame by frame, with every register that is known and every rule that there is."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Optional

from leakcase_collector.system.elf import ElfError
from leakcase_collector.unwind.expressions import NoValue, evaluate
from leakcase_collector.unwind.lookup import Found, Lookup
from leakcase_collector.unwind.machines import Machine
from leakcase_collector.unwind.rows import (
    AT_EXPRESSION,
    AT_OFFSET,
    IN_REGISTER,
    IS_EXPRESSION,
    IS_OFFSET,
    SAME,
    UNDEFINED,
    Row,
    Rule,
)

_WORD = (1 << 64) - 1
_SAME = Rule(SAME)
#: A frame that is larger is more likely a wrong guess.
_FRAME_LIMIT_BYTES = 1 << 20


class UnwoundStack(NamedTuple):
    """Two that are equal are the same stack: hashable, so that equal ones can be counted.

    `pcs` are addresses in the target, innermost first, each one that a call returns to but for
    those at the positions in `exact`. `end` is a word of the vocabulary stack_end.
    """

    pcs: tuple[int, ...]
    end: str
    exact: tuple[int, ...] = ()


class StackCopy:
    """A piece of a stack, copied from `start` on."""

    def __init__(self, start: int, content: bytes) -> None:
        self.start = start
        self._content = content

    def word(self, address: int) -> int:
        at = address - self.start
        if not 0 <= at <= len(self._content) - 8:
            raise NoValue
        value: int = struct.unpack_from("<Q", self._content, at)[0]
        return value

    def words_from(self, address: int) -> Iterator[int]:
        """The words at `address` and above, as far as they were copied."""
        for at in range(max(address - self.start, 0), len(self._content) - 7, 8):
            yield struct.unpack_from("<Q", self._content, at)[0]


class _End(Exception):
    """There is no further frame; the argument is a word of stack_end."""


_Registers = dict[int, int]


class CarefulUnwind:
    """One unwind."""

    def __init__(self, machine: Machine, lookup: Lookup, stack: StackCopy) -> None:
        self._machine = machine
        self._lookup = lookup
        self._stack = stack
        self._before: Optional[Found] = None
        #: All that is above belongs to frames that are still to come.
        self._below = 0

    def run(self, registers: Mapping[int, int], limit: int, after_call: bool) -> UnwoundStack:
        pcs: list[int] = []
        exact: list[int] = []
        state = dict(registers)
        self._below = state.get(self._machine.stack_pointer, 0)
        end = "depth"
        try:
            while len(pcs) < limit:
                pc = state.get(self._machine.program_counter, 0) & self._machine.pointer_mask
                found = self._found(pc, after_call)
                if not after_call:
                    exact.append(len(pcs))
                pcs.append(pc)
                if found.row is None:
                    raise _End(found.end)
                state = self._caller(found, found.row, state, after_call)
                after_call = not found.row.is_signal_frame
                self._before = found
        except _End as reason:
            end = str(reason)
        return UnwoundStack(tuple(pcs), end, tuple(exact))

    def _found(self, pc: int, after_call: bool) -> Found:
        """What is known of `pc`, which must be code."""
        before = self._before
        if before is not None and before.is_guess and not self._lookup.may_be_return(pc):
            raise _End(self._end_of_guess(before))
        found = self._lookup.find(pc, after_call)
        if not pc or found.end == "no-module":
            raise _End(found.end)
        return found

    def _caller(self, found: Found, row: Row, state: _Registers, after_call: bool) -> _Registers:
        try:
            if found.is_guess:
                self._require_plausible(found, state)
            elif row.cfa_register not in state and row.cfa_expression is None:
                # As after a guess that does not tell the stack pointer: another one, then.
                self._require_plausible(found, state)
                row = self._machine.frame_row
            return self._apply(row, state, after_call)
        except NoValue:
            raise _End(found.end) from None
        except ElfError:
            raise _End("unreadable") from None

    def _require_plausible(self, found: Found, state: _Registers) -> None:
        """A frame pointer points up the stack, at a multiple of 8; the outermost one is zero."""
        frame = state.get(self._machine.frame_pointer)
        if self._before is not None and self._before.is_guess and frame == 0:
            raise _End("root")
        if frame is None or frame % 8 or not 0 <= frame - self._below < _FRAME_LIMIT_BYTES:
            raise _End(self._end_of_guess(found))

    def _end_of_guess(self, found: Found) -> str:
        """Where all that may come is code without tables, none of the program's own is missing.

        So musl's first functions end a stack, which have neither tables nor frame pointers.
        """
        above = self._stack.words_from(self._below)
        is_last = found.end == "no-rule" and not self._lookup.returns_elsewhere(above)
        return "root" if is_last else found.end

    def _apply(self, row: Row, state: _Registers, after_call: bool) -> _Registers:
        machine = self._machine
        if row.rules.get(row.return_register, _SAME).kind == UNDEFINED:
            raise _End("root")
        cfa = self._cfa(row, state)
        caller = dict(state)
        for register, rule in row.rules.items():
            if register == row.return_register:
                continue
            try:
                caller[register] = self._value(rule, register, cfa, state)
            except NoValue:
                # A slot below what was copied was popped already: the register has its value.
                below = rule.kind == AT_OFFSET and cfa + int(rule.value) < self._stack.start
                if not below:
                    caller.pop(register, None)
        self._require_progress(row, cfa, after_call)
        returns_to = self._return_address(row, cfa, state, after_call)
        caller[machine.program_counter] = caller[row.return_register] = returns_to
        if machine.stack_pointer not in row.rules:
            caller[machine.stack_pointer] = cfa
        self._below = cfa
        return caller

    def _cfa(self, row: Row, state: _Registers) -> int:
        if row.cfa_expression is not None:
            return evaluate(row.cfa_expression, state, self._stack)
        if row.cfa_register not in state:
            raise NoValue
        return (state[row.cfa_register] + row.cfa_offset) & _WORD

    def _return_address(self, row: Row, cfa: int, state: _Registers, after_call: bool) -> int:
        rule = row.rules.get(row.return_register, _SAME)
        if rule.kind == SAME and after_call:
            # It has called since, so that its own return address is in no register any more.
            raise NoValue
        try:
            return self._value(rule, row.return_register, cfa, state)
        except NoValue:
            if rule.kind in (AT_OFFSET, AT_EXPRESSION):
                raise _End("copied-bytes") from None
            raise

    def _require_progress(self, row: Row, cfa: int, after_call: bool) -> None:
        """Each caller's part of the stack lies above; a signal may be handled on another stack."""
        if not row.is_signal_frame and cfa < self._below + (1 if after_call else 0):
            raise NoValue

    def _value(self, rule: Rule, register: int, cfa: int, state: _Registers) -> int:
        """What `register` held in the caller."""
        kind, value = rule
        if isinstance(value, bytes):
            if kind == IS_EXPRESSION:
                return evaluate(value, state, self._stack, (cfa,))
            return self._stack.word(evaluate(value, state, self._stack, (cfa,)))
        if kind == AT_OFFSET:
            return self._stack.word((cfa + value) & _WORD)
        if kind == IS_OFFSET:
            return (cfa + value) & _WORD
        source = value if kind == IN_REGISTER else register
        if kind == UNDEFINED or source not in state:
            raise NoValue
        return state[source]
