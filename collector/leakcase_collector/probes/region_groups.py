"""Mappings added up by what they are, while they stream past, in bounded memory.

A process can have millions of mappings and thousands of mapped files; what leaves here is at most
a few hundred groups. Nothing is lost in sum: what has no group of its own is added to the rest of
its kind.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from operator import add
from typing import NamedTuple, Optional

from .region_kinds import (
    BSS,
    FILE,
    MODULE_KINDS,
    STACK_CANDIDATE,
    ProcessFacts,
    classify_anonymous,
    classify_named,
    file_kind,
    stack_sizes,
)
from .region_text import MapLine

#: While reading, as many groups as this are kept apart; then the smaller three quarters are folded.
MAX_GROUPS_READING = 4096
_LARGE_MAPPINGS = 16
_LARGE_MIN_BYTES = 1 << 20
#: Of the groups that were written before, this share of the places is kept, so that a group does
#: not come and go between snapshots for being the 300th once and the 301st next.
_STICKY_SHARE = 3
_MAX_KNOWN_NAMES = 8192


class GroupKey(NamedTuple):
    """What the mappings of a group have in common; only the kind: the rest of that kind."""

    kind: str
    path: bytes = b""
    name: bytes = b""
    writable: Optional[bool] = None
    executable: Optional[bool] = None
    shared: Optional[bool] = None
    deleted: bool = False
    #: Of a stack candidate: whether it is a stack depends on how many there are of a size.
    size_bytes: int = 0


class Group(NamedTuple):
    """A group and its sums: count, size in bytes, then the figures in the parser's order and unit.

    `start` is set on a single large mapping.
    """

    key: GroupKey
    sums: tuple[int, ...]
    start: Optional[int] = None


class RegionTally:
    """Takes mappings in the order of their addresses, gives groups.

    `weigh` names the positions in `figures` that together are a mapping's weight (its resident and
    swapped bytes); without figures its size is.
    """

    def __init__(self, facts: ProcessFacts, weigh: Sequence[int] = ()) -> None:
        self._facts = facts
        self._weigh = tuple(2 + position for position in weigh)
        self._sums: dict[GroupKey, tuple[int, ...]] = {}
        self._modules: set[bytes] = set()
        self._named: dict[tuple[bytes, bytes, bytes], GroupKey] = {}
        self._anonymous: dict[tuple[str, bytes], GroupKey] = {}
        self._large: list[tuple[int, int, GroupKey, tuple[int, ...]]] = []
        self._held: Optional[tuple[MapLine, tuple[int, ...], bytes]] = None
        self._previous: Optional[MapLine] = None
        self.mappings = 0
        self.folded = 0

    def add(self, line: MapLine, figures: tuple[int, ...], flags: bytes = b"") -> None:
        """One mapping. It is counted when the next one is known: its kind may depend on that."""
        if self._held is not None:
            self._settle(line)
        self._held = (line, figures, flags)
        self.mappings += 1

    def _settle(self, following: Optional[MapLine]) -> None:
        assert self._held is not None
        line, figures, flags = self._held
        if line.path:
            identity = (line.path, line.permissions, line.device)
            key = self._named.get(identity) or self._name(identity, line)
        else:
            key = self._place(line, following, flags)
        size = line.end - line.start
        self._count(key, (1, size, *figures), line)
        self._previous = line

    def _name(self, identity: tuple[bytes, bytes, bytes], line: MapLine) -> GroupKey:
        named = classify_named(line, self._facts)
        if named.kind == FILE and line.permissions[2:3] == b"x":
            self._modules.add(named.path)
        key = GroupKey(
            named.kind, named.path, named.name, *_protections(line), deleted=named.deleted
        )
        if len(self._named) < _MAX_KNOWN_NAMES:
            self._named[identity] = key
        return key

    def _place(self, line: MapLine, following: Optional[MapLine], flags: bytes) -> GroupKey:
        kind = classify_anonymous(self._previous, line, following, flags, self._facts)
        if kind == BSS:
            assert self._previous is not None
            named = classify_named(self._previous, self._facts)
            if named.kind == FILE:
                return GroupKey(BSS, named.path, b"", True, False, False)
            return GroupKey("anonymous", b"", b"", True, False, False)
        if kind == STACK_CANDIDATE:
            return GroupKey(kind, b"", b"", True, False, False, size_bytes=line.end - line.start)
        key = self._anonymous.get((kind, line.permissions))
        if key is None:
            key = GroupKey(kind, b"", b"", *_protections(line))
            self._anonymous[kind, line.permissions] = key
        return key

    def _count(self, key: GroupKey, values: tuple[int, ...], line: MapLine) -> None:
        known = self._sums.get(key)
        if known is not None:
            self._sums[key] = tuple(map(add, known, values))
        else:
            self._sums[key] = values
            if len(self._sums) > MAX_GROUPS_READING:
                self._fold_small_ones()
        if line.permissions[1:2] == b"w" and values[1] >= _LARGE_MIN_BYTES:
            weight = self._weight(values)
            if len(self._large) < _LARGE_MAPPINGS:
                heapq.heappush(self._large, (weight, line.start, key, values))
            elif weight > self._large[0][0]:
                heapq.heapreplace(self._large, (weight, line.start, key, values))

    def _weight(self, sums: tuple[int, ...]) -> int:
        return sum(sums[position] for position in self._weigh) if self._weigh else sums[1]

    # --- at the end -----------------------------------------------------------------------------

    def groups(self, limit: int, before: Iterable[GroupKey] = ()) -> list[Group]:
        """At most `limit` groups, and the rests of their kinds.

        Of the `before` ones (those of an earlier snapshot) some stay though others outweigh them.
        """
        if self._held is not None:
            self._settle(None)
            self._held = None
        stacks = self._stack_sizes()
        final: dict[GroupKey, tuple[int, ...]] = {}
        for key, sums in self._sums.items():
            _merge(final, self._resolved(key, stacks), sums)
        kept = self._chosen(final, limit, set(before))
        out: dict[GroupKey, tuple[int, ...]] = {}
        for key, sums in final.items():
            if key in kept or key == GroupKey(key.kind):
                _merge(out, key, sums)
            else:
                self.folded += 1
                _merge(out, GroupKey(key.kind), sums)
        return [Group(key, sums) for key, sums in out.items()]

    def large(self, limit: int) -> list[Group]:
        """The weightiest single writable mappings, of at least 1 MiB. After `groups`."""
        stacks = self._stack_sizes()
        return [
            Group(self._resolved(key, stacks), values, start)
            for _, start, key, values in sorted(self._large, reverse=True)[:limit]
        ]

    def _chosen(
        self, final: dict[GroupKey, tuple[int, ...]], limit: int, before: set[GroupKey]
    ) -> set[GroupKey]:
        order = sorted(final, key=lambda key: self._weight(final[key]), reverse=True)
        if len(order) <= limit:
            return set(order)
        kept = set(order[: limit - limit // _STICKY_SHARE])
        for wanted in ([key for key in order if key in before], order):
            for key in wanted:
                if len(kept) >= limit:
                    return kept
                kept.add(key)
        return kept

    def _stack_sizes(self) -> set[int]:
        candidates = {
            key.size_bytes: sums[0]
            for key, sums in self._sums.items()
            if key.kind == STACK_CANDIDATE
        }
        return stack_sizes(candidates, self._facts.threads, self._facts.stack_limit_bytes)

    def _resolved(self, key: GroupKey, stacks: set[int]) -> GroupKey:
        """The key with its final kind, now that all mappings are known."""
        if key.kind == STACK_CANDIDATE:
            kind = "thread-stack" if key.size_bytes in stacks else "anonymous"
            return GroupKey(kind, b"", b"", True, False, False)
        if key.kind not in (FILE, BSS):
            return key
        writable = bool(key.writable)
        kind = file_kind(
            key.path,
            self._modules,
            self._facts.executable,
            writable=writable,
            shared=bool(key.shared),
            deleted=key.deleted,
        )
        if kind in MODULE_KINDS:
            return GroupKey(kind, key.path, b"", writable, not writable, False)
        if key.kind == BSS:
            return GroupKey("anonymous", b"", b"", True, False, False)
        return key._replace(kind=kind)

    def _fold_small_ones(self) -> None:
        """Make room: add the small groups to the rests of their kinds.

        Kinds are decided here by what was seen so far, so a library whose code comes later than
        this may count as a data file.
        """
        order = sorted(self._sums, key=lambda key: self._weight(self._sums[key]), reverse=True)
        sums = self._sums
        self._sums = {key: sums[key] for key in order[: MAX_GROUPS_READING // 4]}
        for key in order[MAX_GROUPS_READING // 4 :]:
            rest = GroupKey(self._resolved(key, set()).kind)
            self.folded += key != rest
            _merge(self._sums, rest, sums[key])


def _protections(line: MapLine) -> tuple[bool, bool, bool]:
    """Writable, executable, shared."""
    permissions = line.permissions
    return permissions[1:2] == b"w", permissions[2:3] == b"x", permissions[3:4] == b"s"


def _merge(sums: dict[GroupKey, tuple[int, ...]], key: GroupKey, values: tuple[int, ...]) -> None:
    known = sums.get(key)
    sums[key] = values if known is None else tuple(map(add, known, values))
