"""How to find the caller's registers at one address: the row that a call frame program yields.

DWARF 5, 6.4.1 (the table) and 6.4.2 (the program that writes it down); the GNU and AArch64
additions are those of binutils' include/dwarf2.def.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Optional, Union

from leakcase_collector.unwind.encoding import Cursor, damaged

_STATES_MAX = 64
_REGISTERS_MAX = 256
_WORD = (1 << 64) - 1

#: Kinds of rules. An offset counts from the CFA, the stack pointer before the call.
AT_OFFSET, IS_OFFSET, IN_REGISTER, AT_EXPRESSION, IS_EXPRESSION, UNDEFINED, SAME = range(7)


class Rule(NamedTuple):
    """Where one register of the caller is; `value` is an offset, a register or an expression."""

    kind: int
    value: Union[int, bytes] = 0


class Row(NamedTuple):
    """The rules that hold at one address. Registers without a rule keep their value.

    The CFA is `cfa_register` plus `cfa_offset`, or what `cfa_expression` computes.
    """

    cfa_register: int
    cfa_offset: int
    cfa_expression: Optional[bytes]
    rules: dict[int, Rule]
    return_register: int
    is_signal_frame: bool


class Common(NamedTuple):
    """What functions share (a CIE): factors, encodings, and the program that all begin with."""

    code_factor: int
    data_factor: int
    return_register: int
    pointer_encoding: int
    has_augmentation_data: bool
    is_signal_frame: bool
    program: bytes


_Rules = dict[int, Rule]


class Program:
    """The state of a call frame program while it runs."""

    def __init__(self, common: Common, start: int) -> None:
        self._common = common
        self._location = start
        self._register = -1
        self._offset = 0
        self._expression: Optional[bytes] = None
        self._rules: _Rules = {}
        self._initial: _Rules = {}
        self._kept: list[tuple[int, int, Optional[bytes], _Rules]] = []

    def row_at(self, address: int, cursor: Cursor) -> Row:
        """The row for `address`, of the function whose own program `cursor` stands before."""
        # Nothing in the common program moves on: it holds for all addresses.
        self._run(Cursor(self._common.program), _WORD)
        self._initial = dict(self._rules)
        self._run(cursor, address)
        if self._expression is None and self._register < 0:
            raise damaged()
        return Row(
            self._register,
            self._offset,
            self._expression,
            self._rules,
            self._common.return_register,
            self._common.is_signal_frame,
        )

    def _run(self, cursor: Cursor, address: int) -> None:
        """Until the program ends, or speaks of addresses beyond `address`."""
        while cursor.at < cursor.end:
            code = cursor.byte()
            low = code & 0x3F
            if code >= 0xC0:  # DW_CFA_restore
                self._restore(low)
            elif code >= 0x80:  # DW_CFA_offset
                self._set(low, AT_OFFSET, cursor.uleb128() * self._common.data_factor)
            elif code >= 0x40:  # DW_CFA_advance_loc
                self._location += low * self._common.code_factor
            elif code in _ADVANCES:
                self._location += cursor.fixed(_ADVANCES[code]) * self._common.code_factor
            elif code == 0x01:  # DW_CFA_set_loc
                self._location = cursor.pointer(self._common.pointer_encoding)
            elif code in _OPERATIONS:
                _OPERATIONS[code](self, cursor)
            else:
                raise damaged()
            if self._location > address:
                return

    def _set(self, register: int, kind: int, value: Union[int, bytes] = 0) -> None:
        if register >= _REGISTERS_MAX:
            raise damaged()
        self._rules[register] = Rule(kind, value)

    def _restore(self, register: int) -> None:
        if register in self._initial:
            self._rules[register] = self._initial[register]
        else:
            self._rules.pop(register, None)

    def _remember(self) -> None:
        if len(self._kept) >= _STATES_MAX:
            raise damaged()
        self._kept.append((self._register, self._offset, self._expression, dict(self._rules)))

    def _recall(self) -> None:
        if not self._kept:
            raise damaged()
        self._register, self._offset, self._expression, self._rules = self._kept.pop()

    def _define(self, register: int, offset: int) -> None:
        self._register, self._offset, self._expression = register, offset, None

    def _scaled(self, cursor: Cursor) -> int:
        return cursor.sleb128() * self._common.data_factor

    def _compute(self, cursor: Cursor) -> None:
        self._expression = cursor.take(cursor.uleb128())
        self._register = -1

    def _define_register(self, cursor: Cursor) -> None:
        self._register, self._expression = cursor.uleb128(), None

    def _saved_at(self, cursor: Cursor, sign: int) -> None:
        register = cursor.uleb128()
        self._set(register, AT_OFFSET, sign * cursor.uleb128() * self._common.data_factor)

    def _offset_signed(self, cursor: Cursor, kind: int) -> None:
        register = cursor.uleb128()
        self._set(register, kind, self._scaled(cursor))

    def _is_offset(self, cursor: Cursor) -> None:
        register = cursor.uleb128()
        self._set(register, IS_OFFSET, cursor.uleb128() * self._common.data_factor)

    def _moved(self, cursor: Cursor) -> None:
        register = cursor.uleb128()
        self._set(register, IN_REGISTER, cursor.uleb128())

    def _computed(self, cursor: Cursor, kind: int) -> None:
        register = cursor.uleb128()
        self._set(register, kind, cursor.take(cursor.uleb128()))

    def _pass_over(self, cursor: Cursor) -> None:
        """How many bytes of arguments are pushed (DW_CFA_GNU_args_size) changes no rule."""
        cursor.uleb128()

    def _define_offset(self, offset: int) -> None:
        self._offset = offset


#: DW_CFA_advance_loc1, 2, 4 and DW_CFA_MIPS_advance_loc8.
_ADVANCES = {0x02: "<B", 0x03: "<H", 0x04: "<I", 0x1D: "<Q"}
_OPERATIONS: dict[int, Callable[[Program, Cursor], None]] = {
    0x00: lambda p, c: None,
    0x05: lambda p, c: p._saved_at(c, 1),
    0x06: lambda p, c: p._restore(c.uleb128()),
    0x07: lambda p, c: p._set(c.uleb128(), UNDEFINED),
    0x08: lambda p, c: p._set(c.uleb128(), SAME),
    0x09: lambda p, c: p._moved(c),
    0x0A: lambda p, c: p._remember(),
    0x0B: lambda p, c: p._recall(),
    0x0C: lambda p, c: p._define(c.uleb128(), c.uleb128()),
    0x0D: lambda p, c: p._define_register(c),
    0x0E: lambda p, c: p._define_offset(c.uleb128()),
    0x0F: lambda p, c: p._compute(c),
    0x10: lambda p, c: p._computed(c, AT_EXPRESSION),
    0x11: lambda p, c: p._offset_signed(c, AT_OFFSET),
    0x12: lambda p, c: p._define(c.uleb128(), p._scaled(c)),
    0x13: lambda p, c: p._define_offset(p._scaled(c)),
    0x14: lambda p, c: p._is_offset(c),
    0x15: lambda p, c: p._offset_signed(c, IS_OFFSET),
    0x16: lambda p, c: p._computed(c, IS_EXPRESSION),
    # Whether the return address is signed: all of them are stripped (see `machines`).
    0x2C: lambda p, c: None,
    0x2D: lambda p, c: None,
    0x2E: lambda p, c: p._pass_over(c),
    0x2F: lambda p, c: p._saved_at(c, -1),
}
