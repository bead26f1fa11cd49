"""Blocks of a real program, looked at again: alive, dead, and what cannot be told."""

from __future__ import annotations

import random

import pytest

from leakcase_collector.trace.blocks import BlockReader
from leakcase_collector.trace.fingerprints import Identity, Likeness, identity_of, words_of
from leakcase_collector.trace.survivors import (
    BLOCKS_PER_WINDOW,
    Cohort,
    LiveBlock,
    StackLook,
    Survivors,
    even_sample,
)
from tests.collector.trace.conftest import Blocks

STACK, COUNT, BYTES = 7, 300, 200
ALLOCATORS = pytest.mark.parametrize("is_glibc", [True, False], ids=["glibc", "other"])


class Watched:
    """A window's blocks of one stack."""

    def __init__(self, blocks: Blocks, kind: str, is_glibc: bool, count: int = COUNT) -> None:
        self.blocks = blocks
        self.is_glibc = is_glibc
        self.survivors = Survivors()
        self.addresses = blocks.ask(f"make {kind} {count} {BYTES}")
        live = [LiveBlock(address, STACK, BYTES, 1) for address in self.addresses]
        with blocks.memory() as memory:
            reader = BlockReader(memory, is_glibc)
            self.cohort: Cohort = self.survivors.follow(0, 0, live, reader)

    def look(self) -> StackLook:
        with self.blocks.memory() as memory:
            (found,) = self.survivors.look(self.cohort, BlockReader(memory, self.is_glibc))
        return found


@ALLOCATORS
@pytest.mark.parametrize("kind", ["objects", "text"])
def test_blocks_that_nobody_touches_are_alive(blocks: Blocks, kind: str, is_glibc: bool) -> None:
    found = Watched(blocks, kind, is_glibc).look()
    assert found == StackLook(STACK, COUNT, COUNT * BYTES, 0, 0, 0)


@ALLOCATORS
def test_objects_that_are_written_to_are_still_the_same(blocks: Blocks, is_glibc: bool) -> None:
    watched = Watched(blocks, "objects", is_glibc)
    blocks.ask("write")
    found = watched.look()
    assert (found.alive, found.weak) == (COUNT, 0)


@ALLOCATORS
@pytest.mark.parametrize("kind", ["objects", "text"])
def test_another_object_in_the_same_place_is_another(
    blocks: Blocks, kind: str, is_glibc: bool
) -> None:
    watched = Watched(blocks, kind, is_glibc)
    again = blocks.ask(f"again {kind}")
    assert len(set(again) & set(watched.addresses)) > 0.9 * COUNT, "the places are the same"
    found = watched.look()
    assert found.alive <= 0.01 * COUNT
    assert found.dead >= 0.99 * COUNT


@pytest.mark.parametrize("kind", ["objects", "text", "alike", "zeros"])
@pytest.mark.parametrize("step", [1, 3])
def test_freed_blocks_are_dead_by_glibc_books_whatever_they_hold(
    blocks: Blocks, kind: str, step: int
) -> None:
    watched = Watched(blocks, kind, is_glibc=True)
    blocks.ask(f"free {step}")
    found = watched.look()
    assert found.dead == len(range(0, COUNT, step))
    assert found.alive == COUNT - found.dead
    assert found.weak == (found.alive if kind in ("alike", "zeros") else 0)


def test_zeros_say_nothing_about_which_block_they_are(blocks: Blocks) -> None:
    watched = Watched(blocks, "zeros", is_glibc=True)
    assert watched.survivors.weak_share(watched.cohort) == 1.0
    blocks.ask("again zeros")
    found = watched.look()
    assert found.weak == found.alive, "those that look alive are marked"


def test_blocks_that_are_alike_do_not_count_where_their_stack_is_seen_to_free(
    blocks: Blocks,
) -> None:
    """Zeros in the place of freed zeros look as if nothing had happened."""
    watched = Watched(blocks, "zeros", is_glibc=True)
    seen = dict.fromkeys(watched.addresses[: COUNT // 2], 1)
    watched.survivors.drop_dead(seen)
    found = watched.look()
    assert (found.alive, found.weak) == (0, 0)
    assert (found.dead, found.unknown) == (COUNT // 2, COUNT // 2)


def test_objects_that_can_be_told_apart_count_though_their_stack_frees_others(
    blocks: Blocks,
) -> None:
    watched = Watched(blocks, "objects", is_glibc=True)
    watched.survivors.drop_dead(dict.fromkeys(watched.addresses[: COUNT // 2], 1))
    found = watched.look()
    assert (found.alive, found.dead, found.unknown) == (COUNT // 2, COUNT // 2, 0)


def test_what_was_unmapped_is_dead(blocks: Blocks) -> None:
    survivors = Survivors()
    (address,) = blocks.ask("make objects 1 400000")
    live = [LiveBlock(address, STACK, 400000, 1)]
    with blocks.memory() as memory:
        cohort = survivors.follow(0, 0, live, BlockReader(memory, True))
        blocks.ask("free 1")
        (found,) = survivors.look(cohort, BlockReader(memory, True))
    assert (found.alive, found.dead, found.unknown) == (0, 1, 0)


def test_a_block_that_is_not_in_ram_is_unknown_and_stays_so(blocks: Blocks) -> None:
    """Nobody has touched the end of a large calloc: it is mapped, and not there."""
    (address,) = blocks.ask("make objects 1 400000")
    far = LiveBlock(address - 0x100000000, STACK, 64, 1)
    survivors = Survivors()
    with blocks.memory() as memory:
        cohort = survivors.follow(0, 0, [far], BlockReader(memory, True))
        (found,) = survivors.look(cohort, BlockReader(memory, True))
    assert (found.alive, found.dead, found.unknown) == (0, 0, 1)


def test_a_free_or_a_re_issue_that_a_later_window_saw_is_final(blocks: Blocks) -> None:
    watched = Watched(blocks, "objects", is_glibc=True)
    seen = dict.fromkeys(watched.addresses, 1)
    del seen[watched.addresses[0]]
    seen[watched.addresses[1]] = 2
    watched.survivors.drop_dead(seen)
    found = watched.look()
    assert (found.alive, found.dead) == (COUNT - 2, 2)


def test_the_dead_of_earlier_looks_are_counted_in_later_ones(blocks: Blocks) -> None:
    watched = Watched(blocks, "objects", is_glibc=True)
    blocks.ask("free 3")
    assert watched.look().dead == watched.look().dead == COUNT // 3


def test_one_block_alone_has_nothing_that_tells_it_apart(blocks: Blocks) -> None:
    found = Watched(blocks, "objects", is_glibc=True, count=1).look()
    assert (found.alive, found.weak) == (1, 1)


def test_blocks_of_other_windows_help_to_tell(blocks: Blocks) -> None:
    """Few blocks of a slow leak fall into each window."""
    survivors = Survivors()
    with blocks.memory() as memory:
        for window in range(3):
            (address,) = blocks.ask(f"make objects 1 {BYTES}")
            block = LiveBlock(address, STACK, BYTES, window)
            cohort = survivors.follow(window, 0, [block], BlockReader(memory, True))
        (found,) = survivors.look(cohort, BlockReader(memory, True))
    assert (found.alive, found.weak) == (1, 0)


def test_words_that_all_share_do_not_identify() -> None:
    blocks = [(1, 2, number, 0, number % 2) for number in range(20)]
    identity = identity_of(blocks)
    assert identity.positions == (2,)
    assert identity.tells


def test_words_with_few_values_do_not_identify_by_themselves() -> None:
    """A chance of one in ten to meet the like is no proof, and two of them are little."""
    blocks = [(number % 11, number % 13) for number in range(143)]
    identity = identity_of(blocks)
    assert identity.positions == (0, 1)
    assert not identity.tells
    assert identity.compare(blocks[5], blocks[5]) is Likeness.ALIKE


def test_what_another_block_may_hold_by_chance_is_unclear() -> None:
    blocks = [(number, number % 11) for number in range(143)]
    identity = identity_of(blocks)
    assert identity.compare((7, 7), (7, 0)) is Likeness.SAME
    assert identity.compare((7, 7), (0, 7)) is Likeness.UNCLEAR
    assert identity.compare((7, 7), (0, 0)) is Likeness.OTHER


def test_two_blocks_need_more_than_one_word_that_differs() -> None:
    assert not identity_of([(1, 5), (2, 5)]).tells
    assert identity_of([(1, 5, 3), (2, 5, 4)]).tells


SURE = 0.001


def test_constants_that_remain_do_not_make_another_block_the_same() -> None:
    then, other = (1, 1, 1, 1, 1, 1, 77), (1, 1, 1, 1, 1, 1, 78)
    assert Identity((6,), (SURE,)).compare(then, other) is Likeness.OTHER


def test_half_of_the_identifying_words_are_enough() -> None:
    then, identity = (0, 11, 22, 33, 44), Identity((1, 2, 3, 4), (SURE,) * 4)
    assert identity.compare(then, (9, 11, 22, 0, 0)) is Likeness.SAME
    assert identity.compare(then, (9, 11, 0, 0, 0)) is Likeness.OTHER


def test_a_block_that_became_shorter_is_compared_as_far_as_it_goes() -> None:
    assert Identity((1, 3), (SURE, SURE)).compare((0, 1, 2, 3), (0, 1)) is Likeness.SAME


def test_a_rest_of_less_than_a_word_is_a_word() -> None:
    assert words_of(b"\1\0\0\0\0\0\0\0\2") == (1, 2)
    assert words_of(b"") == ()


def test_a_sample_leaves_no_stack_out_and_spreads_over_time() -> None:
    many = [LiveBlock(16 * n, 1, 64, n) for n in range(5000)]
    few = [LiveBlock(16 * n, 2, 64, n) for n in range(5000, 5020)]
    blocks = many + few
    random.Random(1).shuffle(blocks)
    chosen = even_sample(blocks, BLOCKS_PER_WINDOW)
    assert len(chosen) == BLOCKS_PER_WINDOW
    assert {block for block in chosen if block.stack == 2} == set(few)
    times = sorted(block.allocated_ns for block in chosen if block.stack == 1)
    assert max(b - a for a, b in zip(times, times[1:])) <= 5000 // (BLOCKS_PER_WINDOW - 20) + 1
    assert (times[0], times[-1] > 4900) == (0, True)
