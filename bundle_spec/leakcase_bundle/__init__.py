"""The case file's format, shared by the collector and the analyzer. SPEC.md is the document."""

from .errors import (
    BundleError,
    CodecMissing,
    Damaged,
    LimitExceeded,
    NewerFormat,
    NotACase,
    SpecViolation,
)
from .framing import FORMAT_MAJOR, FORMAT_MINOR
from .reader import Reader
from .scan import Problem
from .writer import Writer

__all__ = [
    "FORMAT_MAJOR",
    "FORMAT_MINOR",
    "BundleError",
    "CodecMissing",
    "Damaged",
    "LimitExceeded",
    "NewerFormat",
    "NotACase",
    "Problem",
    "Reader",
    "SpecViolation",
    "Writer",
]
