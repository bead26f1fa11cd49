"""Resource limits of the target: ``/proc/PID/limits``."""

from __future__ import annotations

from typing import ClassVar, Optional

from leakcase_bundle.records import Limits

from .base import Cadence, Context, Probe
from .figures import whole

#: The kernel pads names to 25 characters and more blanks follow (fs/proc/base.c), so a name is
#: told from a longer one by the two blanks.
_LINES: tuple[tuple[bytes, str], ...] = (
    (b"Max address space  ", "address_space_bytes"),
    (b"Max data size  ", "data_bytes"),
    (b"Max stack size  ", "stack_bytes"),
    (b"Max resident set  ", "resident_bytes"),
    (b"Max locked memory  ", "locked_memory_bytes"),
    (b"Max open files  ", "open_files"),
    (b"Max processes  ", "processes"),
    (b"Max core file size  ", "core_bytes"),
)


def parse_limits(content: bytes) -> dict[str, Optional[int]]:
    """The soft limits by the fields of `Limits`; None: unlimited. Unknown ones are left out.

    A limit of 2^63 and more is as good as none and counts as unlimited.
    """
    limits: dict[str, Optional[int]] = {}
    for line in content.split(b"\n"):
        for begin, field in _LINES:
            columns = line[len(begin) :].split() if line.startswith(begin) else []
            # Soft and hard limit: with one of them only, the line is cut off.
            if len(columns) >= 2:
                limits[field] = None if columns[0] == b"unlimited" else whole(columns[0])
    return limits


class LimitsProbe(Probe):
    """One `Limits` record."""

    name: ClassVar[str] = "limits"
    cadence: ClassVar[Cadence] = Cadence.ONCE
    reads: ClassVar[str] = "/proc/PID/limits: resource limits"

    def begin(self, context: Context, taken_ns: int) -> None:
        limits = parse_limits(context.system.read_bytes(f"/proc/{context.pid}/limits"))
        context.emit(
            Limits(
                known=bool(limits),
                address_space_bytes=limits.get("address_space_bytes"),
                data_bytes=limits.get("data_bytes"),
                stack_bytes=limits.get("stack_bytes"),
                resident_bytes=limits.get("resident_bytes"),
                locked_memory_bytes=limits.get("locked_memory_bytes"),
                open_files=limits.get("open_files"),
                processes=limits.get("processes"),
                core_bytes=limits.get("core_bytes"),
            )
        )
