"""How a capture ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from leakcase_bundle.records import Decision, Gap

from .errors import CollectorError


@dataclass(frozen=True)
class Outcome:
    """What the command line makes an exit status and a summary of."""

    end: str
    signal_number: Optional[int]
    samples: int
    decision: Optional[Decision]
    gaps: list[tuple[Gap, str]]
    started_ns: int
    ended_ns: int
    error: Optional[CollectorError] = None
