"""What can go wrong in the analyzer, each as one sentence: the thing, the cause, the next step."""

from __future__ import annotations


class AnalyzerError(Exception):
    """Base of everything that the analyzer raises on purpose; ends a command with `exit_code`."""

    exit_code = 2


class UnreadableCase(AnalyzerError):
    """The file cannot be opened, is no case, or is a case that this version cannot read."""


class UsageProblem(AnalyzerError):
    """An option's value has no meaning here."""


class OutputProblem(AnalyzerError):
    """The report cannot be written where it was asked for."""
