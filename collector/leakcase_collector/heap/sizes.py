"""Classes of chunk sizes: few enough for a case, and the same in every census."""

from __future__ import annotations

from collections.abc import Mapping

#: Up to here each size is a class of its own.
EXACT_BYTES = 4096
#: Beyond it, 2 to this power of classes lie between one power of two and the next.
_SPLIT_BITS = 4


def size_class(size: int) -> int:
    """The smallest size of the class that `size` is in."""
    if size <= EXACT_BYTES:
        return size
    shift = size.bit_length() - 1 - _SPLIT_BITS
    return size >> shift << shift


def last_of_class(smallest: int) -> int:
    """The largest size of the class that begins with `smallest`, which is none but a multiple of
    16 bytes."""
    shift = smallest.bit_length() - 1 - _SPLIT_BITS
    return smallest if smallest <= EXACT_BYTES - 16 else smallest + (1 << shift) - 16


def by_class(sizes: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """(smallest size, chunks, bytes) of each class that has chunks, ascending."""
    found: dict[int, tuple[int, int]] = {}
    for size, count in sizes.items():
        key = size_class(size)
        chunks, held = found.get(key, (0, 0))
        found[key] = (chunks + count, held + size * count)
    return [(key, *found[key]) for key in sorted(found) if found[key][0]]
