"""The command line: what is printed where, which exit status, and one sentence for each failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leakcase_analyzer.cli import main
from leakcase_bundle import FORMAT_MAJOR
from tests.analyzer.cases import MIB, Capture, heap_leak

LEAKCASE = [sys.executable, "-m", "leakcase_analyzer.cli"]


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    return heap_leak().write(tmp_path / "leaking.leakcase")


@pytest.fixture
def steady(tmp_path: Path) -> Path:
    return Capture().write(tmp_path / "steady.leakcase")


def run(*arguments: str | Path, **options: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_COLOR")} | options
    return subprocess.run(
        [*LEAKCASE, *map(str, arguments)], capture_output=True, text=True, timeout=60,
        env=environment, check=False,
    )  # fmt: skip


def one_sentence(text: str) -> str:
    assert text.startswith("leakcase: ")
    assert text.endswith(".\n") and text.count("\n") == 1
    return text


def test_analyze_answers_on_stdout_and_ends_with_0(
    leaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(leaking)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Leak: heap memory grows")
    assert err == ""


def test_analyze_prints_json_when_asked(leaking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(leaking), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["kind"] == "heap"


def test_fail_on_ends_with_1_for_the_statuses_named_and_with_0_for_others(
    leaking: Path, steady: Path
) -> None:
    assert main(["analyze", str(leaking), "--fail-on", "leak"]) == 1
    assert main(["analyze", str(leaking), "--fail-on", "retention, leak"]) == 1
    assert main(["analyze", str(leaking), "--fail-on", "stable,bounded"]) == 0
    assert main(["analyze", str(steady), "--fail-on", "leak"]) == 0
    assert main(["analyze", str(steady), "--fail-on", "stable"]) == 1


def test_a_status_that_there_is_not_is_a_usage_error(
    leaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(leaking), "--fail-on", "leek"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "leek" in one_sentence(err)


def test_a_file_that_is_no_case_gets_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "no such file": tmp_path / "nothing",
        "directory": tmp_path,
        "not a regular file": Path("/dev/null"),
        "not a leakcase file": Path(__file__),
        "shorter than": tmp_path / "empty",
    }
    cases["shorter than"].touch()
    for words, path in cases.items():
        for command in ("analyze", "report"):
            assert main([command, str(path)]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert words in one_sentence(err) and str(path) in err


def test_a_fifo_does_not_make_it_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["analyze", str(tmp_path / "pipe")]) == 2
    assert "not a regular file" in one_sentence(capsys.readouterr().err)


def test_a_newer_major_format_says_update(
    leaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(leaking.read_bytes())
    raw[16:18] = (FORMAT_MAJOR + 1).to_bytes(2, "little")
    leaking.write_bytes(raw)
    assert main(["analyze", str(leaking)]) == 2
    assert "update leakcase" in one_sentence(capsys.readouterr().err)


def test_a_case_cut_at_any_byte_after_its_first_is_answered(
    leaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = leaking.read_bytes()
    for length in range(24, len(raw), max(1, len(raw) // 25)):
        leaking.write_bytes(raw[:length])
        assert main(["analyze", str(leaking), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["capture"]["truncated"] is True
        assert any("cut off" in one["because"] for one in found["not_seen"])


def test_a_case_that_cannot_be_opened_for_want_of_rights(
    leaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() == 0:
        # Root may read all: a path through a file is refused to root as well.
        path = leaking / "below"
    else:
        leaking.chmod(0)
        path = leaking
    assert main(["analyze", str(path)]) == 2
    one_sentence(capsys.readouterr().err)


# --- report -------------------------------------------------------------------------------------


def test_report_writes_a_file_named_after_process_and_date_and_says_so(
    leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(leaking)]) == 0
    made = tmp_path / "memleak-report-name-1-2026-03-01.md"
    assert capsys.readouterr().out == f"{made.name}\n"
    assert made.read_text(encoding="utf-8").startswith("# Memory of `<name:1>`")


def test_report_never_overwrites_without_force(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.md"
    mine.write_text("mine")
    assert main(["report", str(leaking), "-o", str(mine)]) == 2
    assert "--force" in one_sentence(capsys.readouterr().err)
    assert mine.read_text() == "mine"
    assert main(["report", str(leaking), "-o", str(mine), "--force"]) == 0
    assert mine.read_text().startswith("# Memory of")


def test_report_writes_through_no_link_even_with_force(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    link = tmp_path / "report.md"
    link.symlink_to(precious)
    assert main(["report", str(leaking), "-o", str(link), "--force"]) == 2
    one_sentence(capsys.readouterr().err)
    assert precious.read_text() == "mine"


def test_report_to_a_folder_that_is_not_there_is_one_sentence(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(leaking), "-o", str(tmp_path / "no" / "x.md")]) == 2
    assert "no such file" in one_sentence(capsys.readouterr().err)


def test_report_prints_to_stdout_when_asked_and_as_json(
    leaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(leaking), "--format", "json", "-o", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "leakcase-analysis/1"
    assert main(["report", str(leaking), "-o", "-"]) == 0
    assert capsys.readouterr().out.startswith("# Memory of")


def test_a_format_that_there_is_not_is_a_usage_error(
    leaking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(leaking), "--format", "pdf"]) == 2
    assert "pdf" in one_sentence(capsys.readouterr().err)


# --- around -------------------------------------------------------------------------------------


def test_unknown_commands_and_missing_arguments_are_usage_errors(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["guess"]) == 2
    assert main(["analyze"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("analyze", "report", "investigate", "show", "verify", "recover", "extract"):
        assert main([command, "--help"]) == 0
        assert "Usage:" in capsys.readouterr().out


def test_version_is_printed() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("leakcase ")


def test_help_comes_at_once() -> None:
    """The best of three: other work on the machine is not the program's fault."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        assert run("--help").returncode == 0
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.3


def test_help_needs_no_numbers() -> None:
    """numpy and jinja2 cost more than all the rest of a start."""
    code = (
        "import sys; from leakcase_analyzer.cli import main; main(['--help']);"
        "print([m for m in ('numpy', 'scipy', 'jinja2', 'msgpack', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.rstrip().endswith("[]")


def test_a_reader_that_goes_away_is_no_failure(leaking: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*LEAKCASE, "analyze", str(leaking)], stdout=write, stderr=subprocess.PIPE, timeout=60,
        check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_output_is_one_sentence(leaking: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*LEAKCASE, "analyze", str(leaking)], stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "no space left" in one_sentence(done.stderr)


def test_no_color_beats_force_color_which_beats_a_pipe(leaking: Path) -> None:
    assert "\x1b" not in run("analyze", leaking).stdout
    assert "\x1b" in run("analyze", leaking, FORCE_COLOR="1").stdout
    assert "\x1b" not in run("analyze", leaking, FORCE_COLOR="1", NO_COLOR="1").stdout


def test_a_terminal_without_unicode_gets_ascii(leaking: Path) -> None:
    done = run("analyze", leaking, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()


def test_a_defect_is_told_in_one_sentence_and_no_traceback(
    leaking: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("leakcase_analyzer.analysis.split", broken)
    assert main(["analyze", str(leaking)]) == 2
    assert "ZeroDivisionError" in one_sentence(capsys.readouterr().err)


def test_a_day_of_samples_is_analyzed_within_its_budget(tmp_path: Path) -> None:
    """Under 4 s and 250 MB. CPU time, because other work on the machine is not the program's."""
    case = Capture(seconds=86_400)
    case.anonymous_bytes = case.leak(50 * MIB, 1_009)
    path = case.write(tmp_path / "day.leakcase")
    code = (
        "import sys, time; from leakcase_analyzer.cli import main;"
        "started = time.process_time(); status = main(['analyze', sys.argv[1], '--json']);"
        # Not ru_maxrss: that begins with the peak of whoever ran exec, here the tests' own.
        "peak = open('/proc/self/status').read().partition('VmHWM:')[2].split()[0];"
        "print(status, time.process_time() - started, int(peak) / 1024, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    status, seconds, peak_mib = done.stderr.split()
    assert status == "0"
    assert float(seconds) < 4
    assert float(peak_mib) < 238
    answer = json.loads(done.stdout)
    assert answer["verdict"]["status"] == "leak"
    assert answer["verdict"]["rate_bytes_per_hour"] == pytest.approx(1_009 * 3600, rel=0.05)


def test_investigate_captures_and_answers_in_one_go(tmp_path: Path) -> None:
    case = tmp_path / "mine.leakcase"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as target:
        try:
            done = run(
                "investigate", str(target.pid), "--duration", "2s", "--interval", "100ms",
                "-o", case, "--json",
            )  # fmt: skip
        finally:
            target.kill()
    assert done.returncode in (0, 3), done.stderr
    answer = json.loads(done.stdout)
    assert answer["target"]["pid"] == target.pid
    assert answer["verdict"]["status"] in ("stable", "undecided", "bounded")
    assert str(case) in done.stderr
    assert case.is_file()


def test_investigate_of_nothing_ends_as_the_capture_does(tmp_path: Path) -> None:
    done = run("investigate", "999999999", "-o", tmp_path / "x.leakcase")
    assert done.returncode == 4
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_the_list_of_commands_breaks_no_sentence_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "..." not in capsys.readouterr().out.split("Commands:")[1]
