"""The first instructions of a function: their lengths, what they change, what the kernel makes
of a probe on them.

Only as much of each machine's instruction set as a function's straight beginning needs: an
instruction that is not known here ends what may be said, it is never guessed at. This file holds
what both machines have in common; see `x86_64` and `aarch64`.
"""

from __future__ import annotations

from typing import NamedTuple

#: All registers, flags aside: for instructions of which it is not known what they change.
EVERY_REGISTER = -1
#: No kernel is known to carry such an instruction out by itself.
NEVER = (1 << 16, 0)
#: Every kernel that has uprobes does.
ALWAYS = (0, 0)

PLAIN, JUMP, BRANCH, CALL, RETURN = "plain", "jump", "branch", "call", "return"


class Instruction(NamedTuple):
    """One decoded instruction; addresses are in the same terms as those given to the decoder."""

    address: int
    size_bytes: int
    #: `PLAIN`, `JUMP` (always), `BRANCH` (on a condition), `CALL` or `RETURN`.
    flow: str = PLAIN
    #: Where a direct jump, branch or call goes.
    target: int | None = None
    #: Bit n: register n is changed (or the low part of it).
    changes: int = 0
    #: A copy of a whole register: to which, from which.
    copies: tuple[int, int] | None = None
    #: The register whose being null the following branch will tell (``test %rdi,%rdi``).
    tests: int | None = None
    #: A branch that is not taken when what was tested is not null.
    skips_null: bool = False
    #: Saves the return address register (aarch64): a later change of it has no effect.
    saves_return: bool = False
    #: From this kernel release on a probe here needs no single-stepping.
    emulated_from: tuple[int, int] = NEVER
    #: Whether a probe may stand here at all.
    can_probe: bool = True

    @property
    def end(self) -> int:
        return self.address + self.size_bytes
