"""What malloc's blocks were found to be at each look: C++ objects by class, and labels by size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: In words, as "they hold ...".
LABELS = {
    "object": "C++ objects",
    "text": "text",
    "pointer": "pointers",
    "entropy": "bytes that look random",
    "zero": "zeros",
}
#: What fewer than half of the blocks are does not say what the others are.
LEAST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class SizeLabels:
    """Blocks of one class of size: all of them, and how many of a sample have which label."""

    chunks: int
    sampled: int
    labels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ClassAmount:
    """Objects of one class; None: how large they are is not known."""

    count: int
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Holding:
    """What most blocks of a class of size are: of one C++ class, or of one of LABELS."""

    label: str
    class_name: str | None
    share: float


@dataclass(frozen=True)
class BlockLook:
    """One look at what the blocks are."""

    seconds: float
    sizes: Mapping[int, SizeLabels]
    """By the smallest chunk of the class, as in a census."""
    classes: Mapping[str, ClassAmount] | None
    """By name; None: not told. Empty: there were none."""
    classes_by_size: Mapping[int, tuple[str, int]]
    """Of each class of size the C++ class with most objects, and how many."""
    source: str
    """A word of the vocabulary `class_source`: how the classes were found."""
    exact: bool
    least_listed: int
    """No class that is not listed has more objects than this."""

    def holding(self, chunk_bytes: int) -> Holding | None:
        """What most blocks of a class of size are; None: nothing that most are."""
        found = self.sizes.get(chunk_bytes)
        if found is None:
            return None
        name, count = self.classes_by_size.get(chunk_bytes, ("", 0))
        if count >= LEAST_SHARE * found.chunks > 0:
            return Holding("object", name, min(1.0, count / found.chunks))
        label = max(found.labels, key=lambda one: found.labels[one])
        most = found.labels[label]
        if not most or most < LEAST_SHARE * found.sampled:
            return None
        return Holding(label, None, min(1.0, most / found.sampled))
