"""Mapped chunks among other memory, by the allocator's own figures."""

from __future__ import annotations

import struct

import pytest

from leakcase_collector.heap.census import anonymous_spans
from leakcase_collector.heap.mapped import Parameters, find_mapped_chunks, is_complete
from leakcase_collector.system.memory import MemoryMapping
from tests.collector.heap.test_twins import BASE, Bytes, Unbounded

PAGE = 4096


def memory(*chunks: tuple[int, int], pages: int = 64, padding: int = 0) -> Bytes:
    """Noise with headers at some pages: (page, number of pages)."""
    content = bytearray(b"\x77" * (pages * PAGE))
    for page, count in chunks:
        at = page * PAGE + padding
        struct.pack_into("=QQ", content, at, padding, (count * PAGE - padding) | 2)
        if padding:
            content[page * PAGE : page * PAGE + 16] = bytes(16)
    return Bytes(bytes(content))


def found_in(made: Bytes, known: Parameters) -> list[int]:
    """The pages on which the chunks begin."""
    spans = [(BASE, BASE + len(made.content))]
    found = find_mapped_chunks(made, Unbounded(), spans, known)
    assert is_complete(found, known)
    return [(chunk.start - BASE) // PAGE for chunk in found]


def test_chunks_in_the_midst_of_other_memory_are_found() -> None:
    made = memory((5, 3), (8, 2), (40, 10))
    assert found_in(made, Parameters(3, 15 * PAGE, 0)) == [5, 8, 40]


@pytest.mark.parametrize("padding", [16, 48, 1008, PAGE - 16])
def test_chunks_that_were_aligned_are_found(padding: int) -> None:
    made = memory((5, 33), (50, 10), padding=padding)
    assert found_in(made, Parameters(2, 43 * PAGE, 0)) == [5, 50]


def test_what_only_looks_like_a_chunk_is_told_by_the_allocators_figures() -> None:
    made = memory((2, 7), (20, 5), (40, 10))
    assert found_in(made, Parameters(2, 15 * PAGE, 0)) == [20, 40]


def test_where_it_is_not_clear_which_is_none_the_census_is_not_whole() -> None:
    made = memory((2, 5), (20, 5), (40, 10))
    known = Parameters(2, 15 * PAGE, 0)
    found = find_mapped_chunks(made, Unbounded(), [(BASE, BASE + len(made.content))], known)
    assert not is_complete(found, known)


def test_where_there_are_none_nothing_is_searched() -> None:
    made = memory((0, 5))
    assert found_in(made, Parameters(0, 0, 0)) == []


def test_what_the_kernel_joined_with_an_arenas_heap_is_searched_as_well() -> None:
    def mapping(start: int, end: int, path: bytes = b"") -> MemoryMapping:
        return MemoryMapping(
            start * PAGE, end * PAGE, True, True, False, True, 0, b"00:00", 0, path
        )

    mappings = [mapping(0, 10), mapping(20, 30), mapping(40, 50), mapping(60, 70, b"/lib/a")]
    held = [(44 * PAGE, 46 * PAGE), (20 * PAGE, 26 * PAGE - 8), (2 * PAGE, 10 * PAGE)]
    spans = [(start // PAGE, end // PAGE) for start, end in anonymous_spans(mappings, held)]
    assert spans == [(0, 2), (26, 30), (40, 44), (46, 50)]
