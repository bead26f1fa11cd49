"""Which of the two twins walks: the one in C where it was built."""

from __future__ import annotations

from leakcase_collector.system import native

from . import step as python_step
from .walk_state import Step, native_step


def best_step() -> tuple[str, Step]:
    """Its name in a case ("native" or "python"), and the step."""
    library = native.load()
    if library is None:
        return "python", python_step.step
    return "native", native_step(library)
