"""The objects on the lists of CPython's garbage collector, visited while the program runs.

A list is a ring of PyGC_Head (next, previous; the lowest two bits of the latter are flags), each
before its object. At every step the next one's back-link must lead to where we came from. Where it
does not, the list changed meanwhile or what we read is old: it is read anew, from the last place
that is still on the list.

Objects move from younger lists to older ones, so the oldest is walked first; what arrived at its
end meanwhile is visited at the end, together with the young lists, until this took place without a
collection in between.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from typing import NamedTuple, Optional

from leakcase_collector.system.clock import NS_PER_MS, monotonic_ns, thread_cpu_ns

from .cpython_blocks import MASK, OVERLAP_BYTES, SHIFT, ResidentBlocks
from .cpython_runtime import Collector
from .cpython_types import PythonType, TypeTable

#: next, previous, ob_refcnt, ob_type, ob_size or the first field, and the two after it.
_NODE = struct.Struct("=7Q")
assert _NODE.size < OVERLAP_BYTES
_OBJECT_AT = 16
_STEPS_A_LOOK = 4096
_TRAIL = 512
_FULL_WALKS = 4
_YOUNG_WALKS = 20
_PATIENCE = 12
#: Of 2 ms: a full collection of a million objects takes half a second.
_COLLECTION_PAUSES = 1_000
_LOST_MAX = 2_000
_ITEMS_MAX = 1 << 40


class Budget:
    """Until when a census may go on: CPU time of this thread and wall time."""

    def __init__(self, cpu_ns: int, wall_ns: int) -> None:
        self._cpu_end_ns = thread_cpu_ns() + cpu_ns
        self._wall_end_ns = monotonic_ns() + wall_ns

    @property
    def is_spent(self) -> bool:
        return thread_cpu_ns() > self._cpu_end_ns or monotonic_ns() > self._wall_end_ns

    def pause(self, milliseconds: int) -> None:
        """Let the program go on before the next look."""
        time.sleep(milliseconds * NS_PER_MS / 1e9)


class Tally:
    """Objects by type. For each type's address: count, items (where it has such), its facts."""

    def __init__(self) -> None:
        self.by_type: dict[int, list[int]] = {}
        self.types: dict[int, PythonType] = {}

    def add(self, other: Tally) -> None:
        self.types.update(other.types)
        for address, (count, items, kind) in other.by_type.items():
            mine = self.by_type.setdefault(address, [0, 0, kind])
            mine[0] += count
            mine[1] += items

    @property
    def objects(self) -> int:
        return sum(entry[0] for entry in self.by_type.values())

    def totals(self) -> list[tuple[PythonType, int, int]]:
        """Each type with its objects and their bytes."""
        out = []
        for address, (count, items, _) in self.by_type.items():
            kind = self.types[address]
            unit = 8 if kind.name == "list" else kind.item_bytes
            out.append((kind, count, count * kind.fixed_bytes + items * unit))
        return out


class Tracked(NamedTuple):
    """What the lists hold; `frozen` are those of the permanent generation, also in `tally`."""

    tally: Tally
    frozen: int
    lost_places: int
    #: The old lists were walked to their ends: all but the young objects, at most, are exact.
    is_usable: bool
    is_complete: bool


#: How a type's objects tell their number of items: not at all, by ob_size, by a list's `allocated`;
#: types do it by ob_size and are remembered.
_NO_ITEMS, _BY_SIZE, _BY_ALLOCATED, _IS_TYPE = 0, 1, 2, 3


class _Ring:
    """A walk along one list, which can be continued where it ended."""

    def __init__(self, walker: Walker, head: int) -> None:
        self._walker = walker
        self._head = head
        self._last = head
        self._trail: deque[int] = deque([head], _TRAIL)
        self.tally = Tally()
        self.is_whole = False

    def walk(self) -> None:
        """Visit what follows the last node visited, up to the end of the list."""
        self.is_whole = False
        while not self._walker.is_void:
            node = self._go()
            if node == self._head:
                self.is_whole = True
                return
            if node and not self._find_back():
                return

    def _go(self) -> int:
        """Some thousand steps. The head's address at the end, 0 if there are more to go, else the
        node at which the list is not what it should be."""
        blocks, tallies, head = self._walker.blocks, self.tally.by_type, self._head
        kept, load, unpack = blocks.kept, blocks.load, _NODE.unpack_from
        remember, last = self._trail.append, self._last
        heap_types = self._walker.heap_types
        following, mask = self._walker.next_of(last), self._walker.link_mask
        for _ in range(_STEPS_A_LOOK):
            node = following & mask
            number = node >> SHIFT
            block = kept.get(number) or load(number)
            following, back, _, kind, size, _, allocated = unpack(block, node & MASK)
            if back & -4 != last or node == head or node & 7:
                break
            entry = tallies.get(kind)
            if entry is None:
                entry = self._entry(kind)
                if entry is None:
                    break
            entry[0] += 1
            if entry[2]:
                items = allocated if entry[2] == _BY_ALLOCATED else size
                # Generators have a pointer there: their items are counted in tp_basicsize.
                if items < _ITEMS_MAX:
                    entry[1] += items
                if entry[2] == _IS_TYPE:
                    heap_types.add(node + _OBJECT_AT)
            last = node
            remember(node)
        else:
            node = 0
        self._last = last
        # At the end the head's own back-link must agree, read now: more may have come.
        if node == head and self._walker.previous_of(head) != last:
            return node + 1
        return node

    def _entry(self, address: int) -> Optional[list[int]]:
        kind = self._walker.types.find(address)
        if kind is None or not kind.is_tracked:
            return None
        how = _BY_SIZE if kind.item_bytes else _NO_ITEMS
        if kind.is_metaclass:
            how = _IS_TYPE
        elif kind.name == "list":
            how = _BY_ALLOCATED
        self.tally.types[address] = kind
        entry = self.tally.by_type[address] = [0, 0, how]
        return entry

    def _find_back(self) -> bool:
        """Go back to the last node that is on the list now; False where there is none."""
        walker = self._walker
        walker.lost_places += 1
        for attempt in range(_PATIENCE):
            if walker.is_void or walker.lost_places > _LOST_MAX:
                return False
            walker.blocks.forget()
            for last in reversed(self._trail):
                following = walker.next_of(last)
                if following and walker.previous_of(following) == last:
                    while self._trail[-1] != last:
                        self._trail.pop()
                    self._last = last
                    return True
            walker.budget.pause(1 << min(attempt, 6))
        return False


class Walker:
    """Walks all lists of one collector."""

    def __init__(
        self, blocks: ResidentBlocks, types: TypeTable, collector: Collector, budget: Budget
    ) -> None:
        self.blocks = blocks
        self.types = types
        self.lost_places = 0
        #: The addresses of classes, which are objects on the lists themselves.
        self.heap_types: set[int] = set()
        self.budget = budget
        self.link_mask = collector.link_mask
        self._collector = collector
        self._upheavals = b""

    def next_of(self, node: int) -> int:
        """The link as it is now; 0 where it cannot be read."""
        return int.from_bytes(self.blocks.read_now(node, 8), "little") & self.link_mask

    def previous_of(self, node: int) -> int:
        return int.from_bytes(self.blocks.read_now(node + 8, 8), "little") & -4

    @property
    def is_void(self) -> bool:
        """Whether what was walked so far is worth nothing: a full collection takes the old list
        apart and puts it together in another order. Or there is no time to go on."""
        return self.budget.is_spent or self._collector.upheavals(self.blocks) != self._upheavals

    def walk(self) -> Tracked:
        """All objects on the lists."""
        for _ in range(_FULL_WALKS):
            self._wait_for_collection()
            self.blocks.forget()
            self._upheavals = self._collector.upheavals(self.blocks)
            permanent, old = (_Ring(self, head) for head in self._collector.heads[:2])
            permanent.walk()
            old.walk()
            young, is_settled = self._walk_young(old)
            # A collection counts when it is over.
            self._wait_for_collection()
            is_usable = permanent.is_whole and old.is_whole and not self.is_void
            if is_usable or self.budget.is_spent:
                break
        tally = Tally()
        for part in (permanent.tally, old.tally, young):
            tally.add(part)
        return Tracked(
            tally, permanent.tally.objects, self.lost_places, is_usable, is_usable and is_settled
        )

    def _walk_young(self, old: _Ring) -> tuple[Tally, bool]:
        """The two young lists and what came to the old one, at one moment between collections."""
        tally = Tally()
        for _ in range(_YOUNG_WALKS):
            self._wait_for_collection()
            self.blocks.forget()
            before = self._collector.moves(self.blocks)
            old.walk()
            rings = [_Ring(self, head) for head in self._collector.heads[2:]]
            for ring in rings:
                ring.walk()
            tally = Tally()
            for ring in rings:
                tally.add(ring.tally)
            is_whole = all(ring.is_whole for ring in (old, *rings))
            if is_whole and self._collector.moves(self.blocks) == before:
                return tally, not self._collector.is_collecting(self.blocks)
            if self.is_void:
                break
        return tally, False

    def _wait_for_collection(self) -> None:
        for _ in range(_COLLECTION_PAUSES):
            if not self._collector.is_collecting(self.blocks) or self.budget.is_spent:
                return
            self.budget.pause(2)
