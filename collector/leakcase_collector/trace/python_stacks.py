"""Python's functions put among those of C, as the kernel copied them when a block was allocated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Optional

from leakcase_collector.errors import CollectorError
from leakcase_collector.heap.cpython_frames import (
    Interpreter,
    PythonFrame,
    evaluates_python,
    frames_of_sample,
    interleave,
)
from leakcase_collector.heap.cpython_runtime import PythonImage
from leakcase_collector.heap.cpython_threads import thread_numbers
from leakcase_collector.system.door import System

from .stacks import Place

if TYPE_CHECKING:
    from leakcase_collector.system.memory import Memory


class PythonStacks:
    """One process's interpreter; a `stacks.Weaver`. To be closed.

    NotSupported where the layout of its frames is not known. The names of code are read soon after
    the event, from the memory of the running process: code that was freed by then has none.
    """

    def __init__(
        self,
        system: System,
        pid: int,
        image: PythonImage,
        open_memory: Callable[[], AbstractContextManager[Memory]],
    ) -> None:
        self._system = system
        self._pid = pid
        self.image = image
        self._open_memory = open_memory
        self._opened = ExitStack()
        self._interpreter = Interpreter(self._opened.enter_context(open_memory()), image)

    def look(self) -> tuple[bytes, dict[int, int]]:
        """For the walk at an event: where things are in frames, and the threads as of now.

        NotSupported where the interpreter has no threads yet or any more.
        """
        # The memory of before an exec is not that of the process any more.
        self.close()
        self._interpreter.look_again(self._opened.enter_context(self._open_memory()))
        numbers = thread_numbers(self._system, self._pid)
        threads = self._interpreter.threads(numbers)
        return self._interpreter.for_kernel(numbers, threads), threads

    def weave(
        self, frames: Sequence[Place], sample: Any, name_of: Callable[[Place], Optional[str]]
    ) -> list[Place]:
        """All frames, innermost first; those of C alone where no other is known."""
        try:
            runs = self._interpreter.named(frames_of_sample(sample.python or b""))
        except CollectorError:  # it has ended
            return list(frames)

        def is_evaluating(place: Place) -> bool:
            return place.path == self.image.path and evaluates_python(name_of(place))

        places = [[_place(frame) for frame in run] for run in runs]
        return interleave(list(frames), is_evaluating, places)

    def close(self) -> None:
        """Names are no longer read."""
        self._opened.close()


def _place(frame: PythonFrame) -> Place:
    return Place("python", None, None, None, frame.function, frame.file, frame.line)
