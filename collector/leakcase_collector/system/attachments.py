"""Probes by what they watch, each group held by a process of its own."""

from __future__ import annotations

from contextlib import ExitStack

from leakcase_collector.system.held_apart import HeldApart


class Attachments:
    """What of one tracer is in the target now."""

    def __init__(self) -> None:
        self._held: dict[str, HeldApart] = {}

    def __contains__(self, group: str) -> bool:
        """Whether it is in, and will stay."""
        return group in self._held and not self._held[group].has_ended

    def add(self, group: str, held: HeldApart) -> None:
        self._held[group] = held

    def are_whole(self) -> bool:
        """Whether all that was put in still is; tells their holders that we are alive."""
        for held in self._held.values():
            held.give_sign()
        return not any(held.has_ended for held in self._held.values())

    def remove(self, group: str) -> None:
        """Returns when it is out of the target; LimitReached where that takes too long."""
        held = self._held.pop(group, None)
        if held is not None:
            held.release()

    def clear(self) -> None:
        """As `remove` for all, one after the other, those behind one that takes too long too."""
        with ExitStack() as undo:
            for group in list(self._held):
                undo.callback(self.remove, group)
