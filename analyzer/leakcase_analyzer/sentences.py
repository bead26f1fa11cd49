"""Sentences with quantities in them, before anybody has rounded, translated or escaped anything.

Findings and the verdict speak in sentences, but how a number of bytes is rounded and how a name
from a case is escaped depends on where it is printed. So a sentence keeps its quantities as they
are, and `leakcase_analyzer.report.units` alone makes text of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Size:
    """An amount of memory."""

    size_bytes: float


@dataclass(frozen=True)
class SizeRate:
    """Memory per time."""

    bytes_per_second: float


@dataclass(frozen=True)
class Span:
    """A length of time."""

    seconds: float


@dataclass(frozen=True)
class Count:
    """A number of things; `noun` is their singular."""

    number: float
    noun: str


@dataclass(frozen=True)
class CountRate:
    """Things per time."""

    per_second: float
    noun: str


@dataclass(frozen=True)
class Share:
    """A part of a whole, 1.0 being all of it."""

    share: float


@dataclass(frozen=True)
class Name:
    """A string that came out of a case: redacted, but written by a stranger."""

    text: str


@dataclass(frozen=True)
class Code:
    """A command, a setting or a file name that the reader is to take letter by letter."""

    text: str


Quantity: TypeAlias = Size | SizeRate | Span | Count | CountRate | Share | Name | Code


@dataclass(frozen=True)
class Sentence:
    """A template (as of `str.format`, named fields only) and the quantities for its fields."""

    template: str
    quantities: tuple[tuple[str, Quantity], ...] = ()


def say(template: str, **quantities: Quantity) -> Sentence:
    """A sentence. The template is always the program's own text, never a case's."""
    return Sentence(template, tuple(quantities.items()))
