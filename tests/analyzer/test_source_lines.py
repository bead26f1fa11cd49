"""Source lines of native code: right ones from the file of the same build, none from any other."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from leakcase_analyzer.analysis import Analysis, analyze, judge_evidence
from leakcase_analyzer.cli import main
from leakcase_analyzer.errors import UsageProblem
from leakcase_analyzer.gather import read_evidence
from leakcase_analyzer.report.json_report import as_document
from leakcase_analyzer.report.units import render
from leakcase_analyzer.symbols import debug_files as debug_files_module
from leakcase_analyzer.symbols.debug_files import DebugFile, DebugFiles
from leakcase_analyzer.symbols.elf_file import ElfFacts, elf_facts
from leakcase_analyzer.symbols.source_lines import MOST_ADDRESSES, with_source_lines
from leakcase_analyzer.symbols.symbolizers import (
    Line,
    Lines,
    Symbolizer,
    SymbolizerFailed,
    by_addr2line,
    by_library,
    by_llvm,
    find_symbolizer,
)
from leakcase_analyzer.trace_looks import Frame, LineGap, Stack, Tracing
from tests.analyzer.cases import as_file
from tests.analyzer.trace_cases import traced_leak

RECORDINGS = Path(__file__).parent / "recordings"
CASE = RECORDINGS / "inlined-function.leakcase"
DEBUG_FILE = RECORDINGS / "inlined-function.debug"
BUILD_ID = "cd39ee0b025e40f6cfad12c4dcc9067058d404dc"
SOURCE = (RECORDINGS / "inlined-function.c").read_text(encoding="utf-8").splitlines()
LEAKING_LINE = next(n for n, text in enumerate(SOURCE, 1) if "malloc(sizeof *made)" in text)
CALLING_LINE = next(n for n, text in enumerate(SOURCE, 1) if "= new_record(job)" in text)
NOWHERE = "/nonexistent/debug"

PROGRAM = """
#include <stdlib.h>
void *kept;
static inline __attribute__((always_inline)) void *innermost(int size) { return malloc(size); }
__attribute__((noinline)) void outer(int size)
{
    kept = innermost(size + 1);
}
int main(int argc, char **argv) { (void)argv; outer(argc); return kept == 0; }
"""

each_symbolizer = pytest.mark.parametrize(
    "find", [by_library, by_llvm, by_addr2line], ids=["symbolic", "llvm-symbolizer", "addr2line"]
)
Finder = Callable[[], Symbolizer | None]


def needed(find: Finder) -> Symbolizer:
    found = find()
    if found is None:
        pytest.skip(f"{find.__name__}: it is not installed here")
    return found


def judged(*given: Path, find: Finder = find_symbolizer) -> Analysis:
    """The recorded case, with what is found in the folders given and nowhere else."""
    with CASE.open("rb") as file:
        evidence = read_evidence(file)
    tracing = with_source_lines(evidence.tracing, DebugFiles(given, NOWHERE), find)
    return judge_evidence(replace(evidence, tracing=tracing))


def build(folder: Path, *options: str, name: str = "program") -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.c").write_text(PROGRAM, encoding="utf-8")
    done = [compiler, "-O2", "-g", *options, "-o", name, "program.c"]
    subprocess.run(done, cwd=folder, check=True, timeout=60)
    return folder / name


def facts_of(path: Path) -> ElfFacts:
    facts = elf_facts(path)
    assert facts is not None
    return facts


def address_of(program: Path, symbol: str) -> int:
    nm = subprocess.run(["nm", program], capture_output=True, text=True, check=True, timeout=30)
    return next(int(row.split()[0], 16) for row in nm.stdout.splitlines() if row.endswith(symbol))


# --- a program that was stripped on its host --------------------------------------------------


@each_symbolizer
def test_code_without_a_symbol_on_the_host_is_named_by_function_and_line(find: Finder) -> None:
    needed(find)
    code = judged(RECORDINGS, find=find).code
    assert code is not None
    frames = code.suspects[0].stack.frames
    assert code.suspects[0].frame == frames[0]
    assert [(one.function, one.line, one.inlined) for one in frames[:2]] == [
        ("new_record", LEAKING_LINE, True),
        ("note_job", CALLING_LINE, False),
    ]
    assert frames[0].file == frames[1].file == "/src/inlined/inlined.c"
    assert frames[2].function == "main"


def test_without_the_debug_file_it_is_said_what_would_help() -> None:
    analysis = judged()
    assert analysis.code is not None
    frame = analysis.code.suspects[0].frame
    assert frame is not None and frame.function is None and frame.line is None
    (said,) = [one for one in analysis.not_seen if "lines" in render(one.claim)]
    assert "jobs" in render(said.claim)
    assert BUILD_ID in render(said.because)
    assert not [one for one in judged(RECORDINGS).not_seen if "lines" in render(one.claim)]


def test_a_leaks_actions_say_how_to_give_debug_information(tmp_path: Path) -> None:
    evidence = read_evidence(as_file(traced_leak(), tmp_path))
    stacks = {
        number: Stack(tuple(replace(f, build_id="ab" * 20) for f in stack.frames), stack.end)
        for number, stack in evidence.tracing.stacks.items()
    }
    tracing = replace(evidence.tracing, stacks=stacks, line_gaps={"ab" * 20: "missing"})
    said = [render(one.what) for one in judge_evidence(replace(evidence, tracing=tracing)).actions]
    assert any("--debug-info DIR" in one for one in said)


def test_the_json_names_file_and_line_of_the_suspect_and_of_every_frame() -> None:
    suspect = as_document(judged(RECORDINGS))["suspects"][0]
    assert (suspect["function"], suspect["line"]) == ("new_record", LEAKING_LINE)
    assert suspect["file"] == suspect["frames"][0]["file"] == "/src/inlined/inlined.c"
    assert [one["inlined"] for one in suspect["frames"][:3]] == [True, False, False]
    assert suspect["frames"][1]["line"] == CALLING_LINE


@pytest.mark.parametrize(
    "command",
    [
        ["analyze", str(CASE)],
        ["report", str(CASE), "-o", "-"],
        ["report", str(CASE), "--format", "html", "-o", "-"],
        ["export", str(CASE), "--to", "speedscope", "-o", "-"],
    ],
    ids=["analyze", "markdown", "html", "export"],
)
def test_every_command_that_names_code_takes_the_folder(
    command: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main([*command, "--debug-info", str(RECORDINGS)]) == 0
    out = capfdbinary.readouterr().out.decode()
    assert "new_record" in out
    assert f"inlined.c:{LEAKING_LINE}" in out or f'inlined.c", "line": {LEAKING_LINE}' in out


def test_a_folder_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(CASE), "--debug-info", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("leakcase: --debug-info ")


# --- files are known by their build-id ----------------------------------------------------------


def test_a_file_of_another_build_is_not_used_whatever_its_name(tmp_path: Path) -> None:
    other = build(tmp_path, f"-Wl,--build-id=0x{'ab' * 20}", name="jobs")
    assert facts_of(other).has_lines
    assert DebugFiles([tmp_path], NOWHERE).find({BUILD_ID: ["/<dir:1>/jobs"]}) == {}
    assert DebugFiles([tmp_path], NOWHERE).find({"ab" * 20: []}).keys() == {"ab" * 20}


@pytest.mark.parametrize(
    "place",
    [
        f".build-id/{BUILD_ID[:2]}/{BUILD_ID[2:]}.debug",
        f"{BUILD_ID}/debuginfo",
        "deep/below/under-any-name",
    ],
)
def test_a_debug_file_is_found_where_tools_put_them(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    shutil.copy(DEBUG_FILE, tmp_path / place)
    found = DebugFiles([tmp_path], NOWHERE).find({BUILD_ID: []})
    assert found[BUILD_ID].path == tmp_path / place


def test_installed_debug_information_needs_no_option(tmp_path: Path) -> None:
    place = tmp_path / ".build-id" / BUILD_ID[:2] / f"{BUILD_ID[2:]}.debug"
    place.parent.mkdir(parents=True)
    shutil.copy(DEBUG_FILE, place)
    assert DebugFiles([], str(tmp_path)).find({BUILD_ID: []})[BUILD_ID].path == place


def test_the_binary_with_lines_is_taken_before_the_one_with_symbols_alone(tmp_path: Path) -> None:
    program = build(tmp_path / "b", f"-Wl,--build-id=0x{'cd' * 20}")
    (tmp_path / "a").mkdir()
    bare = tmp_path / "a" / "program"
    subprocess.run(["strip", "--strip-debug", "-o", bare, program], check=True, timeout=30)
    assert facts_of(bare)[1:3] == (False, True)
    files = DebugFiles([tmp_path / "a", tmp_path / "b"], NOWHERE)
    assert files.find({"cd" * 20: []})["cd" * 20].path == program
    assert DebugFiles([bare], NOWHERE).find({"cd" * 20: []})["cd" * 20].path == bare


def test_a_hostile_case_makes_nobody_open_its_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def note(path: Path) -> None:
        asked.append(str(path))

    monkeypatch.setattr(debug_files_module, "elf_facts", note)
    secret = tmp_path / "secret"
    secret.write_text("", encoding="utf-8")
    paths = [
        str(secret), "/usr/../etc/shadow", "/etc/shadow", "/dev/tty", "/proc/self/mem", "usr/lib/x",
        "/usr/lib/..", "/usr/./lib", "/usr/lib/<file:1>", "//server/share", "/usr", "/usr/lib/a.so",
    ]  # fmt: skip
    DebugFiles().find({BUILD_ID: paths, "../../../etc/passwd": [], "aa/../../x": [], "": []})
    assert [path for path in asked if not path.startswith("/usr/lib/debug/")] == ["/usr/lib/a.so"]
    assert all(BUILD_ID[2:] in path for path in asked[:-1])


# --- what an ELF file says ----------------------------------------------------------------------


def test_a_damaged_or_foreign_file_is_none_and_nothing_waits_for_it(tmp_path: Path) -> None:
    whole = DEBUG_FILE.read_bytes()
    file = tmp_path / "file"
    for size in range(0, len(whole), 97):
        file.write_bytes(whole[:size])
        assert size >= 64 or elf_facts(file) is None
    draw = random.Random(11)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(8):
            at = draw.choice([draw.randrange(64), draw.randrange(len(whole))])
            damaged[at] = draw.randrange(256)
        file.write_bytes(damaged)
        elf_facts(file)
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero"), tmp_path / "none", CASE):
        assert elf_facts(path) is None


# --- what tells the lines -------------------------------------------------------------------------


@each_symbolizer
@pytest.mark.parametrize("layout", ["-pie", "-no-pie"])
def test_addresses_count_as_the_symbol_table_does(
    tmp_path: Path, find: Finder, layout: str
) -> None:
    symbolizer = needed(find)
    options = ("-fPIE", "-pie") if layout == "-pie" else ("-fno-PIE", "-no-pie")
    program = build(tmp_path, *options, "-Wl,--build-id=sha1")
    at = address_of(program, " T outer")
    told = symbolizer(DebugFile(program, facts_of(program)), range(at, at + 24))
    called = [tuple(one.function for one in told[address]) for address in range(at, at + 24)]
    assert ("innermost", "outer") in called
    inner, outer = next(told[a] for a in range(at, at + 24) if len(told[a]) == 2)
    assert (inner.line, outer.line) == (4, 7)
    assert inner.file == str(tmp_path / "program.c")


def resolved(frames: Sequence[Frame], lines: Lines) -> Tracing:
    """One stack of a module whose file tells these lines."""
    with CASE.open("rb") as file:
        tracing = read_evidence(file).tracing
    number = max(tracing.stacks)
    tracing = replace(tracing, stacks={number: Stack(tuple(frames))})
    files = DebugFiles([RECORDINGS], NOWHERE)
    return with_source_lines(tracing, files, lambda: lambda _file, _addresses: lines)


def test_the_call_is_asked_for_and_not_what_it_returns_to() -> None:
    frame = Frame("native", "/<dir:1>/jobs", "outer", "outer", 5, 0x1005, build_id=BUILD_ID)
    told: Lines = {0x1004: [Line("outer", "a.c", 7)], 0x1005: [Line("outer", "a.c", 8)]}
    (stack,) = resolved([frame], told).stacks.values()
    assert stack.frames[0].line == 7
    (stack,) = resolved([replace(frame, function_offset=0)], told).stacks.values()
    assert stack.frames[0].line == 8


def test_the_hosts_name_stays_and_symbols_are_told_readably() -> None:
    frame = Frame("native", "/<dir:1>/jobs", "host_name", "host_name", 5, 0x1005, build_id=BUILD_ID)
    told: Lines = {0x1004: [Line("_ZN4jobs4openEi", "a.cc", 3), Line("_ZN3one3twoEv", "a.cc", 7)]}
    (stack,) = resolved([frame], told).stacks.values()
    assert [one.function for one in stack.frames] == ["jobs::open", "host_name"]
    (stack,) = resolved([replace(frame, function=None, symbol=None)], told).stacks.values()
    assert [one.function for one in stack.frames] == ["jobs::open", "one::two"]


def test_code_that_is_not_native_or_of_no_known_build_stays_as_it_is() -> None:
    frames = [
        Frame("python", None, "f", None, None, 0x1005, "a.py", 3, BUILD_ID),
        Frame("jit", None, None, address=0x1005),
        Frame("native", "/<dir:1>/jobs", "g", "g", 5, 0x1005),
    ]
    (stack,) = resolved(frames, {0x1004: [Line("h", "h.c", 1)]}).stacks.values()
    assert list(stack.frames) == frames


def test_no_more_than_a_bounded_number_of_addresses_is_asked_for() -> None:
    asked: list[int] = []

    def note(_file: DebugFile, addresses: Sequence[int]) -> Lines:
        asked.extend(addresses)
        return {}

    with CASE.open("rb") as file:
        tracing = read_evidence(file).tracing
    frame = Frame("native", "/<dir:1>/jobs", build_id=BUILD_ID)
    many = tuple(replace(frame, address=at) for at in range(1, 3 * MOST_ADDRESSES))
    tracing = replace(tracing, stacks=dict.fromkeys(tracing.stacks, Stack(many)))
    with_source_lines(tracing, DebugFiles([RECORDINGS], NOWHERE), lambda: note)
    assert len(asked) == len(set(asked)) == MOST_ADDRESSES


def test_a_reader_that_fails_or_is_not_there_is_told() -> None:
    def fails(_file: DebugFile, _addresses: Sequence[int]) -> Lines:
        raise SymbolizerFailed

    found: dict[LineGap, Finder] = {"failed": lambda: fails, "no-symbolizer": lambda: None}
    for gap, find in found.items():
        analysis = judged(RECORDINGS, find=find)
        assert analysis.evidence.tracing.line_gaps is not None
        assert analysis.evidence.tracing.line_gaps[BUILD_ID] == gap
        assert [one for one in analysis.not_seen if "lines" in render(one.claim)]


@each_symbolizer
def test_a_file_that_is_no_debug_file_is_a_failure_and_not_a_traceback(
    tmp_path: Path, find: Finder
) -> None:
    symbolizer = needed(find)
    file = tmp_path / "file"
    file.write_bytes(DEBUG_FILE.read_bytes()[:700])
    try:
        told = symbolizer(DebugFile(file, ElfFacts(BUILD_ID, True, True, 0)), [0x11DC])
    except SymbolizerFailed:
        return
    assert not any(one.line for lines in told.values() for one in lines)


def test_symbols_without_lines_name_functions_all_the_same(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    done = ["objcopy", "--strip-debug", str(DEBUG_FILE), str(bare)]
    subprocess.run(done, check=True, timeout=30)
    code = judged(bare).code
    assert code is not None
    assert [one.function for one in code.suspects[0].stack.frames[:2]] == ["note_job", "main"]
    assert code.suspects[0].stack.frames[0].line is None


def test_analyzing_without_asking_for_lines_runs_nothing_and_says_nothing_of_them() -> None:
    with CASE.open("rb") as file:
        analysis = analyze(file)
    assert analysis.evidence.tracing.line_gaps is None
    assert not [one for one in analysis.not_seen if "lines" in render(one.claim)]


def test_a_path_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(UsageProblem):
        DebugFiles([Path("a\0b")])
