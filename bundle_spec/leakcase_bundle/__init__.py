"""The case file's format, shared by the collector and the analyzer. SPEC.md is the document."""

from .errors import BundleError, Damaged, LimitExceeded, NewerFormat, NotACase, SpecViolation
from .framing import FORMAT_MAJOR, FORMAT_MINOR
from .reader import Problem, Reader
from .writer import Writer

__all__ = [
    "FORMAT_MAJOR",
    "FORMAT_MINOR",
    "BundleError",
    "Damaged",
    "LimitExceeded",
    "NewerFormat",
    "NotACase",
    "Problem",
    "Reader",
    "SpecViolation",
    "Writer",
]
