"""Collects what malloc's blocks are, look by look, in bounded memory."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from leakcase_analyzer.block_looks import BlockLook, ClassAmount, SizeLabels
from leakcase_analyzer.demangle import class_name
from leakcase_analyzer.gather_groups import Window
from leakcase_analyzer.gather_heap import MOST_ENTRIES, is_sane
from leakcase_bundle.records import HeapClasses, HeapLabels

#: A capture looks at its start and at its end, and anew after an exec.
MOST_LOOKS = 64


class BlockStore:
    """Looks by number and time, in file order. Of more than are kept the later ones are dropped."""

    def __init__(self) -> None:
        self._labels: dict[tuple[int, int], HeapLabels] = {}
        self._classes: dict[tuple[int, int], HeapClasses] = {}
        self.left_out = 0

    def add_labels(self, labels: HeapLabels) -> None:
        """The labels of one look."""
        self._add(self._labels, labels)

    def add_classes(self, classes: HeapClasses) -> None:
        """The classes of one look."""
        self._add(self._classes, classes)

    def _add(self, kept: dict[tuple[int, int], Any], record: Any) -> None:
        if is_sane(record) and len(kept) < MOST_LOOKS:
            kept[record.taken_ns, record.look] = record
        else:
            self.left_out += 1

    def looks(self, window: Window) -> tuple[BlockLook, ...]:
        """The looks of the window, in order of time."""
        keys = sorted(self._labels.keys() | self._classes.keys())
        return tuple(
            _look(window.seconds(key[0]), self._labels.get(key), self._classes.get(key))
            for key in keys
            if window.holds(key[0])
        )


def _look(seconds: float, labels: HeapLabels | None, classes: HeapClasses | None) -> BlockLook:
    listed = {} if classes is None else _classes(classes)
    folded = classes is not None and bool(classes.folded_names)
    return BlockLook(
        seconds,
        {} if labels is None else _sizes(labels),
        None if classes is None else listed,
        {} if classes is None else _by_size(classes),
        "blocks" if classes is None else classes.source,
        classes is not None and classes.exact,
        min(classes.counts, default=0) if classes is not None and folded else 0,
    )


def _sizes(labels: HeapLabels) -> dict[int, SizeLabels]:
    names = ("object", "text", "pointer", "entropy", "zero")
    rows = zip(
        labels.chunk_bytes, labels.in_use_chunks, labels.sampled_chunks, labels.object_chunks,
        labels.text_chunks, labels.pointer_chunks, labels.entropy_chunks, labels.zero_chunks,
        strict=False,
    )  # fmt: skip
    return {
        chunk: SizeLabels(chunks, sampled, dict(zip(names, counts, strict=True)))
        for chunk, chunks, sampled, *counts in list(rows)[:MOST_ENTRIES]
    }


def _classes(classes: HeapClasses) -> dict[str, ClassAmount]:
    found: dict[str, ClassAmount] = {}
    rows = zip_longest(classes.names, classes.counts, classes.sizes_bytes or ())
    for mangled, count, size in list(rows)[:MOST_ENTRIES]:
        if mangled is None or count is None:
            break
        name = class_name(str(mangled))
        before = found.get(name, ClassAmount(0, None if size is None else 0))
        known = None if size is None or before.size_bytes is None else before.size_bytes + size
        found[name] = ClassAmount(before.count + count, known)
    return found


def _by_size(classes: HeapClasses) -> dict[int, tuple[str, int]]:
    found: dict[int, tuple[str, int]] = {}
    rows = zip(classes.chunk_bytes or (), classes.names, classes.counts, strict=False)
    for chunk, mangled, count in list(rows)[:MOST_ENTRIES]:
        if count > found.get(chunk, ("", 0))[1]:
            found[chunk] = (class_name(str(mangled)), count)
    return found
