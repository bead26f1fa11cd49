"""The case and its private map on disk."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from leakcase_bundle import Reader
from leakcase_bundle.records import CaseEnd, Event
from leakcase_collector.casefile import CaseFile
from leakcase_collector.errors import OutputError


def _read(path: Path) -> tuple[list[object], Reader]:
    with path.open("rb") as file:
        reader = Reader(file)
        return list(reader), reader


def test_both_files_are_private_and_new(tmp_path: Path) -> None:
    case = CaseFile(str(tmp_path / "x.leakcase"))
    case.write_map_line(b"{}\n")
    case.add(CaseEnd(1, "duration"))
    case.finish()
    case.close()
    for name in ("x.leakcase", "x.leakcase.map"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    records, reader = _read(tmp_path / "x.leakcase")
    assert records == [CaseEnd(1, "duration")]
    assert reader.complete


@pytest.mark.parametrize("taken", ["x.leakcase", "x.leakcase.map"])
def test_nothing_is_ever_written_over_a_file(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(OutputError, match="exist"):
        CaseFile(str(tmp_path / "x.leakcase"))
    assert [p.name for p in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.leakcase").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError):
        CaseFile(str(tmp_path / "x.leakcase"))
    assert not (tmp_path / "elsewhere").exists()


_FILL = """
import resource, signal, sys
from leakcase_collector.casefile import CaseFile
from leakcase_collector.errors import OutputError
from leakcase_bundle.records import Event
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
case = CaseFile(sys.argv[1])
try:
    for i in range(100000):
        case.add(Event(i * 7919 % 1000003, "exec"))
        if i % 50 == 0:
            case.flush()
except OutputError as error:
    print(error)
    case.add(Event(0, "exec")); case.flush(); case.finish(); case.close()
"""


def test_when_the_disk_refuses_the_case_ends_with_its_last_whole_frame(tmp_path: Path) -> None:
    path = tmp_path / "x.leakcase"
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cannot write {path}: ")
    assert len(done.stdout.splitlines()) == 1
    records, reader = _read(path)
    assert records
    assert all(isinstance(record, Event) for record in records)
    assert (reader.truncated, reader.problems, reader.skipped_bytes) == (True, [], 0)
