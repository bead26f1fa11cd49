"""What malloc_info(3) wrote comes from the target: it is read as figures, or not at all."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakcase_bundle.schema import to_map
from leakcase_collector.attach.asking import Asked
from leakcase_collector.attach.malloc_info import parse_malloc_info
from leakcase_collector.probes.allocator_statistics import words_of

#: As glibc 2.36 wrote it, of a program with one thread beside the main one.
TEXT = """<malloc version="1">
<heap nr="0">
<sizes>
  <size from="33" to="48" total="96" count="2"/>
  <size from="193" to="193" total="9650000" count="50000"/>
  <unsorted from="193" to="193" total="38598649" count="199993"/>
</sizes>
<total type="fast" count="2" size="96"/>
<total type="rest" count="249994" size="48345513"/>
<system type="current" size="96104448"/>
<system type="max" size="96104448"/>
<aspace type="total" size="96104448"/>
<aspace type="mprotect" size="96104448"/>
</heap>
<heap nr="1">
<sizes>
</sizes>
<total type="fast" count="0" size="0"/>
<total type="rest" count="1" size="131072"/>
<system type="current" size="135168"/>
<system type="max" size="135168"/>
<aspace type="total" size="135168"/>
<aspace type="mprotect" size="135168"/>
<aspace type="subheaps" size="1"/>
</heap>
<total type="fast" count="2" size="96"/>
<total type="rest" count="249995" size="48476585"/>
<total type="mmap" count="1" size="4001792"/>
<system type="current" size="96239616"/>
<system type="max" size="96239616"/>
<aspace type="total" size="96239616"/>
<aspace type="mprotect" size="96239616"/>
</malloc>
"""


def test_arenas_and_mapped_chunks_are_told_without_the_flags_in_their_sizes() -> None:
    info = parse_malloc_info(TEXT)
    assert info is not None
    main, other = info.arenas
    assert main == (96104448, 249994, 48345513 - 249993, 2, 96)
    assert other == (135168, 1, 131072, 0, 0)
    assert (info.mapped_chunks, info.mapped_bytes) == (1, 4001792)


def test_a_version_without_fastbins_has_none() -> None:
    lines = (line for line in TEXT.splitlines() if 'type="fast"' not in line)
    info = parse_malloc_info("\n".join(lines))
    assert info is not None and info.arenas[0].fast_chunks == 0


def test_what_is_in_use_is_what_is_not_free() -> None:
    words, *arenas = words_of(0, 7, Asked("glibc", TEXT, stops_ns=[3, 4]))
    assert words.system_bytes == 96239616 + 4001792
    assert words.in_use_bytes + words.free_bytes == words.system_bytes
    assert (words.stopped_ns, words.attempts, len(arenas)) == (7, 2, 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<malloc>",
        TEXT[: len(TEXT) // 3],
        TEXT.replace('type="mmap"', 'type="none"'),
        TEXT.replace('<system type="current" size="96104448"/>', ""),
        TEXT.replace('count="249994"', f'count="{"9" * 40}"'),
        '<!DOCTYPE x [<!ENTITY a "b">]>' + "&a;" * 1000,
    ],
)
def test_what_malloc_info_does_not_write_is_not_understood(text: str) -> None:
    assert parse_malloc_info(text) is None
    assert words_of(0, 0, Asked("glibc", text)) == []


def test_a_long_answer_without_sense_costs_no_time() -> None:
    started = time.monotonic()
    for text in ('<heap nr="0">' * 200_000, "<total " * 500_000, "<" * 4_000_000):
        assert parse_malloc_info(text) is None
    assert time.monotonic() - started < 5


@given(
    st.text(max_size=200),
    st.dictionaries(st.sampled_from(
        ["stats.allocated", "stats.resident", "arenas.narenas", "arenas.page", "config.prof",
         "stats.arenas.0.pactive", "generic.current_allocated_bytes", "commit", "peak_commit"]),
        st.integers(0, (1 << 63) - 1)),
    st.sampled_from(["glibc", "jemalloc", "tcmalloc", "mimalloc"]),
)  # fmt: skip
def test_no_answer_breaks_what_reads_it(text: str, figures: dict[str, int], allocator: str) -> None:
    for record in words_of(0, 0, Asked(allocator, text, figures)):
        to_map(record)
