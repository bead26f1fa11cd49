"""Many stacks of one target, fast: what is common to most frames, remembered for each address.

Almost every frame of a compiled program has its CFA at a constant distance from the stack or the
frame pointer, the return address and the caller's frame pointer at constant distances from that.
For these a step is four numbers and no other register need be known; a stack that meets anything
else is unwound once more by `careful`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import NamedTuple, Optional

from leakcase_collector.unwind.careful import CarefulUnwind, StackCopy, UnwoundStack
from leakcase_collector.unwind.lookup import Found, Lookup
from leakcase_collector.unwind.machines import MACHINES, Machine
from leakcase_collector.unwind.modules import CodeModule, CodeModules
from leakcase_collector.unwind.rows import AT_OFFSET, SAME, UNDEFINED, Row, Rule

__all__ = ["Frame", "UnwoundStack", "Unwinder"]

#: Addresses that are remembered; some 150 bytes each. A server's stacks have a few thousand.
_REMEMBERED_MAX = 16_384
_FRAMES_LIMIT = 128

#: Whether the CFA counts from the frame pointer, how far it is, and from it the slots of the
#: caller's frame pointer (0: it was not saved) and of the return address.
Step = tuple[bool, int, int, int]
#: Neither has a slot above the stack pointer, so that the loop leaves by its one check.
_OUTERMOST: Step = (False, 0, 0, -8)
_UNCOMMON: Step = (False, 0, 0, -16)
_SAME = Rule(SAME)


class Frame(NamedTuple):
    """One place of a stack.

    `address` is the file's own (vaddr) where `module` is known, else the target's. What a call
    returns to (`after_call`) belongs to the function and line of the byte before it.
    """

    pc: int
    module: Optional[CodeModule]
    address: int
    after_call: bool

    @property
    def code(self) -> str:
        """A word of the vocabulary `code`."""
        return "jit" if self.module is None else "native"


class Unwinder:
    """Unwinds stacks of the target whose code is `modules`, all on one machine."""

    def __init__(self, modules: CodeModules, machine: Optional[str] = None) -> None:
        self._modules = modules
        self._machine: Machine = MACHINES[machine or platform.machine()]
        self._after_call: dict[int, Step] = {}
        self._interrupted: dict[int, Step] = {}
        self._lookup = Lookup(modules, self._machine)
        self._frames: dict[tuple[int, bool], Frame] = {}
        self._steps: dict[Step, Step] = {}

    def refresh(self) -> None:
        """Look whether the target has mapped or unmapped code; forget what may not hold."""
        if self._modules.refresh():
            self._forget()

    def _forget(self) -> None:
        for cache in (self._after_call, self._interrupted, self._steps, self._frames):
            cache.clear()
        self._lookup.forget()

    def unwind(
        self,
        registers: Mapping[int, int],
        stack_start: int,
        stack: bytes,
        limit: int = _FRAMES_LIMIT,
        *,
        after_call: bool = True,
    ) -> UnwoundStack:
        """The calls that led to `registers`, given by DWARF number; those not given are unknown.

        `stack` was copied from `stack_start` on, at or below the stack pointer. With `after_call`
        the program counter is what a call returns to, as where a function just returned.
        """
        machine = self._machine
        pc = registers.get(machine.program_counter, 0) & machine.pointer_mask
        stack_pointer = registers.get(machine.stack_pointer, 0)
        if stack_pointer >= stack_start and (stack_start | stack_pointer) & 7 == 0:
            done = self._fast(
                pc,
                stack_pointer - stack_start,
                registers.get(machine.frame_pointer, 0) - stack_start,
                stack_start,
                memoryview(stack)[: len(stack) & ~7].cast("Q"),
                limit,
                after_call,
            )
            if done is not None:
                return done
        copied = StackCopy(stack_start, stack)
        return CarefulUnwind(machine, self._lookup, copied).run(registers, limit, after_call)

    def _fast(
        self,
        pc: int,
        at: int,
        frame: int,
        start: int,
        words: memoryview,
        limit: int,
        after_call: bool,
    ) -> Optional[UnwoundStack]:
        """None where a frame is not of the common kind. `at` and `frame` count from the copy."""
        pcs: list[int] = []
        append, mask = pcs.append, self._machine.pointer_mask
        known = self._after_call if after_call else self._interrupted
        known_after, end = self._after_call, "depth"
        try:
            for _ in range(limit):
                append(pc)
                step = known.get(pc) or self._learn(pc, known)
                from_frame, up, frame_slot, return_slot = step
                cfa = (frame if from_frame else at) + up
                slot = cfa + return_slot
                if slot < at or slot & 7:
                    if step is not _OUTERMOST:
                        return None
                    end = "root"
                    break
                pc = words[slot >> 3] & mask
                if frame_slot and cfa + frame_slot >= 0:
                    frame = words[(cfa + frame_slot) >> 3] - start
                at = cfa
                known = known_after
        except IndexError:
            end = "copied-bytes"
        if pcs and not pcs[-1]:
            pcs.pop()
        return UnwoundStack(tuple(pcs), end, () if after_call or not pcs else (0,))

    def _learn(self, pc: int, known: dict[int, Step]) -> Step:
        if len(known) >= _REMEMBERED_MAX:
            known.clear()
        step = self._step(self._lookup.find(pc, known is self._after_call))
        known[pc] = step = self._steps.setdefault(step, step)
        return step

    def _step(self, found: Found) -> Step:
        row = found.row
        if row is None:
            return _OUTERMOST if found.end == "root" else _UNCOMMON
        if found.is_guess:
            return _UNCOMMON
        return _common_step(self._machine, row)

    def frames(self, stack: UnwoundStack) -> list[Frame]:
        """Where each place of `stack` is, as the modules are mapped now."""
        return [self._frame(pc, index not in stack.exact) for index, pc in enumerate(stack.pcs)]

    def _frame(self, pc: int, after_call: bool) -> Frame:
        known = self._frames.get((pc, after_call))
        if known is None:
            if len(self._frames) >= _REMEMBERED_MAX // 2:
                self._frames.clear()
            back = 1 if after_call else 0
            module, address = self._modules.place(pc - back) or (None, None)
            known = Frame(pc, module, pc if address is None else address + back, after_call)
            self._frames[pc, after_call] = known
        return known


def _common_step(machine: Machine, row: Row) -> Step:
    if row.is_signal_frame or row.cfa_register not in (
        machine.stack_pointer,
        machine.frame_pointer,
    ):
        return _UNCOMMON
    returns = row.rules.get(row.return_register, _SAME)
    frame = row.rules.get(machine.frame_pointer, _SAME)
    if returns.kind == UNDEFINED:
        return _OUTERMOST
    if returns.kind != AT_OFFSET or frame.kind not in (AT_OFFSET, SAME):
        return _UNCOMMON
    offset, frame_slot, return_slot = row.cfa_offset, int(frame.value), int(returns.value)
    if return_slot >= 0 or machine.stack_pointer in row.rules:
        return _UNCOMMON
    if (offset | frame_slot | return_slot) & 7:
        return _UNCOMMON
    return (row.cfa_register == machine.frame_pointer, offset, frame_slot, return_slot)
