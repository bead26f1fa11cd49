"""A case that was cut anywhere, or in which anything changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakcase_bundle import NewerFormat, NotACase
from leakcase_bundle.framing import PROLOGUE_BYTES
from leakcase_bundle.scan import FrameScan, Problems
from tests.bundle.shared import CountedFile, read, vector

WHOLE = {name: vector(f"whole-{name}") for name in ("zlib", "zstd-compressed")}
ALL = {name: read(case)[0] for name, case in WHOLE.items()}


def ends_of_frames(case: bytes) -> list[int]:
    """Where each frame of records ends."""
    return [
        frame.offset + 36 + frame.header.stored_bytes
        for frame in FrameScan(CountedFile(case), Problems(), 1 << 20)
    ]


@pytest.mark.parametrize("codec", WHOLE)
def test_cut_at_any_byte_it_reads_up_to_the_last_whole_frame(codec: str) -> None:
    case = WHOLE[codec]
    ends = ends_of_frames(case)
    records_by_end = dict(zip([PROLOGUE_BYTES, *ends], (0, 2, 3, 4)))
    for cut in range(PROLOGUE_BYTES, len(case)):
        records, reader = read(case[:cut])
        last_end = max(end for end in records_by_end if end <= cut)
        assert records == ALL[codec][: records_by_end[last_end]]
        assert reader.truncated
        assert not reader.complete
        assert reader.problems == []
        assert reader.skipped_bytes == cut - max(end for end in records_by_end if end <= cut)


@pytest.mark.parametrize("codec", WHOLE)
def test_no_bit_can_change_unnoticed_and_no_intact_frame_is_lost(codec: str) -> None:
    case = WHOLE[codec]
    ends = ends_of_frames(case)
    for position in range(PROLOGUE_BYTES, len(case)):
        changed = bytearray(case)
        changed[position] ^= 1 << position % 8
        records, reader = read(bytes(changed))
        assert not reader.complete
        assert reader.problems
        hit = next((n for n, end in enumerate(ends) if position < end), None)
        kept = [r for n, part in enumerate(((0, 2), (2, 3), (3, 4))) if n != hit
                for r in ALL[codec][slice(*part)]]  # fmt: skip
        assert records == kept
        assert reader.missing_frames == (hit is not None)


@pytest.mark.parametrize("position", range(PROLOGUE_BYTES - 2))
def test_a_damaged_prologue_is_refused_and_can_be_salvaged(position: int) -> None:
    case = WHOLE["zlib"]
    changed = case[:position] + bytes((case[position] ^ 0x80,)) + case[position + 1 :]
    with pytest.raises((NotACase, NewerFormat)):
        read(changed)
    if position < 16:  # Behind it stands the version, and a newer one is not to be read at all.
        records, reader = read(changed, salvage=True)
        assert records == ALL["zlib"]
        assert not reader.complete


@given(
    cuts=st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, 300)), max_size=4),
    junk=st.binary(max_size=100),
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_cut_out_the_intact_frames_are_read_in_order(
    cuts: list[tuple[int, int]], junk: bytes
) -> None:
    case = WHOLE["zlib"]
    damaged = bytearray(case[PROLOGUE_BYTES:])
    for start, length in cuts:
        damaged[start : start + length] = junk
    records, reader = read(case[:PROLOGUE_BYTES] + bytes(damaged))
    rest = iter(ALL["zlib"])
    assert all(record in rest for record in records)
    assert reader.complete == (bytes(damaged) == case[PROLOGUE_BYTES:])
