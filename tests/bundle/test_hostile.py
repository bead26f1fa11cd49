"""Files that were made to exhaust a reader."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib

import pytest

from leakcase_bundle import Reader
from leakcase_bundle import reader as reader_module
from leakcase_bundle.codecs import CODECS, ZLIB
from leakcase_bundle.encoding import MAX_FRAME_BYTES, encode_map
from leakcase_bundle.framing import HEADER_START, pack_frame, prologue
from leakcase_bundle.records import Gap
from leakcase_bundle.schema import to_map
from tests.bundle.shared import NAMES, ROOT, CountedFile, case_of, read, vector

GAP = Gap(taken_ns=1, probe="regions", reason="failed")


def header(sequence: int, stored_bytes: int, body_crc: int = 0) -> bytes:
    """An intact header, whatever it claims."""
    start = HEADER_START + struct.pack(
        "<BBHIIIII", 1, ZLIB, 1, sequence, 1, 1, stored_bytes, body_crc
    )
    return start + struct.pack("<I", zlib.crc32(start))


def false_starts(size: int) -> bytes:
    return HEADER_START * (size // len(HEADER_START))


def lying_headers(size: int) -> bytes:
    """Intact headers with damaged bodies of a mebibyte, one directly after another."""
    return b"".join(header(n, 1 << 20, 7) for n in range(size // 36))


def headers_beyond_the_end(size: int) -> bytes:
    return b"".join(header(n, (1 << 20) - 36 * n % 9, 7) for n in range(size // 36))


@pytest.mark.parametrize("hostile", [false_starts, lying_headers, headers_beyond_the_end])
def test_work_grows_with_the_size_of_the_file_and_no_faster(hostile: object) -> None:
    work = {}
    for size in (1 << 19, 1 << 21):
        file = CountedFile(prologue() + hostile(size))  # type: ignore[operator]
        began = time.process_time()
        assert list(Reader(file)) == []
        work[size] = (file.read_bytes / size, time.process_time() - began)
    assert all(factor < 12 for factor, _ in work.values()), work
    assert work[1 << 21][1] < 5, work


def test_a_frame_behind_many_lies_is_found() -> None:
    lies = b"".join(header(n, 150, 7) for n in range(40))
    frame = pack_frame(CODECS[ZLIB], 1, 40, 1, encode_map(to_map(GAP)))
    records, reader = read(prologue() + lies + frame)
    assert records == [GAP]
    assert reader.missing_frames == 40
    assert reader.problem_count >= 40
    assert reader.skipped_bytes == len(lies)


def test_a_header_that_claims_more_than_the_file_has_is_a_problem_where_more_follows() -> None:
    frame = pack_frame(CODECS[ZLIB], 1, 0, 1, encode_map(to_map(GAP)))
    records, reader = read(prologue() + header(0, 1 << 20) + frame)
    assert records == [GAP]
    assert [p.message for p in reader.problems] == ["a frame claims more bytes than the file has"]
    assert read(prologue() + frame + header(1, 1 << 20))[1].problems == []


def test_bombs_are_stopped_in_little_memory() -> None:
    for name in (n for n in NAMES if n.startswith(("bomb-", "declares-", "huge-", "nested-"))):
        tracemalloc.start()
        try:
            _, reader = read(vector(name))
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak_bytes < 12 << 20, name
        assert not reader.complete


def test_what_all_frames_hold_together_is_bounded() -> None:
    case = case_of([GAP], [GAP], [GAP], [GAP])
    one_bytes = read(case)[1].content_bytes // 4
    records, reader = read(case, max_content_bytes=2 * one_bytes + 1)
    assert records == [GAP, GAP]
    assert [p.message for p in reader.problems] == ["the case holds more than a reader takes"]
    assert not reader.complete


def test_a_bomb_counts_before_it_is_unpacked() -> None:
    lie = pack_frame(CODECS[ZLIB], 1, 0, 1, b"\0" * MAX_FRAME_BYTES)
    frames = b"".join(pack_frame(CODECS[ZLIB], 1, n, 1, b"\0" * MAX_FRAME_BYTES) for n in range(9))
    assert len(lie) < 1_200
    _, reader = read(prologue() + frames, max_content_bytes=3 * MAX_FRAME_BYTES)
    assert reader.frames == 3
    assert reader.problems[-1].message == "the case holds more than a reader takes"


def test_the_number_of_records_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MAX_RECORDS", 3)
    records, reader = read(case_of([GAP, GAP], [GAP, GAP], [GAP]))
    assert len(records) == 4
    assert reader.problems[-1].message == "the case holds more records than a reader takes"
    assert not reader.complete


def test_a_hundred_problems_are_listed_and_all_are_counted() -> None:
    nonsense = b"".join(pack_frame(CODECS[ZLIB], 1, n, 1, b"\xc1") for n in range(250))
    _, reader = read(prologue() + nonsense)
    assert reader.problem_count == 250
    assert len(reader.problems) == 100


def test_a_frame_of_exactly_the_limit_is_read() -> None:
    record = b"\x82\xa6record\xa1x\xaerecord_version\x01"
    filling = MAX_FRAME_BYTES // len(record)
    content = record * filling
    content += b"\xc0" * (MAX_FRAME_BYTES - len(content))
    frame = pack_frame(CODECS[ZLIB], 1, 0, filling, content)
    _, reader = read(prologue() + frame)
    assert reader.unknown_records == filling
    assert reader.damaged_records == 0


@pytest.mark.parametrize("small", [b"\x90", b"\x80"])
def test_a_frame_does_not_become_a_million_containers(small: bytes) -> None:
    # No array is finished, so that none is refused, before all of its leaves are there.
    level = b"\xdd\x00\x01\x00\x00" + small * 0xFFFF
    content = b"\x81\xa1a" + level * 15 + b"\xc0"
    assert len(content) < MAX_FRAME_BYTES
    frame = pack_frame(CODECS[ZLIB], 1, 0, 1, content)
    tracemalloc.start()
    try:
        _, reader = read(prologue() + frame)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reader.damaged_records == 1
    assert peak_bytes < 10 << 20


def test_a_header_is_found_wherever_the_search_looks_in_steps() -> None:
    frame = pack_frame(CODECS[ZLIB], 1, 0, 1, encode_map(to_map(GAP)))
    for shift in range(-50, 50):
        for steps in (1, 2):
            records, _ = read(prologue() + b"\xaa" * (steps * (1 << 16) + shift) + frame)
            assert records == [GAP], (steps, shift)


def test_a_file_that_grows_is_read_as_it_was() -> None:
    case = case_of([GAP], [GAP], [GAP])
    cut = len(case) - 180  # within the body of the third frame
    file = CountedFile(case[:cut])
    reader = Reader(file)
    records = iter(reader)
    first = next(records)
    file.seek(0, os.SEEK_END)
    file.write(case[cut:])
    assert [first, *records] == read(case[:cut])[0]
    assert reader.skipped_bytes == read(case[:cut])[1].skipped_bytes > 0
    assert reader.problems == []
    assert reader.truncated


def test_a_reader_can_be_iterated_again() -> None:
    reader = Reader(CountedFile(vector("bit-in-a-body")))
    first = (list(reader), reader.problem_count, reader.records, reader.skipped_bytes)
    again = (list(reader), reader.problem_count, reader.records, reader.skipped_bytes)
    assert first == again


def test_three_thousand_mutated_cases_are_read_in_bounds() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "fuzz_reader.py"), "--count", "3000"],
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("3000 inputs"), done.stdout
