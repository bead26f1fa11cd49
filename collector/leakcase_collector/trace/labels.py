"""What the blocks of a stack are, in a word each; what they hold is looked at and forgotten."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Optional

from leakcase_bundle.records import TraceContents
from leakcase_collector.heap.contents import Mapped, label
from leakcase_collector.heap.rtti import ClassNames, ReadFile
from leakcase_collector.system.memory import Memory

from .fingerprints import Words
from .survivors import Followed

if TYPE_CHECKING:
    from leakcase_collector.redact import Redactor

#: Looked at, of each stack.
BLOCKS_MAX = 48

#: The name of the Python type of a block that is an object; None where it is none.
PythonType = Callable[[Words], Optional[str]]


@dataclass
class StackContents:
    """The blocks of one stack that were looked at last."""

    taken_ns: int
    blocks: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)


class Labels:
    """What was found so far, by stack."""

    def __init__(self, read_file: ReadFile) -> None:
        self._read_file = read_file
        self._stacks: dict[int, StackContents] = {}

    def look(
        self,
        memory: Memory,
        followed: Iterable[Followed],
        taken_ns: int,
        python_type: Optional[PythonType] = None,
    ) -> None:
        """Label blocks by what they held when they were last read. `memory`: for their classes."""
        mappings = memory.mappings()
        names = ClassNames(memory, mappings, self._read_file)
        mapped = Mapped(mappings)
        new: dict[int, StackContents] = {}
        for one in followed:
            found = new.setdefault(one.block.stack, StackContents(taken_ns))
            words = one.now.words
            if found.blocks >= BLOCKS_MAX or not words:
                continue
            found.blocks += 1
            name = names.name_of(words[0]) or (python_type(words) if python_type else None)
            if name is not None:
                found.classes[name] += 1
            else:
                kind = label(struct.pack(f"={len(words)}Q", *words), mapped)
                if kind is not None:
                    found.labels[kind] += 1
        self._stacks.update(new)

    def records(self, redactor: Redactor) -> list[TraceContents]:
        """One for each stack of which a block was looked at."""
        return [
            _record(stack, contents, redactor)
            for stack, contents in sorted(self._stacks.items())
            if contents.blocks
        ]


def _record(stack: int, contents: StackContents, redactor: Redactor) -> TraceContents:
    def permille(count: int) -> int:
        return round(1000 * count / contents.blocks)

    commonest = contents.classes.most_common(1)
    name = redactor.symbol(commonest[0][0]) if commonest else None
    return TraceContents(
        stack,
        contents.taken_ns,
        contents.blocks,
        permille(contents.labels["text"]),
        permille(contents.labels["zero"]),
        permille(contents.labels["pointer"]),
        permille(contents.labels["entropy"]),
        name,
        None if name is None else permille(commonest[0][1]),
    )
