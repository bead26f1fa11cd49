"""What a reader is advised to do."""

from __future__ import annotations

from dataclasses import dataclass

from leakcase_analyzer.sentences import Sentence


@dataclass(frozen=True)
class Action:
    """One step, and what it is good for."""

    what: Sentence
    why: Sentence
