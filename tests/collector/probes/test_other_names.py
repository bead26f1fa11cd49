"""The name that people know a program by is kept only where the file system knows it as well."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakcase_collector.probes.identity import full_name, other_names
from leakcase_collector.system.door import System


@pytest.fixture
def program(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A running copy of sleep, in whose folder a link to it lies."""
    copy = tmp_path / "real-name"
    shutil.copy("/bin/sleep", copy)
    (tmp_path / "known-name").symlink_to(copy)
    (tmp_path / "other-file").write_text("")
    process = subprocess.Popen([str(copy), "60"])
    yield process.pid, copy
    process.kill()
    process.wait()


def test_a_link_to_the_program_is_one_of_its_names(program: tuple[int, Path]) -> None:
    pid, path = program
    names = other_names(System(), pid, str(path), "known-name", ["known-name *:6379", "x"])
    assert names == ["known-name"]


@pytest.mark.parametrize("made_up", ["S3CR3T", "other-file", "../bin/sleep", "", "..", "a/b"])
def test_a_title_that_names_no_link_to_the_program_is_none(
    program: tuple[int, Path], made_up: str
) -> None:
    pid, path = program
    assert other_names(System(), pid, str(path), made_up, [made_up]) == []


def test_a_program_that_cannot_be_compared_has_no_other_names() -> None:
    assert other_names(System(), os.getpid(), "/nowhere/x", "y", []) == []


@pytest.mark.parametrize(
    ("comm", "program", "name"),
    [
        ("small-block-lea", "/opt/small-block-leak", "small-block-leak"),
        ("small-block-lea", "/opt/small-block-leak (deleted)", "small-block-leak"),
        ("renamed", "/opt/small-block-leak", "renamed"),
        ("small-block-lea", None, "small-block-lea"),
    ],
)
def test_a_name_that_the_kernel_cut_is_given_in_full(
    comm: str, program: str | None, name: str
) -> None:
    assert full_name(comm, program) == name
