"""What one kind of blocks is watched with: those of the allocator, or the objects of Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Optional

from leakcase_collector.system.allocation_tracer import AllocationTracer
from leakcase_collector.system.memory import Memory

from .blocks import BlockReader
from .labels import Labels, PythonType
from .schedule import Prices


class Watch(NamedTuple):
    """`kind` is a word of the vocabulary ``trace_watched``."""

    kind: str
    tracer: AllocationTracer
    #: What watching each call costs.
    prices: Prices
    #: Looks at the blocks; one for each look.
    reader: Callable[[Memory], BlockReader]
    #: What the blocks are; None where memory may not be read.
    labels: Optional[Labels]
    #: Names objects of Python; None where there is none.
    type_names: Callable[[Memory], Optional[PythonType]]
