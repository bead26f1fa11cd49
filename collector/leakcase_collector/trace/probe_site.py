"""At which of a function's first instructions a probe costs least and still sees every call.

A probe on an instruction that the kernel carries out by itself costs about 1 microsecond; on any
other the kernel lets the processor execute one instruction elsewhere and trap again, 3 to 25.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from leakcase_collector.system.elf import ElfError
from leakcase_collector.trace import aarch64, x86_64
from leakcase_collector.trace.instructions import BRANCH, CALL, JUMP, RETURN, Instruction

#: A function's beginning, within which a site is looked for.
_INSTRUCTIONS_MAX = 32
#: How much of a function is searched for jumps back into its beginning.
BODY_BYTES = 4096


class Machine(NamedTuple):
    """What differs between the machines that can be traced."""

    decode: Callable[[bytes, int, int], Instruction | None]
    #: The registers that a function's first arguments come in.
    arguments: tuple[int, ...]
    #: The register whose change ends the time in which the return address may be replaced: the
    #: stack pointer, or the register that holds it.
    returns_by: int


MACHINES = {
    "x86_64": Machine(x86_64.decode, x86_64.ARGUMENTS, x86_64.RSP),
    "aarch64": Machine(aarch64.decode, aarch64.ARGUMENTS, aarch64.LINK),
}


class ProbeSite(NamedTuple):
    """An instruction that every call passes once, with what the call was given still at hand."""

    address: int
    emulated: bool
    #: The register of each argument that was asked for.
    arguments: tuple[int, ...]


def machine_of(name: str) -> Machine:
    """ElfError for machines whose instructions are not known here."""
    if name not in MACHINES:
        raise ElfError(f"calls on the machine {name} cannot be traced")
    return MACHINES[name]


def first_instructions(machine: Machine, code: bytes, address: int) -> list[Instruction]:
    """The straight path from a function's entry; it ends with the first that leaves it for sure."""
    found: list[Instruction] = []
    at = 0
    while len(found) < _INSTRUCTIONS_MAX:
        instruction = machine.decode(code, at, address + at)
        if instruction is None:
            break
        found.append(instruction)
        if instruction.flow in (JUMP, RETURN, CALL):
            break
        at += instruction.size_bytes
    return found


def choose_site(
    machine: Machine,
    code: bytes,
    address: int,
    wanted: Sequence[int],
    *,
    returns: bool,
    null_is_nothing: bool = False,
    kernel: tuple[int, int],
) -> ProbeSite | None:
    """The cheapest site of the function whose `code` lies at `address`; None if there is none.

    `wanted`: the numbers of the arguments that must be readable. `returns`: the return will be
    watched too, so that its address must be untouched. `null_is_nothing`: calls whose first
    argument is null need not be seen (free). `code` may end before the function does, then jumps
    back into its beginning from beyond are not known of.
    """
    sites = _sites(machine, code, address, wanted, returns, null_is_nothing)
    inner = _jumped_to(machine, code, address)
    sites = [site for site in sites if not any(address < jump <= site[0].address for jump in inner)]
    cheap = [site for site in sites if site[0].emulated_from <= kernel]
    if not (cheap or sites):
        return None
    # After a test for null the calls that change nothing cost nothing.
    instruction, registers, _ = max(cheap or sites, key=lambda site: (site[2], -site[0].address))
    if not cheap:
        instruction, registers, _ = sites[0]
    return ProbeSite(instruction.address, bool(cheap), registers)


def _sites(
    machine: Machine,
    code: bytes,
    address: int,
    wanted: Sequence[int],
    returns: bool,
    null_is_nothing: bool,
) -> list[tuple[Instruction, tuple[int, ...], bool]]:
    """Each possible site, the registers of the arguments there, whether null is behind."""
    found = []
    holders = [{register} for register in machine.arguments]
    after_null, tested = False, False
    for instruction in first_instructions(machine, code, address):
        if instruction.can_probe and all(holders[number] for number in wanted):
            registers = tuple(
                _preferred(holders[number], machine.arguments[number]) for number in wanted
            )
            found.append((instruction, registers, after_null))
        if returns and (instruction.changes >> machine.returns_by & 1 or instruction.saves_return):
            break
        is_null_test = instruction.tests is not None and instruction.tests in holders[0]
        if instruction.flow == BRANCH:
            # Beyond any other condition not every call comes by.
            if not (null_is_nothing and instruction.skips_null and (tested or is_null_test)):
                break
            after_null = True
        tested = is_null_test
        _apply(instruction, holders)
    return found


def _apply(instruction: Instruction, holders: list[set[int]]) -> None:
    for held in holders:
        copied = instruction.copies is not None and instruction.copies[1] in held
        held -= {register for register in held if instruction.changes >> register & 1}
        if copied and instruction.copies is not None:
            held.add(instruction.copies[0])


def _preferred(held: set[int], usual: int) -> int:
    return usual if usual in held else min(held)


def _jumped_to(machine: Machine, code: bytes, address: int) -> set[int]:
    """Where direct jumps within `code` go to, as far as it can be decoded from its start."""
    targets = set()
    at = 0
    while at < len(code):
        instruction = machine.decode(code, at, address + at)
        if instruction is None:
            break
        if instruction.target is not None and instruction.flow in (JUMP, BRANCH):
            targets.add(instruction.target)
        at += instruction.size_bytes
    return targets
