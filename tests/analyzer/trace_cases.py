"""Traced allocations for the captures of cases.py: who allocates, how long it lives, what is seen.

    case = traced_leak([Source(("leak", "main"), life=FOREVER), Source(("cache", "main"), life=20)])

Blocks of each window are drawn one by one, with a life each, and looked at as a capture would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from leakcase_bundle import records as kinds
from leakcase_bundle.strings import PathToken, SymbolToken
from tests.analyzer.cases import MIB, Capture, Mapping
from tests.analyzer.heap_cases import allow

FOREVER = math.inf
WORKER = "/usr/bin/worker"
LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"
FRAMES_OF_LIBC = ("__libc_start_call_main", "__libc_start_main", "start_thread")


@dataclass(frozen=True)
class Source:
    """One stack, innermost function first, and what it allocates."""

    functions: tuple[str, ...]
    life: float | Callable[[float], float] = FOREVER
    """Seconds; a function gets a number from 0 to 1 for each block."""
    each_window: int = 200
    """Blocks made in a window."""
    freed_at_once: float = 0.0
    """The share of these that is freed within it."""
    size: int = 100
    other_size: int | None = None
    """Of every second block."""
    weak: float = 0.0
    active_only: bool = False
    module: str = WORKER
    line: int | None = None
    python_file: str | None = None
    older: float = 0.5
    """Of what is not freed while all is traced, the share from its first half."""


class Block(NamedTuple):
    """How long it lives, in seconds, and its bytes."""

    life: float
    size: int


def held(blocks: Sequence[Block]) -> int:
    """The bytes of all."""
    return sum(block.size for block in blocks)


@dataclass
class Traced:
    """Adds the records of tracing to a capture."""

    case: Capture
    sources: Sequence[Source]
    window_starts: Sequence[float] = tuple(range(5, 85, 10))
    window_seconds: float = 0.3
    linger_seconds: float = 1.0
    looks: Sequence[float] = (10, 30, 60)
    lost_stacks: int = 0
    is_active: Callable[[float], bool] = field(default=lambda _: True)
    band_of: Callable[[int], tuple[int, int] | None] = field(default=lambda _: None)
    """The sizes that a window watches, by its number; None: all."""

    def add(self) -> Capture:
        """With the window's blocks looked at until the capture ends."""
        self.tell_code()
        for number, start in enumerate(self.window_starts):
            self._window(number, start)
        return self.case

    def tell_code(self) -> None:
        """Frames and stacks."""
        numbers: dict[tuple[str, str], int] = {}
        for stack, source in enumerate(self.sources):
            frames = []
            for function in source.functions:
                module = LIBC if function in FRAMES_OF_LIBC else source.module
                key = (module, function)
                if key not in numbers:
                    numbers[key] = len(numbers)
                    self.case.extra.append(self._frame(numbers[key], function, module, source))
                frames.append(numbers[key])
            self.case.extra.append(kinds.CodeStack(stack, frames, "root"))

    def _frame(self, number: int, function: str, module: str, source: Source) -> kinds.CodeFrame:
        python = source.python_file is not None
        return kinds.CodeFrame(
            frame=number,
            code="python" if python else "native",
            module=None if python else PathToken(module),
            address=None if python else 0x1000 + 16 * number,
            function=SymbolToken(function) if function else None,
            file=PathToken(source.python_file) if source.python_file else None,
            line=source.line,
        )

    def _window(self, number: int, start: float) -> None:
        made = [self._made(source, start, self.band_of(number)) for source in self.sources]
        kept = [[block for block in blocks if block.life > 0] for blocks in made]
        end = start + self.window_seconds
        self.case.extra += [
            self._total(number, start, made, kept),
            kinds.TraceSites(
                window=number,
                stacks=list(range(len(made))),
                allocations=[len(blocks) for blocks in made],
                allocated_bytes=[held(blocks) for blocks in made],
                freed=[len(m) - len(k) for m, k in zip(made, kept, strict=True)],
                kept=[len(blocks) for blocks in kept],
                kept_bytes=[held(blocks) for blocks in kept],
                kept_smallest_bytes=[min((b.size for b in blocks), default=0) for blocks in kept],
                kept_largest_bytes=[max((b.size for b in blocks), default=0) for blocks in kept],
            ),
        ]
        for age in self.looks:
            if end + age <= self.case.seconds:
                self.case.extra.append(self._look(number, end, age, kept))

    def _total(
        self, number: int, start: float, made: list[list[Block]], kept: list[list[Block]]
    ) -> kinds.TraceWindow:
        band = self.band_of(number)
        active = self.is_active(start)
        return kinds.TraceWindow(
            window=number,
            started_ns=self.case.at(start),
            duration_ns=round(self.window_seconds * 1e9),
            linger_ns=round(self.linger_seconds * 1e9),
            mode="bursts",
            attach="uprobe-session",
            allocations=sum(map(len, made)),
            allocated_bytes=sum(map(held, made)),
            frees=sum(map(len, made)) - sum(map(len, kept)),
            capped=False,
            kept_blocks=sum(map(len, kept)),
            kept_bytes=sum(map(held, kept)),
            smallest_bytes=band and band[0],
            largest_bytes=band and band[1],
            target_cpu_ns=round(self.window_seconds * 1e9 * (0.8 if active else 0.01)),
            lost_stacks=self.lost_stacks,
        )

    def _made(self, source: Source, start: float, band: tuple[int, int] | None) -> list[Block]:
        if source.active_only and not self.is_active(start):
            return []
        draws = self.case.random.random((2, source.each_window))
        lives = [
            0.0
            if at_once < source.freed_at_once
            else source.life(draw) if callable(source.life) else source.life
            for at_once, draw in zip(*draws.tolist(), strict=True)
        ]  # fmt: skip
        sizes = (source.size, source.other_size or source.size)
        made = [Block(life, sizes[place % 2]) for place, life in enumerate(lives)]
        return [one for one in made if band is None or band[0] <= one.size <= band[1]]

    def _look(
        self, number: int, end: float, age: float, kept: list[list[Block]]
    ) -> kinds.TraceSurvival:
        left = [[block for block in blocks if block.life > age] for blocks in kept]
        alive = [len(blocks) for blocks in left]
        return kinds.TraceSurvival(
            window=number,
            taken_ns=self.case.at(end + age),
            age_ns=round(age * 1e9),
            stacks=list(range(len(kept))),
            alive=alive,
            alive_bytes=[held(blocks) for blocks in left],
            dead=[len(blocks) - n for blocks, n in zip(kept, alive, strict=True)],
            unknown=[0] * len(kept),
            weak=[round(n * s.weak) for n, s in zip(alive, self.sources, strict=True)],
        )

    def all_traced(self, start: float, seconds: float) -> Capture:
        """Everything is traced, and what is not freed is told at the end."""
        self.tell_code()
        rows = [(s.each_window, round(s.each_window * (1 - s.freed_at_once))) for s in self.sources]
        blocks = [kept for _, kept in rows]
        older = [round(n * s.older) for n, s in zip(blocks, self.sources, strict=True)]
        sizes = [source.size for source in self.sources]
        total = self._total(
            0,
            start,
            [[Block(0.0, s)] * made for (made, _), s in zip(rows, sizes, strict=True)],
            [[Block(1.0, s)] * kept for kept, s in zip(blocks, sizes, strict=True)],
        )
        self.case.extra += [
            kinds.TraceWindow(
                **{
                    **{name: getattr(total, name) for name in total.__dataclass_fields__},
                    "mode": "full",
                    "duration_ns": round(seconds * 1e9),
                }
            ),
            kinds.TraceOutstanding(
                window=0,
                taken_ns=self.case.at(start + seconds),
                stacks=list(range(len(rows))),
                blocks=blocks,
                bytes_held=[n * s for n, s in zip(blocks, sizes, strict=True)],
                older_blocks=older,
                older_bytes=[n * s for n, s in zip(older, sizes, strict=True)],
                allocations=[made for made, _ in rows],
            ),
        ]
        return self.case


def watched(case: Capture) -> Capture:
    """The capture was allowed to read memory and to trace."""
    case = allow(case)
    header = case.header

    def with_level() -> kinds.CaseHeader:
        written: kinds.CaseHeader = header()
        written.levels.append("trace")
        return written

    case.header = with_level  # type: ignore[method-assign]
    return case


def growing(per_second: float = 60_000, seconds: int = 120) -> Capture:
    """A heap that grows steadily."""
    case = watched(Capture(seconds=seconds))
    case.anonymous_bytes = case.leak(20 * MIB, per_second)
    case.mappings = [Mapping("main-heap", 10 * MIB, 10 * MIB + per_second * seconds)]
    return case


#: As many blocks of 100 bytes as make the heap grow by 60,000 bytes a second.
A_LEAK = 180
IN_MAIN = ("handle", "main", *FRAMES_OF_LIBC[:2])
LEAK = Source(("leak_session", *IN_MAIN), each_window=A_LEAK)
CHURN = Source(
    ("churn", *IN_MAIN), each_window=6000, freed_at_once=0.7, life=lambda draw: 0.5 * draw
)


def traced_leak(*more: Source) -> Capture:
    """One function leaks under a hundred times as much churn."""
    return Traced(growing(), [LEAK, CHURN, *more]).add()
