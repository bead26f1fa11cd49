"""What a probe is.

A probe is one source of evidence. It says beforehand what it reads, what it needs, whom it
disturbs and what it will cost; then it asks, hands the answer to a pure parse function, and
emits records. It never prints, never judges, never sees an ``OSError``
(`leakcase_collector.errors`), and never opens anything but through `Context.system`.

The session (`leakcase_collector.session`) calls `begin` once, `sample` as often as the cadence
and the budget allow, and `finish` once, in the order of `PROBES`; it measures the cost of each
call and turns an exception into a `Gap`. A probe therefore needs no ``try`` for its main source,
only where one source of several may fail: then `Context.gap` notes it and the probe goes on.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Optional, Protocol

if TYPE_CHECKING:
    from leakcase_collector.errors import CollectorError
    from leakcase_collector.redact import Redactor
    from leakcase_collector.system.door import System
    from leakcase_collector.system.identity import ProcessIdentity

    from .subject import Subject


#: A capture without a length of its own is planned for as if it were as long as the usual one.
ASSUMED_NS = 120_000_000_000


class Cadence(enum.Enum):
    """How often the session calls `Probe.sample`."""

    #: Never: all is done in `begin`.
    ONCE = "once"
    #: At every interval of the capture.
    TICK = "every interval"
    #: At the start, at the end, and between as rarely as its measured cost demands.
    PACED = "as its cost allows"
    #: Never: all is done in `finish`.
    END = "once, at the end"
    #: Never: all is done in `begin` and `finish`.
    ENDS = "at the start and at the end"


@dataclass(frozen=True)
class Prediction:
    """What one call of a probe is expected to cost, and why.

    `lock_ns` is the time for which a lock of the target (its mmap lock) is held; the target's
    page faults and mappings wait that long. `stop_ns` is the time for which it stands still.
    """

    cpu_ns: int
    lock_ns: int = 0
    stop_ns: int = 0


class CaptureOptions(NamedTuple):
    """What was said of the capture as a whole, for probes that plan ahead."""

    #: None where there is no capture, as in a list of the probes.
    duration_ns: Optional[int] = None
    #: The share of its CPU that the target may lose.
    max_slowdown: float = 0.01
    #: Of the vocabulary ``trace_mode``.
    trace: str = "bursts"
    #: ``own``, a word of the vocabulary ``trace_tool``, or ``auto``.
    tracer: str = "auto"
    may_read_memory: bool = False
    #: The longest that the target may be held, by a lock or by a stop.
    max_pause_ns: int = 2_000_000_000
    #: Where the case is written; None where there is no capture.
    case_path: Optional[str] = None


class Context(Protocol):
    """What a probe may use. The session implements it; tests implement a small one."""

    @property
    def system(self) -> System:
        """The door to the machine."""
        ...

    @property
    def identity(self) -> ProcessIdentity:
        """The target, held by pid, start time and pidfd."""
        ...

    @property
    def redactor(self) -> Redactor:
        """Makes tokens of the host's strings."""
        ...

    @property
    def interval_ns(self) -> int:
        """The interval in force, nanoseconds."""
        ...

    @property
    def started_ns(self) -> int:
        """When the capture began, on the monotonic clock."""
        ...

    @property
    def pid(self) -> int:
        """The target's pid in our own pid namespace."""
        ...

    @property
    def subject(self) -> Subject:
        """The memory that probes of the level read-memory look at."""
        ...

    def emit(self, record: Any) -> None:
        """Put one record into the case."""
        ...

    def sample(self, series: type[Any], taken_ns: int, **values: Optional[int]) -> None:
        """Add one row to the columns of a `series.*` record class; None or left out: unknown."""
        ...

    def gap(self, error: CollectorError, detail: Optional[str] = None) -> None:
        """Note that a part of this probe's evidence could not be had. Repeats are noted once.

        `detail` is a word of the vocabulary ``gap_detail``.
        """
        ...

    def stopped(self, duration_ns: int) -> None:
        """Count time for which the target stood still for this probe."""
        ...

    def loss(self, what: str, count: int) -> None:
        """Count evidence that was there and was dropped; `what` of the vocabulary ``loss``."""
        ...


class Probe:
    """One source of evidence; a subclass a file, one instance a capture."""

    #: Of the vocabulary ``probe``.
    name: ClassVar[str]
    #: Of the vocabulary ``level``.
    level: ClassVar[str] = "observe"
    cadence: ClassVar[Cadence]
    #: For people: what is read, in half a sentence.
    reads: ClassVar[str]
    #: For people: what it needs beyond being the target's user.
    needs: ClassVar[str] = "nothing more than the target's user"
    #: For people: what could go wrong for the target.
    risk: ClassVar[str] = "none: the target does not notice"
    stops_target: ClassVar[bool] = False
    #: Runs only where it was asked for, by its own option or by ``--with``.
    opt_in: ClassVar[bool] = False
    #: Probes whose records this one is shown.
    learns_from: tuple[str, ...] = ()

    def configure(self, options: CaptureOptions) -> None:
        """Told what the capture will be, before the question and again when all are answered."""

    def concerns(self, context: Context) -> bool:
        """Whether this process has what is asked for, as far as is known without touching it."""
        return True

    def predict(self, context: Context) -> Prediction:
        """The expected cost of one call, from what is known without touching the target."""
        return Prediction(cpu_ns=50_000)

    def toll(self) -> Optional[str]:
        """For people: what the target itself will lose, a clause; None where it loses nothing."""
        return None

    def learn(self, record: Any) -> None:
        """Handed each record of the probes in `learns_from`, when it is made."""

    def left_behind(self) -> Optional[str]:
        """The path of a file that it wrote beside the case; None: it wrote none."""
        return None

    def begin(self, context: Context, taken_ns: int) -> None:
        """Called once, before the first sample."""

    def sample(self, context: Context, taken_ns: int) -> None:
        """Called as the cadence says; `taken_ns` is the tick's time on CLOCK_MONOTONIC."""

    def finish(self, context: Context, taken_ns: int) -> None:
        """Called once after the last sample, while the target is still there."""

    def executed(self, context: Context, taken_ns: int) -> None:
        """Called when the target has executed another program; what looks once looks again."""
        if self.cadence in (Cadence.ONCE, Cadence.ENDS):
            self.begin(context, taken_ns)

    def close(self) -> None:
        """Called last, however the capture ended: nothing of ours may stay in the target."""
