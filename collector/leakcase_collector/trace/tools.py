"""What a fallback tool yields, whichever it was."""

from __future__ import annotations

from typing import NamedTuple

from leakcase_collector.errors import NotSupported


class ToolFailed(NotSupported):
    """A tool that is not here, or does not work here; `gap_detail` is a word that names it."""

    def __init__(self, message: str, gap_detail: str) -> None:
        super().__init__(message)
        self.gap_detail = gap_detail


class ToolStack(NamedTuple):
    """What is outstanding of one stack: addresses from the innermost outwards, blocks, bytes."""

    pcs: tuple[int, ...]
    blocks: int
    bytes_held: int


class ToolRun(NamedTuple):
    """One bounded run of a tool. None: it does not tell."""

    tool: str
    started_ns: int
    duration_ns: int
    stacks: list[ToolStack]
    allocations: int | None
    allocated_bytes: int | None
    frees: int | None
    #: Allocations whose fate was not followed, and events that did not reach the tool.
    lost_events: int | None
    truncated_stacks: int
