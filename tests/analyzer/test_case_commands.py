"""`show`, `verify`, `recover` and `extract`, on good, damaged and hostile cases."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
import typer
from typer.testing import CliRunner

from leakcase_analyzer import case_commands, case_extract
from leakcase_analyzer.cli import main
from leakcase_bundle import Reader, Writer
from leakcase_bundle.codecs import CODECS, ZLIB
from leakcase_bundle.encoding import encode_map
from leakcase_bundle.framing import pack_frame, prologue
from leakcase_bundle.records import CaseEnd, Gap, StatusSeries, ThreadGroup
from leakcase_bundle.scan import FrameScan, Problems
from leakcase_bundle.schema import record_kinds, to_map
from leakcase_bundle.strings import NameToken

VECTORS = Path(__file__).resolve().parents[2] / "bundle_spec" / "vectors"
ALL = sorted(VECTORS.glob("*.leakcase"))
COMMANDS = ("show", "verify", "recover", "extract")


def vector(name: str) -> str:
    return str(VECTORS / f"{name}.leakcase")


def said(name: str) -> dict[str, Any]:
    text: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
    return text


class Ran:
    """One command: its exit status and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = main(arguments)
        self.out, self.err = capsys.readouterr()

    def json(self) -> Any:
        return json.loads(self.out)


def write_case(path: Path, *records: Any) -> Path:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    writer = Writer(descriptor)
    for record in records:
        writer.add(record)
    writer.finish()
    os.close(descriptor)
    return path


def write_maps(path: Path, *maps: dict[str, Any]) -> Path:
    """A case without a last frame that holds any maps."""
    frames = [pack_frame(CODECS[ZLIB], 1, n, 1, encode_map(raw)) for n, raw in enumerate(maps)]
    path.write_bytes(prologue() + b"".join(frames))
    return path


# --- exit statuses, by real processes -----------------------------------------------------------


def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "leakcase_analyzer.cli", *arguments],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name, status",
    [
        ("whole-zstd", 0), ("unknown-kinds", 0), ("no-records", 0), ("torn-between-frames", 3),
        ("bit-in-a-body", 3), ("bytes-after", 3), ("damaged-prologue", 3), ("prologue-only", 1),
        ("garbage", 1), ("empty", 1), ("newer-major", 2),
    ],
)  # fmt: skip
def test_verify_tells_whole_from_damaged_from_nothing(name: str, status: int) -> None:
    done = run_process("verify", vector(name))
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert (done.stderr.count("\n") == 1) == (status == 2)


def test_a_file_that_cannot_be_opened_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        for command in COMMANDS:
            more = {"recover": ["-o", str(tmp_path / "x")], "extract": [str(tmp_path / "y")]}
            done = run_process(command, str(path), *more.get(command, []))
            assert done.returncode == 2, (command, path)
            assert done.stdout == ""
            assert done.stderr.startswith(f"leakcase: cannot read {path}: ")
            assert done.stderr.count("\n") == 1


def test_usage_is_status_2_and_help_names_every_option() -> None:
    for command in COMMANDS:
        assert run_process(command).returncode == 2
        helped = run_process(command, "--help")
        assert helped.returncode == 0
        assert "--json" in helped.stdout
    assert "--strings" in run_process("show", "--help").stdout
    assert "--force" in run_process("recover", "--help").stdout


def test_a_reader_that_goes_away_is_no_failure() -> None:
    done = subprocess.run(
        f"{sys.executable} -m leakcase_analyzer.cli show --strings {vector('every-kind')} | "
        "head -1; exit ${PIPESTATUS[0]}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_work_in_any_typer_program() -> None:
    app = typer.Typer()
    case_commands.register(app)
    result = CliRunner().invoke(app, ["verify", vector("bit-in-a-body")])
    assert result.exit_code == 3
    assert "damaged, but readable: 3 records in 2 frames" in result.stdout


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_no_vector_brings_a_command_down(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, path: Path
) -> None:
    refused = said(path.stem)["refused"]
    for arguments in (
        ["show", str(path)],
        ["show", str(path), "--json"],
        ["show", str(path), "--strings"],
        ["extract", str(path), str(tmp_path / "folder")],
        ["recover", str(path), "-o", str(tmp_path / "new")],
        ["verify", str(path)],
    ):
        ran = Ran(capsys, *arguments)
        assert "defect" not in ran.err
        assert ran.status in ((1, 2, 3) if refused else (0, 1, 3)), ran.err
        for text in (ran.out, ran.err):
            assert all(line.isprintable() for line in text.replace("\t", "").split("\n"))


# --- show ---------------------------------------------------------------------------------------


def test_show_says_what_when_where_and_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = Ran(capsys, "show", vector("every-kind"))
    assert ran.status == 0
    for text in (
        "case      whole", f"{len(record_kinds())} frames", "<host:1>", "pid 3000009",
        "series.status        3",
        "(errno 6000018)", "5,000,015", "attach: no (default)", "CPU 4 ms",
        "ended     budget",
    ):  # fmt: skip
        assert text in ran.out, text


def test_show_says_that_a_case_is_torn_or_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    torn = Ran(capsys, "show", vector("torn-in-a-body"))
    assert torn.status == 0
    assert "truncated: it ends before its last frame" in torn.out
    assert "cut off" in torn.out
    damaged = Ran(capsys, "show", vector("bit-in-a-body"))
    assert "damaged: 1 problem\n" in damaged.out
    assert "at byte 278: frame 1: its checksum does not match its bytes" in damaged.out


def test_show_counts_gaps_that_repeat(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    gap = Gap(taken_ns=1, probe="regions", reason="no-time")
    case = write_case(tmp_path / "x", *[gap] * 3, Gap(1, "cgroup", "failed"))
    assert "regions              no-time, 3 times" in Ran(capsys, "show", str(case)).out
    gaps = Ran(capsys, "show", str(case), "--json").json()["gaps"]
    assert gaps == [
        {"probe": "regions", "reason": "no-time", "detail": None, "errno": None, "times": 3},
        {"probe": "cgroup", "reason": "failed", "detail": None, "errno": None, "times": 1},
    ]


def test_show_as_json_has_the_facts_and_the_state(capsys: pytest.CaptureFixture[str]) -> None:
    document = Ran(capsys, "show", vector("whole-zlib"), "--json").json()
    assert document["condition"] == "whole"
    assert document["kinds"]["series.status"] == {"records": 2, "samples": 6}
    assert document["kinds"]["gap"] == {"records": 1, "samples": None}
    assert document["watched_seconds"] == pytest.approx(2.000000017)
    assert document["end"] == {"taken_ns": 4_000_000_000, "reason": "duration"}
    assert document["case"] is None


def test_show_keeps_what_it_counts_bounded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gaps = [to_map(Gap(1, "regions", "failed", errno=n)) for n in range(500)]
    document = Ran(capsys, "show", str(write_maps(tmp_path / "x", *gaps)), "--json").json()
    assert len(document["gaps"]) == 200
    assert document["kinds"]["gap"]["records"] == 500


def test_strings_are_unique_sorted_and_say_their_class_and_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    groups = [ThreadGroup(taken_ns=n, name=NameToken("<name:1>"), count=1) for n in range(3)]
    case = write_case(tmp_path / "x", *groups, Gap(1, "regions", "failed"))
    ran = Ran(capsys, "show", str(case), "--strings")
    assert ran.status == 0
    assert ran.out == (
        "name\t<name:1>\tthread_group.name\nword\tfailed\tgap.reason\nword\tregions\tgap.probe\n"
    )
    assert Ran(capsys, "show", str(case), "--strings", "--json").json()[0] == {
        "class": "name", "text": "<name:1>", "where": ["thread_group.name"],
    }  # fmt: skip


def test_no_string_of_a_case_is_missing_from_the_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Against msgpack's own reading of the decompressed case."""
    listed = Ran(capsys, "show", vector("every-kind"), "--strings", "--json").json()
    texts = {item["text"] for item in listed}
    names = {field.name for spec in record_kinds().values() for field in spec.fields}
    with open(vector("every-kind"), "rb") as file:
        contents = [frame.content for frame in FrameScan(file, Problems(), 1 << 20)]
    for raw in (msgpack.unpackb(content) for content in contents):
        assert set(raw) - {"record", "record_version"} <= names
        for key, value in raw.items():
            for text in value if isinstance(value, list) else [value]:
                assert not isinstance(text, str) or key == "record" or text in texts


def test_strings_of_kinds_and_fields_that_came_later_are_listed_and_escaped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gap = to_map(Gap(1, "regions", "failed"))
    case = write_maps(
        tmp_path / "x",
        {**gap, "later": "smuggled\x1b[2J\ttext"},
        {"record": "la\nter", "record_version": 1, "x": ["a", b"\xff"]},
    )
    out = Ran(capsys, "show", str(case), "--strings").out
    assert "unknown\tsmuggled\\x1b[2J\\ttext\tgap.later\n" in out
    assert "unknown\tla\\nter\tla\\nter.record\n" in out
    assert "bytes\tff\tla\\nter.x\n" in out
    assert "\x1b" not in out


def test_strings_say_when_the_list_may_not_be_whole(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Ran(capsys, "show", "--strings", vector("bit-in-a-body"))
    assert ran.status == 3
    assert "strings in them are not listed" in ran.err
    monkeypatch.setattr(case_commands, "MOST_STRING_BYTES", 100)
    many = [{"record": "x", "record_version": 1, "s": f"text {n}"} for n in range(1_000)]
    ran = Ran(capsys, "show", "--strings", str(write_maps(tmp_path / "x", *many)))
    assert ran.status == 3
    assert len(ran.out) < 2_000
    assert "more strings than are listed" in ran.err


# --- verify -------------------------------------------------------------------------------------


def test_verify_names_the_damage_and_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "verify", vector("missing-frame"))
    assert "damaged, but readable: 3 records in 2 frames" in ran.out
    assert "frame 1 is missing" in ran.out
    assert f"leakcase recover {vector('missing-frame')} -o FILE" in ran.out


@pytest.mark.parametrize(
    "name, condition",
    [("whole-zlib", "whole"), ("torn-zstd", "truncated"), ("float", "damaged"),
     ("garbage", "unreadable")],
)  # fmt: skip
def test_verify_as_json_says_the_condition_in_a_word(
    capsys: pytest.CaptureFixture[str], name: str, condition: str
) -> None:
    document = Ran(capsys, "verify", vector(name), "--json").json()
    assert document["condition"] == condition
    assert document["problem_count"] == len(document["problems"])


# --- recover ------------------------------------------------------------------------------------


def test_what_is_intact_becomes_a_whole_private_case(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    new = tmp_path / "new.leakcase"
    ran = Ran(capsys, "recover", vector("bit-in-a-body"), "-o", str(new))
    assert ran.status == 3
    assert ran.out == f"{new}: 3 records\n"
    assert "lost: frames that are damaged or missing: 1" in ran.err
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert Ran(capsys, "verify", str(new)).status == 0


def test_recovering_a_whole_case_loses_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran = Ran(capsys, "recover", vector("unknown-kinds"), "-o", str(tmp_path / "new"), "--json")
    assert ran.status == 0
    assert ran.err == ""
    assert ran.json()["records"] == 3
    assert ran.json()["is_lossy"] is False


def test_where_nothing_is_intact_nothing_is_left_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("garbage", "empty", "prologue-only", "only-header-starts"):
        ran = Ran(capsys, "recover", vector(name), "-o", str(tmp_path / "new"))
        assert ran.status == 1
        assert ran.out == ""
        assert "nothing was written" in ran.err
    assert Ran(capsys, "recover", vector("newer-major"), "-o", str(tmp_path / "new")).status == 2
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_by_force_and_only_by_something(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.write_bytes(b"precious")
    ran = Ran(capsys, "recover", vector("whole-zlib"), "-o", str(new))
    assert ran.status == 2
    assert ran.err == (
        f"leakcase: cannot write {new}: it exists. Replace it with --force, or name another "
        "with -o.\n"
    )
    assert Ran(capsys, "recover", vector("garbage"), "-o", str(new), "--force").status == 1
    assert new.read_bytes() == b"precious"
    assert Ran(capsys, "recover", vector("whole-zlib"), "-o", str(new), "--force").status == 0
    assert Ran(capsys, "verify", str(new)).status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_case_can_be_recovered_over_itself(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case = tmp_path / "x.leakcase"
    case.write_bytes(Path(vector("torn-in-a-body")).read_bytes())
    assert Ran(capsys, "recover", str(case), "-o", str(case), "--force").status == 3
    assert Ran(capsys, "verify", str(case)).status == 0


def test_a_link_is_not_followed_and_a_folder_not_replaced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder", "missing/new"):
        for force in ([], ["--force"]):
            if (name, force) == ("link", ["--force"]):
                continue
            out = str(tmp_path / name)
            ran = Ran(capsys, "recover", vector("whole-zlib"), "-o", out, *force)
            assert ran.status == 2
            assert ran.err.startswith(f"leakcase: cannot write {out}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link"]


# --- extract ------------------------------------------------------------------------------------


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def test_every_kind_becomes_a_file_and_every_sample_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran = Ran(capsys, "extract", vector("whole-zlib"), str(tmp_path / "out"))
    assert ran.status == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "end.jsonl", "gap.jsonl", "series.status.jsonl",
    ]  # fmt: skip
    rows = lines_of(tmp_path / "out" / "series.status.jsonl")
    assert [row["taken_ns"] for row in rows[:3]] == [1_000_000_000, 2_000_000_000, 3_000_000_017]
    assert [row.get("rss_bytes") for row in rows[:3]] == [40_960, None, 45_056]
    assert "rss_bytes" not in rows[1]
    for path in (tmp_path / "out").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_case_gives_a_file_for_each_kind_in_the_registry(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran = Ran(capsys, "extract", vector("every-kind"), str(tmp_path / "out"), "--json")
    assert set(ran.json()["files"]) == {f"{kind}.jsonl" for kind in record_kinds()}
    for spec in record_kinds().values():
        rows = lines_of(tmp_path / "out" / f"{spec.kind}.jsonl")
        assert len(rows) == (3 if spec.is_series else 1)
        assert set(rows[0]) - {"record"} == {field.name for field in spec.fields}


def test_kinds_that_came_later_share_a_file_and_never_name_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case = write_maps(
        tmp_path / "x",
        *({"record": kind, "record_version": 1, "b": b"\x01", "t": "\u202e\x07"}
          for kind in ("evil", "unknown", "a.b")),
    )  # fmt: skip
    assert Ran(capsys, "extract", str(case), str(tmp_path / "out")).status == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["unknown.jsonl"]
    rows = lines_of(tmp_path / "out" / "unknown.jsonl")
    assert rows[0] == {"b": "01", "record": "evil", "record_version": 1, "t": "\u202e\x07"}


def test_a_folder_with_something_in_it_is_refused_and_an_empty_one_taken(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert Ran(capsys, "extract", vector("whole-zlib"), str(out)).status == 0
    ran = Ran(capsys, "extract", vector("whole-zlib"), str(out))
    assert ran.status == 2
    assert ran.err == (
        f"leakcase: cannot extract into {out}: it is not empty. Name another folder.\n"
    )
    (tmp_path / "file").write_text("")
    for place in ("file", "missing/out"):
        ran = Ran(capsys, "extract", vector("whole-zlib"), str(tmp_path / place))
        assert ran.status == 2
        assert ran.err.startswith(f"leakcase: cannot extract into {tmp_path / place}: ")


def test_extracting_says_what_is_left_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = Ran(capsys, "extract", vector("bit-in-a-body"), str(tmp_path / "a"))
    assert (damaged.status, "damaged and were left out" in damaged.err) == (3, True)
    torn = Ran(capsys, "extract", vector("torn-in-a-body"), str(tmp_path / "b"))
    assert (torn.status, "truncated" in torn.err) == (0, True)
    series = StatusSeries(taken_ns=list(range(1, 2_000)), threads=[1] * 1_999)
    case = write_case(tmp_path / "x", series, CaseEnd(1, "duration"))
    with open(case, "rb") as file:
        extracted = case_extract.extract(Reader(file), tmp_path / "c", most_bytes=5_000)
    assert extracted.stopped
    assert sum(path.stat().st_size for path in (tmp_path / "c").iterdir()) <= 5_000


def test_a_disk_that_fills_while_extracting_is_one_sentence(tmp_path: Path) -> None:
    case = write_case(
        tmp_path / "big", StatusSeries(taken_ns=list(range(1, 9_000)), threads=[1] * 8_999)
    )
    done = subprocess.run(
        f"ulimit -f 8; exec {sys.executable} -m leakcase_analyzer.cli extract {case} "
        f"{tmp_path / 'big-out'}",
        shell=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"leakcase: cannot write into {tmp_path / 'big-out'}: file too")
    assert done.stderr.count("\n") == 1
