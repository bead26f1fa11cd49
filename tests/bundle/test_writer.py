"""Writing: whole frames only, whatever the disk does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leakcase_bundle import SpecViolation, Writer
from leakcase_bundle.encoding import (
    MAX_ARRAY_LENGTH,
    MAX_FRAME_BYTES,
    MAX_MAP_LENGTH,
    decode_maps,
    encode_map,
)
from leakcase_bundle.framing import HEADER_BYTES, read_header, unpack_body
from leakcase_bundle.records import CaseEnd, Gap, StatusSeries
from leakcase_bundle.writer import FrameWriter
from tests.bundle.shared import case_of, read

GAP = Gap(taken_ns=1, probe="regions", reason="failed")
END = CaseEnd(taken_ns=2, reason="duration")


def written(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 24, 0)


@pytest.fixture
def descriptor(tmp_path: Path) -> int:
    return os.open(tmp_path / "x.leakcase", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)


def test_what_is_not_flushed_is_not_on_disk(descriptor: int) -> None:
    writer = Writer(descriptor)
    writer.add(GAP)
    assert read(written(descriptor))[0] == []
    writer.flush()
    assert read(written(descriptor))[0] == [GAP]
    assert writer.records == 1
    assert writer.written_bytes == len(written(descriptor))


def test_an_unfinished_case_is_truncated_and_a_finished_one_complete(descriptor: int) -> None:
    writer = Writer(descriptor)
    writer.add(GAP)
    writer.flush()
    assert read(written(descriptor))[1].truncated
    writer.finish()
    writer.finish()
    _, reader = read(written(descriptor))
    assert reader.complete
    assert reader.index_records == 1


def test_flushing_nothing_writes_nothing(descriptor: int) -> None:
    writer = Writer(descriptor)
    before = written(descriptor)
    writer.flush()
    assert written(descriptor) == before


def test_nothing_can_be_added_to_a_finished_case(descriptor: int) -> None:
    writer = Writer(descriptor)
    writer.finish()
    with pytest.raises(SpecViolation, match="finished"):
        writer.add(GAP)


def test_many_records_are_cut_into_frames_within_the_limits() -> None:
    series = StatusSeries(taken_ns=list(range(0, 40_000_000, 1_000)), rss_bytes=[7] * 40_000)
    records = [series] * 12 + [GAP] * 70_000
    back, reader = read(case_of(records))
    assert back == records
    assert reader.complete
    assert reader.frames > 4


def test_a_record_that_is_too_large_is_refused_before_anything_is_written(descriptor: int) -> None:
    writer = Writer(descriptor)
    too_long = [5] * (MAX_ARRAY_LENGTH + 1)
    with pytest.raises(SpecViolation, match="65536"):
        writer.add(StatusSeries(taken_ns=list(too_long), rss_bytes=None))
    columns = {f"c{n}": [1 << 60] * MAX_ARRAY_LENGTH for n in range(3)}
    with pytest.raises(SpecViolation, match=str(MAX_FRAME_BYTES)):
        encode_map(columns)
    with pytest.raises(SpecViolation, match=str(MAX_MAP_LENGTH)):
        encode_map(dict.fromkeys(map(str, range(MAX_MAP_LENGTH + 1))))
    writer.add(END)
    writer.finish()
    assert read(written(descriptor))[0] == [END]


FULL_DISK = """
import os, resource, sys
from leakcase_bundle import Writer, codecs
from leakcase_bundle.records import CaseEnd, Gap
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
writer = Writer(fd, codecs.CODECS[int(sys.argv[2])])
whole = 0
try:
    while True:
        writer.add(Gap(taken_ns=writer.records, probe="regions", reason="failed"))
        writer.flush()
        whole = writer.written_bytes
except OSError:
    assert os.fstat(fd).st_size == whole == writer.written_bytes
print(writer.records)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
writer.add(CaseEnd(taken_ns=1, reason="disk-full"))
writer.finish()
"""


@pytest.mark.parametrize("codec", [1, 2])
def test_a_full_disk_leaves_whole_frames_that_can_still_be_finished(
    tmp_path: Path, codec: int
) -> None:
    path = tmp_path / "full.leakcase"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(codec)],
        capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records, reader = read(path.read_bytes())
    count = int(done.stdout)
    assert count > 3
    assert [r.taken_ns for r in records[:-1]] == list(range(count))
    assert records[-1] == CaseEnd(taken_ns=1, reason="disk-full")
    assert reader.complete


def test_a_failure_that_cannot_be_undone_is_still_the_one_that_is_told() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space"):
        FrameWriter(full.fileno())


def test_index_lists_the_length_of_every_frame() -> None:
    case = case_of([GAP], [GAP, END])
    at, lengths = 20, []
    while True:
        header = read_header(case[at : at + HEADER_BYTES])
        assert header is not None
        end = at + HEADER_BYTES + header.stored_bytes
        if end == len(case):
            break
        lengths.append(end - at)
        at = end
    index = next(decode_maps(unpack_body(header, case[at + HEADER_BYTES :])))
    assert index["frame_bytes"] == lengths
    assert (index["frames"], index["records"]) == (2, 3)
