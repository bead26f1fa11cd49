"""What a DWARF expression computes: the rules for PLT entries, signal frames, aligned stacks.

DWARF 5, 2.5. Only what may stand in call frame information is known; a bounded number of
operations is done, so that no expression can hold us.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Protocol

from leakcase_collector.unwind.encoding import Cursor, damaged

_OPERATIONS_MAX = 256
_STACK_MAX = 64
_WORD = (1 << 64) - 1
_SIGN = 1 << 63


class NoValue(Exception):
    """A register is not known, or memory was not copied."""


class Bytes(Protocol):
    """The copied piece of stack."""

    def word(self, address: int) -> int:
        """The 8 bytes at `address`, little-endian; NoValue where they were not copied."""
        ...


def evaluate(
    expression: bytes, registers: Mapping[int, int], stack: Bytes, start: tuple[int, ...] = ()
) -> int:
    """The top of the expression's stack at its end; `start` is on that stack at first.

    NoValue where it needs what is not known; ElfError where it is no such expression.
    """
    machine = _Evaluation(expression, registers, stack, list(start))
    for _ in range(_OPERATIONS_MAX):
        if machine.cursor.at >= machine.cursor.end:
            return machine.pop()
        machine.step()
        if len(machine.values) > _STACK_MAX:
            break
    raise damaged()


def _signed(value: int) -> int:
    return value - (1 << 64) if value & _SIGN else value


_BINARY: dict[int, Callable[[int, int], int]] = {
    0x1A: operator.and_,
    0x1C: operator.sub,
    0x1E: operator.mul,
    0x21: operator.or_,
    0x22: operator.add,
    0x24: lambda a, b: a << b if b < 64 else 0,
    0x25: lambda a, b: a >> b if b < 64 else 0,
    0x26: lambda a, b: _signed(a) >> min(b, 63),
    0x27: operator.xor,
    0x29: operator.eq,
    0x2A: lambda a, b: _signed(a) >= _signed(b),
    0x2B: lambda a, b: _signed(a) > _signed(b),
    0x2C: lambda a, b: _signed(a) <= _signed(b),
    0x2D: lambda a, b: _signed(a) < _signed(b),
    0x2E: operator.ne,
}  # fmt: skip
_CONSTANTS = {
    0x03: "<Q", 0x08: "<B", 0x09: "<b", 0x0A: "<H", 0x0B: "<h", 0x0C: "<I", 0x0D: "<i",
    0x0E: "<Q", 0x0F: "<q",
}  # fmt: skip


class _Evaluation:
    def __init__(
        self, expression: bytes, registers: Mapping[int, int], stack: Bytes, values: list[int]
    ) -> None:
        self.cursor = Cursor(expression)
        self.values = values
        self._registers = registers
        self._stack = stack

    def pop(self) -> int:
        if not self.values:
            raise damaged()
        return self.values.pop()

    def _push(self, value: int) -> None:
        self.values.append(value & _WORD)

    def _drop(self) -> None:
        self.pop()

    def _pick(self, depth: int) -> int:
        if depth >= len(self.values):
            raise damaged()
        return self.values[-1 - depth]

    def _register(self, number: int) -> None:
        offset = self.cursor.sleb128()
        if number not in self._registers:
            raise NoValue
        self._push(self._registers[number] + offset)

    def step(self) -> None:
        code = self.cursor.byte()
        if code in _BINARY:
            right = self.pop()
            self._push(int(_BINARY[code](self.pop(), right)))
        elif code in _CONSTANTS:
            self._push(self.cursor.fixed(_CONSTANTS[code]))
        elif 0x30 <= code <= 0x4F:  # DW_OP_lit0 ...
            self._push(code - 0x30)
        elif 0x70 <= code <= 0x8F:  # DW_OP_breg0 ...
            self._register(code - 0x70)
        elif code in _OTHERS:
            _OTHERS[code](self)
        else:
            raise damaged()

    def _swap(self) -> None:
        top, below = self.pop(), self.pop()
        self.values += [top, below]

    def _rotate(self) -> None:
        top, second, third = self.pop(), self.pop(), self.pop()
        self.values += [top, third, second]

    def _load(self, size: int) -> None:
        if not 1 <= size <= 8:
            raise damaged()
        self._push(self._stack.word(self.pop()) & ((1 << 8 * size) - 1))

    def _divide(self) -> None:
        right, left = _signed(self.pop()), _signed(self.pop())
        if not right:
            raise damaged()
        quotient = abs(left) // abs(right)
        self._push(quotient if (left < 0) == (right < 0) else -quotient)

    def _modulo(self) -> None:
        right, left = self.pop(), self.pop()
        if not right:
            raise damaged()
        self._push(left % right)

    def _jump(self, taken: Callable[[_Evaluation], bool]) -> None:
        distance = self.cursor.fixed("<h")
        if taken(self):
            self.cursor.at += distance
            if not 0 <= self.cursor.at <= self.cursor.end:
                raise damaged()


_OTHERS: dict[int, Callable[[_Evaluation], None]] = {
    0x06: lambda e: e._load(8),
    0x10: lambda e: e._push(e.cursor.uleb128()),
    0x11: lambda e: e._push(e.cursor.sleb128()),
    0x12: lambda e: e._push(e._pick(0)),
    0x13: lambda e: e._drop(),
    0x14: lambda e: e._push(e._pick(1)),
    0x15: lambda e: e._push(e._pick(e.cursor.byte())),
    0x16: lambda e: e._swap(),
    0x17: lambda e: e._rotate(),
    0x19: lambda e: e._push(abs(_signed(e.pop()))),
    0x1B: lambda e: e._divide(),
    0x1D: lambda e: e._modulo(),
    0x1F: lambda e: e._push(-e.pop()),
    0x20: lambda e: e._push(~e.pop()),
    0x23: lambda e: e._push(e.pop() + e.cursor.uleb128()),
    0x28: lambda e: e._jump(lambda e: e.pop() != 0),
    0x2F: lambda e: e._jump(lambda e: True),
    0x92: lambda e: e._register(e.cursor.uleb128()),
    0x94: lambda e: e._load(e.cursor.byte()),
    0x96: lambda e: None,
}
