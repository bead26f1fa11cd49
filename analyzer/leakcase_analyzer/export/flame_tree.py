"""Stacks merged into one tree from their outer ends, as a flame graph draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from leakcase_analyzer.code_names import in_full, readable
from leakcase_analyzer.export.weighted import Weighted
from leakcase_analyzer.trace_looks import UNKNOWN_FRAME, Frame

MOST_DEPTH = 160


@dataclass
class Node:
    """One frame with the frames that it calls; `size_bytes` is that of all stacks through it."""

    frame: Frame | None
    size_bytes: int = 0
    blocks: int = 0
    callees: dict[str, Node] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Levels of frames above this one."""
        deepest, level = 0, [self]
        while level := [callee for node in level for callee in node.callees.values()]:
            deepest += 1
        return deepest


def flame_tree(stacks: Sequence[Weighted]) -> Node:
    """The root, which is no frame; stacks of which nothing stayed are not in it."""
    root = Node(None)
    for one in stacks:
        if not one.stayed_bytes:
            continue
        node = root
        _add(root, one)
        frames = readable(one.frames or (UNKNOWN_FRAME,))
        for frame in frames[: -MOST_DEPTH - 1 : -1]:
            node = node.callees.setdefault(in_full(frame), Node(frame))
            _add(node, one)
    return root


def _add(node: Node, one: Weighted) -> None:
    node.size_bytes += one.stayed_bytes
    node.blocks += one.stayed_blocks
