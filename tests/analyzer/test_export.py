"""Traced stacks as other tools read them, also where their names are hostile."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from leakcase_analyzer.analysis import analyze
from leakcase_analyzer.cli import main
from leakcase_analyzer.export.flame_tree import MOST_DEPTH, flame_tree
from leakcase_analyzer.export.weighted import Weighted
from leakcase_analyzer.export_command import FORMATS, exported
from leakcase_analyzer.trace_looks import Frame
from tests.analyzer.cases import Capture, as_file
from tests.analyzer.hostile import HOSTILE_NAMES, with_hostile_names
from tests.analyzer.trace_cases import CHURN, LEAK, Source, Traced, growing, traced_leak

SVG = "{http://www.w3.org/2000/svg}"
OTHER = Source(("grow", "handle", "main"), each_window=20, size=400)


def export(case: Capture, to: str, folder: Path) -> bytes:
    return exported(analyze(as_file(case, folder)), to)


def case_file(case: Capture, folder: Path) -> str:
    return str(case.write(folder / "case.leakcase"))


@pytest.fixture
def hostile() -> Capture:
    return with_hostile_names(HOSTILE_NAMES)


# --- folded and speedscope ------------------------------------------------------------------------


def test_folded_stacks_go_from_the_outside_in_with_the_bytes_that_stayed(tmp_path: Path) -> None:
    text = export(traced_leak(OTHER), "folded", tmp_path).decode()
    assert text.splitlines() == [
        "__libc_start_main;__libc_start_call_main;main;handle;leak_session 144000",
        "main;handle;grow 64000",
    ]


def test_a_name_cannot_break_a_folded_stack(hostile: Capture, tmp_path: Path) -> None:
    lines = export(hostile, "folded", tmp_path).decode().splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r".* [0-9]+", line)
        assert 1 <= line.count(";") + 1 <= 5


def test_speedscope_gets_what_stayed_and_what_was_allocated(tmp_path: Path) -> None:
    document = json.loads(export(traced_leak(OTHER), "speedscope", tmp_path))
    stayed, made = document["profiles"]
    names = [frame["name"] for frame in document["shared"]["frames"]]
    assert {profile["unit"] for profile in (stayed, made)} == {"bytes"}
    assert sum(stayed["weights"]) == stayed["endValue"] == 144_000 + 64_000
    assert [names[i] for i in stayed["samples"][0]][-1] == "leak_session"
    assert sum(made["weights"]) == 8 * 100 * (180 + 6000) + 64_000
    assert len(stayed["samples"]) == len(stayed["weights"]) == 2
    assert all(0 <= i < len(names) for sample in made["samples"] for i in sample)


# --- pprof ----------------------------------------------------------------------------------------


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer, read as its specification says."""

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    at = 0
    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            assert key & 7 == 2
            length = varint()
            yield key >> 3, message[at : at + length]
            at += length


def test_a_profile_for_pprof_refers_to_nothing_that_it_does_not_hold(
    hostile: Capture, tmp_path: Path
) -> None:
    profile = list(fields(gzip.decompress(export(hostile, "pprof", tmp_path))))
    strings = [text for number, text in profile if number == 6]
    assert strings[0] == b""
    held = {
        kind: {dict(fields(raw))[1] for number, raw in profile if number == kind}  # type: ignore[arg-type]
        for kind in (3, 4, 5)
    }
    for number, raw in profile:
        if number == 4:
            assert isinstance(raw, bytes)
            place = dict(fields(raw))
            assert place.get(2, 0) in held[3] | {0}
            line = place[4]
            assert isinstance(line, bytes)
            assert dict(fields(line))[1] in held[5]
        elif number == 5:
            assert isinstance(raw, bytes)
            assert all(n < len(strings) for field, n in fields(raw) if field > 1)  # type: ignore[operator]


def test_the_same_case_makes_the_same_profile(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first = export(traced_leak(), "pprof", tmp_path)
    assert export(traced_leak(), "pprof", tmp_path / "again") == first


@pytest.mark.skipif(shutil.which("go") is None, reason="there is no go, whose pprof is asked")
def test_pprof_itself_reads_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "heap.pb.gz"
    path.write_bytes(export(traced_leak(OTHER), "pprof", tmp_path))
    done = subprocess.run(
        ["go", "tool", "pprof", "-unit=b", "-top", str(path)],
        capture_output=True, text=True, timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GOCACHE": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"144000B\s+69\.23%.*leak_session", done.stdout), done.stdout


# --- the flame graph ------------------------------------------------------------------------------


def boxes(svg: bytes) -> list[tuple[str, float]]:
    """Every frame's words and width."""
    found = []
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None and box is not None
        found.append((title.text or "", float(box.get("width", "0"))))
    return found


def test_a_flame_graph_has_a_box_for_each_frame_as_wide_as_what_stayed(tmp_path: Path) -> None:
    found = dict(boxes(export(traced_leak(OTHER), "svg", tmp_path)))
    whole = found["all that stayed: 203 KiB in 1,600 blocks, 100 %"]
    leak = found["leak_session (worker): 141 KiB in 1,440 blocks, 69 %"]
    assert leak / whole == pytest.approx(144 / 208, abs=0.01)
    assert len(found) == 1 + 5 + 3


def test_a_flame_graph_of_hostile_names_is_a_picture_and_nothing_else(
    hostile: Capture, tmp_path: Path
) -> None:
    svg = export(hostile, "svg", tmp_path)
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(svg).iter()}
    assert tags <= {"svg", "title", "rect", "text", "g"}
    attributes = {name for one in ElementTree.fromstring(svg).iter() for name in one.attrib}
    assert not {name for name in attributes if name.startswith("on") or "href" in name}
    assert any("script" in words for words, _ in boxes(svg))


def test_a_stack_of_any_depth_makes_a_picture_of_bounded_height() -> None:
    frames = tuple(Frame("native", "/usr/bin/worker", f"f{i}") for i in range(5000))
    assert flame_tree([Weighted(frames, 1, 1, 1, 1)]).depth == MOST_DEPTH


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_is_written_and_an_existing_file_is_kept(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = case_file(traced_leak(), tmp_path), tmp_path / "out"
    assert main(["export", case, "--to", to, "-o", str(out)]) == 0
    content = out.read_bytes()
    assert content
    assert main(["export", case, "--to", to, "-o", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["export", case, "--to", to, "-o", str(out), "--force"]) == 0
    assert out.read_bytes() == content


def test_a_case_without_tracing_is_refused_with_the_way_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = case_file(Capture(seconds=20), tmp_path)
    assert main(["export", case, "--to", "svg", "-o", str(tmp_path / "out")]) == 2
    assert "--trace bursts --allow read-memory,trace" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_was_not_freed_while_all_was_traced_can_be_exported_too(tmp_path: Path) -> None:
    case = Traced(growing(), [LEAK, CHURN]).all_traced(10, 60)
    assert export(case, "folded", tmp_path).decode().splitlines()[1].endswith("leak_session 18000")
