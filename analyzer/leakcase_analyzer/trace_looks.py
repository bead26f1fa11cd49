"""What watching the allocator told: code and its stacks, windows, and what became of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from leakcase_bundle.records import TraceContents, TraceRates, TraceTool, TraceWindow


@dataclass(frozen=True, slots=True)
class Frame:
    """One place in the code; None: not known."""

    code: str
    """A word of the vocabulary `code`."""
    module: str | None = None
    function: str | None = None
    """As its author wrote it, where the symbol could be read."""
    symbol: str | None = None
    """As the program has it."""
    function_offset: int | None = None
    address: int | None = None
    file: str | None = None
    line: int | None = None
    build_id: str | None = None
    of_interpreter: bool = False
    """A file that came with the interpreter, as where that lies tells."""
    inlined: bool = False
    """The compiler put it into the function of the next frame; only debug information tells."""


#: Why the frames of one build have no lines: no file with its debug information is here, nothing
#: that reads it is installed, or that failed.
LineGap: TypeAlias = Literal["missing", "no-symbolizer", "failed"]

UNKNOWN_FRAME = Frame("unknown")


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames from the innermost outwards, and a word of `stack_end`: why there is no further."""

    frames: tuple[Frame, ...]
    end: str = "root"


NO_STACK = Stack((), "unreadable")


#: From the least to the most, in bytes; no size is larger than the second.
Sizes: TypeAlias = tuple[int, int]
LARGEST_SIZE = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Site:
    """What one stack did in one window; `kept` is what it allocated there and did not free."""

    allocations: int
    allocated_bytes: int
    freed: int
    kept: int
    kept_bytes: int
    kept_smallest_bytes: int | None = None
    kept_largest_bytes: int | None = None

    @property
    def kept_sizes(self) -> Sizes | None:
        """The smallest and the largest of what it kept: their mean where that is not told, None
        where it kept nothing."""
        if not self.kept:
            return None
        mean = self.kept_bytes // self.kept
        least, most = self.kept_smallest_bytes, self.kept_largest_bytes
        return (mean if least is None else least, mean if most is None else most)


@dataclass(frozen=True, slots=True)
class Alive:
    """What one look found of the blocks of one stack and one window."""

    alive: int
    alive_bytes: int
    dead: int
    unknown: int
    weak: int


@dataclass(frozen=True, slots=True)
class Survival:
    """One later look at the blocks that a window left, by number of stack."""

    age_seconds: float
    rows: Mapping[int, Alive]


@dataclass(frozen=True, slots=True)
class Held:
    """Blocks of one stack that were allocated while all was traced and are not freed."""

    blocks: int
    held_bytes: int
    allocations: int
    older_blocks: int | None = None
    """Of these, allocated in the first half of the time traced; None: not told."""
    older_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What was held at one moment, by number of stack."""

    seconds: float
    rows: Mapping[int, Held]


@dataclass(frozen=True)
class Watched:
    """One window, and what was told of it later."""

    seconds: float
    total: TraceWindow
    sites: Mapping[int, Site]
    looks: tuple[Survival, ...] = ()
    """In order of age."""
    outstanding: tuple[Outstanding, ...] = ()
    """In order of time; of windows that traced everything."""

    @property
    def maps(self) -> bool:
        """Whether it is of whole mappings, which were watched all the time."""
        return self.total.watched == "mappings"

    @property
    def is_narrow(self) -> bool:
        """Whether only some sizes were watched."""
        return self.sizes != (0, LARGEST_SIZE)

    @property
    def sizes(self) -> Sizes:
        """Those that were watched."""
        most = self.total.largest_bytes
        return (self.total.smallest_bytes or 0, LARGEST_SIZE if most is None else most)

    def watched_all(self, sizes: Sizes) -> bool:
        """Whether blocks of all these sizes were watched."""
        least, most = self.sizes
        return least <= sizes[0] and sizes[1] <= most

    @property
    def duration_seconds(self) -> float:
        return self.total.duration_ns / 1e9


@dataclass(frozen=True)
class Tracing:
    """All that a case tells of allocations; empty where none were watched."""

    windows: tuple[Watched, ...] = ()
    rates: tuple[tuple[float, TraceRates], ...] = ()
    stacks: Mapping[int, Stack] = field(default_factory=dict)
    contents: Mapping[int, TraceContents] = field(default_factory=dict)
    """The last look at what the surviving blocks of a stack are."""
    tools: tuple[TraceTool, ...] = ()
    line_gaps: Mapping[str, LineGap] | None = None
    """By build-id; None: lines were not looked for."""
    dropped: int = 0
    """Records that contradict themselves, or are more than is kept."""

    def stack(self, number: int) -> Stack:
        """A stack by its number; NO_STACK where the case does not tell it."""
        return self.stacks.get(number, NO_STACK)
