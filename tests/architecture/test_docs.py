"""What the documents say exists, and what exists is in the documents."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import typer.main

from leakcase_analyzer.cli import app
from leakcase_collector.cli import build_parser
from leakcase_collector.consent import LEVELS
from tests.architecture.sources import ROOT

MAN = {name: ROOT / "man" / f"{name}.1" for name in ("leakcase", "leakcase-collect")}
PAGES = sorted(ROOT.glob("*.md"))
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def collector_words() -> Iterator[tuple[str, str]]:
    """(command, option or the command itself) of ``leakcase-collect``."""
    parser = build_parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    yield from (("", option) for action in parser._actions for option in action.option_strings)
    for name, command in commands.choices.items():
        yield name, name
        for action in command._actions:
            yield from ((name, option) for option in action.option_strings)


def analyzer_words() -> Iterator[tuple[str, str]]:
    """(command, option or the command itself) of ``leakcase``."""
    group = typer.main.get_command(app)
    yield from (("", option) for parameter in group.params for option in parameter.opts)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        yield name, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                yield from ((name, option) for option in parameter.opts)
    yield "", "--help"


WORDS = {"leakcase": set(analyzer_words()), "leakcase-collect": set(collector_words())}
OPTIONS = {name: {w for _, w in words if w.startswith("-")} for name, words in WORDS.items()}


def manual_words(name: str) -> set[str]:
    """What the man page's source (mdoc(7)) marks as a command or an option, as it is typed."""
    words = set()
    for line in MAN[name].read_text(encoding="utf-8").splitlines():
        marked = ""
        for token in line.removeprefix(".").split() if line.startswith(".") else ():
            if re.fullmatch(r"[A-Z][a-z]", token):
                marked = token
            elif marked == "Fl" and re.fullmatch(r"-?[a-z][a-z-]*", token):
                words.add(f"-{token}")
            elif marked == "Cm":
                words.add(token)
    return words


@pytest.mark.parametrize("program", WORDS)
def test_the_man_page_names_every_command_and_option(program: str) -> None:
    assert {word for _, word in WORDS[program]} - manual_words(program) == set()


@pytest.mark.parametrize("program", WORDS)
def test_the_readme_names_every_command(program: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command, word in WORDS[program]:
        if word == command:
            assert re.search(rf"{program} [^\n]*\b{command}\b|`{command}\b", readme), command


@pytest.mark.parametrize("program", WORDS)
def test_the_man_page_names_no_option_that_is_not_there(program: str) -> None:
    said = {word for word in manual_words(program) if re.match(r"--?[a-z]", word)}
    assert said - OPTIONS[program] == set()


def test_the_pages_name_no_option_that_is_not_there() -> None:
    known = set().union(*OPTIONS.values())
    for page in PAGES:
        for command in re.findall(r"leakcase(?:-collect)? [^`\n]*", page.read_text("utf-8")):
            for option in OPTION.findall(command):
                assert option in known, (page.name, command)


@pytest.mark.parametrize("level", LEVELS)
def test_the_man_page_explains_every_level(level: str) -> None:
    assert f".It Cm {level}\n" in MAN["leakcase-collect"].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MAN)
@pytest.mark.parametrize("section", ["EXIT STATUS", "FILES", "SECURITY AND PRIVACY", "EXAMPLES"])
def test_a_man_page_has_what_its_reader_looks_for(name: str, section: str) -> None:
    assert f".Sh {section}\n" in MAN[name].read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="there is no mandoc here")
@pytest.mark.parametrize("name", MAN)
def test_a_man_page_is_well_formed(name: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(MAN[name])],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_something_that_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_is_asked_only_for_what_it_can_make(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    asked = re.findall(r"^    make ([a-z]+)\b|`make ([a-z]+)\b", text, re.MULTILINE)
    assert {a or b for a, b in asked} <= targets


@pytest.mark.parametrize("page", [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"])
def test_files_that_a_page_names_are_there(page: Path) -> None:
    rooms = {
        "collector/…": "collector/leakcase_collector",
        "analyzer/…": "analyzer/leakcase_analyzer",
    }
    for name in re.findall(
        r"`([\w…./-]+/[\w…./-]*\.(?:py|md|toml|json))`", page.read_text("utf-8")
    ):
        for short, long in rooms.items():
            name = name.replace(short, long)
        if "NAME" in name:
            continue
        places = [ROOT / name, *ROOT.glob(f"*/leakcase_*/{name}")]
        assert any(place.exists() for place in places), name
