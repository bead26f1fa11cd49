"""The step in Python and the step in C: equal on heaps of any kind, sound and damaged."""

from __future__ import annotations

import ctypes
import random
import struct
from typing import Any

import pytest

from leakcase_collector.heap.layout import NON_MAIN_ARENA
from leakcase_collector.heap.step import step as python_step
from leakcase_collector.heap.walk import Stretch, Walked, Walker
from leakcase_collector.heap.walk_state import DONE, FULL, Lists, WalkState, native_step, new_state
from leakcase_collector.system import native

BASE = 0x555555559000


@pytest.fixture(scope="module")
def c_step() -> Any:
    library = native.load()
    assert library is not None, "build it: make native"
    return native_step(library)


class Bytes:
    """A memory of one piece, some of whose pages are not in RAM."""

    pointer_bytes = 8

    def __init__(self, content: bytes, absent: tuple[int, ...] = ()) -> None:
        self.content = content
        self.absent = set(absent)

    def mappings(self) -> list[Any]:
        return []

    def read(self, address: int, size: int) -> bytes:
        return self.content[address - BASE : address - BASE + size]

    def read_into(self, address: int, view: memoryview) -> int:
        content = self.read(address, len(view))
        view[: len(content)] = content
        return len(content)

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        first, last = start // 4096, -(-end // 4096)
        pages = [n for n in range(first, last) if n - BASE // 4096 not in self.absent]
        return [(max(n * 4096, start), min((n + 1) * 4096, end)) for n in pages]


class Unbounded:
    def spend(self, size: int) -> None:
        pass


def heap(seed: int, chunks: int) -> tuple[bytes, int]:
    """A sound heap of random chunks and where its top ends; sizes of thread caches are common."""
    choose = random.Random(seed)
    out = bytearray()
    before_in_use, before = 1, 0
    for _ in range(chunks):
        kinds = (32, 48, 208, 0x250, 0x290, 0x300, 16 * choose.randint(2, 400), 70000)
        size = choose.choices(kinds, (9, 9, 9, 1, 1, 1, 20, 0.3))[0]
        body = bytearray(choose.choice((bytes(size), choose.randbytes(size))))
        if size in (0x290, 0x300) and choose.random() < 0.7:
            counts = [choose.randint(0, 7) for _ in range((size - 16) // 10)]
            body[16:] = _cache(counts, size)
        is_free = before_in_use and choose.random() < 0.3
        struct.pack_into("=QQ", body, 0, 0 if before_in_use else before, size | before_in_use)
        out += body
        before_in_use, before = (0, size) if is_free else (1, size)
    size = 4096 + -len(out) % 4096
    out += struct.pack("=QQ", 0 if before_in_use else before, size | before_in_use)
    out += bytes(size - 16)
    return bytes(out), BASE + len(out)


def _cache(counts: list[int], size: int) -> bytes:
    lists = 64 if size == 0x290 else 76
    counts = (counts * 2)[:lists]
    slots = size == 0x300
    most = max(counts)
    entries = [0 if (count == most if slots else not count) else BASE for count in counts]
    packed = struct.pack(f"={lists}H{lists}Q", *counts, *entries)
    return packed[: size - 16].ljust(size - 16, b"\0")


def state_of(state: WalkState) -> dict[str, int]:
    return {name: getattr(state, name) for name, _ in WalkState._fields_}


def walk_in_windows(step: Any, content: bytes, window: int, state: WalkState) -> list[Any]:
    """Every state and list after every step, by windows of a given size."""
    lists = Lists.empty()
    seen: list[Any] = []
    status = None
    while status != DONE and BASE <= state.position < BASE + len(content):
        base = state.position
        part = bytearray(content[base - BASE : base - BASE + window])
        is_last = base - BASE + len(part) == len(content)
        status = FULL
        while status == FULL:
            status = step(state, lists, part, base, len(part), is_last)
            seen.append((status, state_of(state)))
            seen.append([list(lists.listed[: 2 * state.listed]), lists.spans[: 2 * state.spans]])
            seen.append(list(lists.tcaches[: state.tcaches]))
            state.listed = state.spans = state.tcaches = 0
        if state.position == base and is_last:
            break
    return [*seen, lists.counts]


def damaged(content: bytes, seed: int) -> bytes:
    choose = random.Random(seed)
    out = bytearray(content)
    for _ in range(seed % 40):
        at = choose.randrange(0, len(out) - 600)
        kind = choose.randrange(4)
        if kind == 0:
            out[at : at + 8] = choose.randbytes(8)
        elif kind == 1:
            out[at : at + 512] = bytes(512)
        elif kind == 2:
            out[at & ~15 : (at & ~15) + 16] = struct.pack("=QQ", 0, choose.getrandbits(63))
        else:
            out[at : at + 300] = b"\x41" * 300
    return bytes(out)


@pytest.mark.parametrize("seed", range(150))
def test_both_take_the_same_steps(seed: int, c_step: Any) -> None:
    content, end = heap(seed, 60 + seed)
    content = damaged(content, seed)
    window = (2048, 8192, 65536, 1 << 22)[seed % 4]
    top_end = end if seed % 3 else 0
    forbidden = NON_MAIN_ARENA if seed % 2 else 0
    results = []
    for step in (python_step, c_step):
        state = new_state(BASE, end, top_end, forbidden)
        state.capacity = 1 + seed % 7
        state.listed_from_bytes = 0 if seed % 5 == 0 else 1024
        results.append(walk_in_windows(step, content, window, state))
    assert results[0] == results[1]
    assert len(results[0]) > 2


@pytest.mark.parametrize("seed", range(40))
def test_both_walk_the_same_with_pages_that_are_missing(seed: int, c_step: Any) -> None:
    content, end = heap(1000 + seed, 400)
    absent = tuple(random.Random(seed).sample(range(len(content) // 4096), seed % 9))
    stretch = Stretch(BASE, end, end, NON_MAIN_ARENA)
    walks = [
        Walker(Bytes(content, absent), Unbounded(), step).walk(stretch)
        for step in (python_step, c_step)
    ]
    assert walks[0] == walks[1]
    check_sum(walks[0], end)
    if not absent:
        assert walks[0].lost_bytes == 0


def check_sum(walked: Walked, end: int) -> None:
    assert walked.accounted_bytes + walked.lost_bytes == end - BASE


@pytest.mark.parametrize("seed", range(100))
def test_a_damaged_heap_never_adds_up_to_more_than_there_is(seed: int, c_step: Any) -> None:
    content, end = heap(2000 + seed, 300)
    stretch = Stretch(BASE, end, end, NON_MAIN_ARENA)
    walked = Walker(Bytes(damaged(content, seed)), Unbounded(), c_step).walk(stretch)
    check_sum(walked, end)


@pytest.mark.parametrize(("sound", "goes_on"), [(5, False), (6, True)])
def test_a_lost_walk_goes_on_where_six_headers_fit_together(
    sound: int, goes_on: bool, c_step: Any
) -> None:
    out = bytearray()
    for index in range(64):
        wrong = index % (sound + 1) == 3 and index < 40
        out += struct.pack("=QQ", 0, 0xFFF1 if wrong else 65) + bytes(48)
    out += struct.pack("=QQ", 0, 4096 | 1) + bytes(4080)
    stretch = Stretch(BASE, BASE + len(out), BASE + len(out), NON_MAIN_ARENA)
    for step in (python_step, c_step):
        walked = Walker(Bytes(bytes(out)), Unbounded(), step).walk(stretch)
        assert (walked.resyncs > 1) == goes_on


def test_noise_is_not_taken_for_a_heap(c_step: Any) -> None:
    content = random.Random(7).randbytes(1 << 20)
    stretch = Stretch(BASE, BASE + len(content), BASE + len(content), NON_MAIN_ARENA)
    for step in (python_step, c_step):
        walked = Walker(Bytes(content), Unbounded(), step).walk(stretch)
        assert walked.in_use_bytes < len(content) // 100
        assert walked.lost_bytes > 0.9 * len(content)


def test_the_state_is_as_large_as_its_twin_expects() -> None:
    assert ctypes.sizeof(WalkState) == 8 * len(WalkState._fields_)
