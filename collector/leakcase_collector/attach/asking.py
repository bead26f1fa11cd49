"""The allocator asked in its own process: stop, prove, call, let go; a few times if need be."""

from __future__ import annotations

import random
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from leakcase_collector.errors import CollectorError, NotSupported
from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND, monotonic_ns
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import Memory, MemoryMapping, ProcessMemory
from leakcase_collector.unwind.modules import Target

from .allocators import TEXT, TEXT_BYTES, Question
from .borrowed_call import BorrowedCall
from .call_chain import CallChain, call_chain
from .machine_code import SLOTS, Area
from .return_frame import Gadgets, find_gadgets, has_room
from .safe_point import SafePoint
from .stopping import StoppedProcess, gone_only_if_ended, require_untouched

ATTEMPTS = 6
#: How long threads at work in the allocator are let run on, one moment after another, while all
#: others stand: a call of malloc takes less than a microsecond.
SEARCH_NS = 40 * NS_PER_MS
_MOMENT_SECONDS = 50e-6
_REST_SECONDS = (0.02, 0.15)
_TEXT_LIMIT_BYTES = 4 << 20


class NoSafePoint(CollectorError):
    """No moment was found at which no thread was at work in the allocator."""


@dataclass
class Asked:
    """What came of it: the answer, or why there is none, and how long the target stood still."""

    allocator: str
    text: str = ""
    figures: dict[str, int] = field(default_factory=dict)
    stops_ns: list[int] = field(default_factory=list)
    refusal: str = ""
    sentence: str = ""


Looker = Callable[[], None]


def ask(
    system: System,
    identity: ProcessIdentity,
    question: Question,
    limit_ns: int,
    attempts: int = ATTEMPTS,
    looker: Optional[Looker] = None,
    target: Optional[Target] = None,
) -> Asked:
    """Ask until there is an answer or a reason; each stop is at most `limit_ns` long.

    With a `target` stacks are followed by its files' unwind tables where that is needed.

    To be called in a process of its own (`run_apart`). `looker` is called while the target stands
    still right after it has answered: for tests.
    """
    asked = Asked(question.allocator)
    for attempt in range(attempts):
        if attempt:
            time.sleep(random.uniform(*_REST_SECONDS))
        identity.require_alive()
        require_untouched(system, identity.pid)
        with gone_only_if_ended(identity), ExitStack() as opened:
            memory = opened.enter_context(ProcessMemory(system, identity))
            chain = None if target is None else opened.enter_context(call_chain(target))
            one = _Attempt(system, identity.pid, memory, question, limit_ns, chain)
            try:
                asked.text, asked.figures = one.make(looker)
                asked.refusal = asked.sentence = ""
                return asked
            except NoSafePoint as refusal:
                asked.refusal, asked.sentence = "no-safe-point", str(refusal)
            finally:
                asked.stops_ns.append(one.stopped_ns)
    return asked


class _Attempt:
    """One stop."""

    def __init__(
        self,
        system: System,
        pid: int,
        memory: Memory,
        question: Question,
        limit_ns: int,
        chain: Optional[CallChain],
    ) -> None:
        self._chain = chain
        self._system, self._pid, self._memory = system, pid, memory
        self._question = question
        self._limit_ns = limit_ns
        self._mappings = memory.mappings()
        self._gadgets = _gadgets(memory, question, self._mappings)
        self.stopped_ns = 0

    def make(self, looker: Optional[Looker]) -> tuple[str, dict[str, int]]:
        deadline_ns = monotonic_ns() + self._limit_ns
        stopped = StoppedProcess(self._system, self._pid, deadline_ns)
        found: list[tuple[str, dict[str, int]]] = []

        def look(area: Area) -> None:
            found.append(self._read(area))
            if looker is not None:
                looker()

        try:
            with stopped:
                if stopped.is_stopped_by_signal:
                    raise NotSupported(
                        f"no function is run in process {self._pid}: a stop signal holds it. "
                        "Let it go on (SIGCONT), or do without this source."
                    )
                point = self._reach_safe_point(stopped, deadline_ns)
                lender = point.lender(stopped)
                if lender is None:
                    raise self._none("no thread could be borrowed")
                locks = self._question.territory(self._memory).locks
                pointer = stopped.threads[lender].registers["rsp"]
                room = has_room(self._mappings, pointer)
                call = BorrowedCall(stopped, lender, self._gadgets, has_room=room, locks=locks)
                call.run(self._question.steps, look, deadline_ns)
        finally:
            self.stopped_ns = stopped.stopped_ns
        if not found:
            raise CollectorError(
                "the allocator could not open a stream for its answer: the process is out of "
                "memory. Do without this source."
            )
        return found[0]

    def _reach_safe_point(self, stopped: StoppedProcess, deadline_ns: int) -> SafePoint:
        """Threads found at work in the allocator run on for a moment; those outside stay."""
        until_ns = min(monotonic_ns() + SEARCH_NS, deadline_ns)
        while True:
            territory = self._question.territory(self._memory)
            point = SafePoint(self._memory, self._mappings, territory, self._chain)
            unsafe = point.unsafe(stopped)
            if not unsafe and point.locks_are_free():
                return point
            if not unsafe:
                raise self._none("a lock of the allocator is held by a thread that is not in it")
            if monotonic_ns() > until_ns:
                raise self._none(f"{len(unsafe)} of {len(stopped.threads)} threads may be in it")
            stopped.let_run(unsafe)
            time.sleep(random.random() * _MOMENT_SECONDS)
            stopped.stop()

    def _none(self, reason: str) -> NoSafePoint:
        return NoSafePoint(
            f"the allocator of process {self._pid} was not asked: there was no moment at which it "
            f"is safe to ({reason}). Nothing was run in the process; try again when it is idle."
        )

    def _read(self, area: Area) -> tuple[str, dict[str, int]]:
        slots = struct.unpack(f"<{SLOTS}Q", self._memory.read(area.slots, 8 * SLOTS))
        if not self._question.figures:
            size = min(slots[TEXT_BYTES.number], _TEXT_LIMIT_BYTES)
            content = self._memory.read(slots[TEXT.number], size)
            return content.decode("ascii", "replace"), {}
        figures = {
            name: slots[value]
            for name, (value, result, zero_is_good) in self._question.figures.items()
            if (slots[result] & 0xFFFFFFFF == 0) == zero_is_good and slots[value] < 1 << 63
        }
        return "", figures


def _gadgets(memory: Memory, question: Question, mappings: list[MemoryMapping]) -> Gadgets:
    """In the allocator's code, the C library's, any other's."""
    spans = [*question.code]
    libraries = [one for one in mappings if one.executable and b"/" in one.path]
    libraries.sort(key=lambda one: b"/libc" not in one.path)
    spans += [(one.start, one.end) for one in libraries]
    found = find_gadgets(memory, spans)
    if found is None:
        raise NotSupported("no code that makes a system call was found in the process.")
    return found


def as_map(asked: Asked) -> dict[str, Any]:
    """For `run_apart`."""
    return dict(vars(asked))


#: However long a stop may be, asking ends: attempts, rests, and what the host takes.
def whole_limit_seconds(limit_ns: int) -> float:
    return ATTEMPTS * (limit_ns / NS_PER_SECOND + 5.0)
