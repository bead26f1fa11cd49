"""The wheels and the zipapp hold what they should, and are equal when their sources are."""

from __future__ import annotations

import email
import importlib.util
import os
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

from PyInstaller.archive.readers import CArchiveReader

from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.files import TargetFile
from tests.architecture.sources import sources
from tests.packaging import built


def names_in(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = [n for n in opened.namelist() if n.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(opened.read(name))


#: The kernel's side of tracing, for each machine.
PROGRAMS = {f"leakcase_collector/_bpf/alloc-{name}.o" for name in ("x86_64", "aarch64")}


def modules_of(*packages: str) -> set[str]:
    """The paths that the modules of our packages have in an archive."""
    found = set()
    for package in packages:
        for source in sources(package):
            parts = source.path.parts
            found.add("/".join(parts[parts.index(package, len(built.ROOT.parts)) :]))
    return found


def python_files(archive: Path, *but: str) -> set[str]:
    return {n for n in names_in(archive) if n.endswith(".py") and not n.startswith(but)}


def test_the_lean_wheel_holds_the_collector_and_the_format_and_nothing_else() -> None:
    wheel = built.lean_wheel()
    assert python_files(wheel) == modules_of("leakcase_bundle", "leakcase_collector")
    names = names_in(wheel)
    assert any(n.endswith("share/man/man1/leakcase-collect.1") for n in names)
    assert not any("__pycache__" in n for n in names)
    assert {n for n in names if n.endswith(".so")} == {"leakcase_collector/_native/libleakcase.so"}


def test_the_programs_for_the_kernel_are_in_all_that_is_shipped() -> None:
    for archive in (built.lean_wheel(), built.full_wheel(), built.pyz()):
        assert names_in(archive) >= PROGRAMS, archive
    assert set(CArchiveReader(str(built.elf())).toc) >= PROGRAMS


def test_the_native_part_fits_any_python_of_the_platform(tmp_path: Path) -> None:
    wheel = built.lean_wheel()
    assert "-py3-none-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as opened:
        library = Path(opened.extract("leakcase_collector/_native/libleakcase.so", tmp_path))
    with library.open("rb") as file:
        elf = ElfFile(TargetFile(os.dup(file.fileno()), str(library), "/proc"))
        assert elf.needed == ()


def test_without_a_compiler_the_wheel_is_pure_python(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path]
    environment = {**os.environ, "CC": "/nowhere/cc"}
    subprocess.run(
        [*command, "collector"], cwd=built.ROOT, env=environment, timeout=120, check=True,
        capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in names_in(wheel))


def test_the_lean_wheel_asks_for_an_old_python_and_two_libraries() -> None:
    said = metadata(built.lean_wheel())
    assert said["Name"] == "leakcase-collector"
    assert said["Requires-Python"] == ">=3.9"
    needed = sorted(str(line).split(">")[0] for line in said.get_all("Requires-Dist") or [])
    assert needed == ["msgpack", "zstandard"]


def test_the_full_wheel_gives_both_commands_and_their_man_pages() -> None:
    wheel = built.full_wheel()
    assert modules_of("leakcase_bundle", "leakcase_collector", "leakcase_analyzer") <= names_in(
        wheel
    )
    with zipfile.ZipFile(wheel) as opened:
        (name,) = [n for n in opened.namelist() if n.endswith("entry_points.txt")]
        scripts = opened.read(name).decode()
        pages = {n.rsplit("/", 1)[-1] for n in opened.namelist() if "/share/man/man1/" in n}
    assert "leakcase = leakcase_analyzer.cli:main" in scripts
    assert "leakcase-collect = leakcase_collector.cli:main" in scripts
    assert pages == {"leakcase.1", "leakcase-collect.1"}


def test_both_wheels_have_the_version_that_the_collector_says() -> None:
    from leakcase_collector import __version__

    assert metadata(built.lean_wheel())["Version"] == __version__
    assert metadata(built.full_wheel())["Version"] == __version__


def test_the_zipapp_holds_ours_and_the_pure_half_of_msgpack() -> None:
    archive = built.pyz()
    ours = modules_of("leakcase_bundle", "leakcase_collector")
    assert python_files(archive, "msgpack/") == {"__main__.py"} | ours
    assert "msgpack/fallback.py" in names_in(archive)
    assert {"LICENSE", "msgpack/COPYING"} <= names_in(archive)
    assert not any(name.endswith((".so", ".pyc")) for name in names_in(archive))


def test_the_zipapp_runs_as_a_program(tmp_path: Path) -> None:
    archive = built.pyz()
    assert os.access(archive, os.X_OK)
    assert archive.read_bytes().startswith(b"#!/usr/bin/env python3\n")


def test_an_interpreter_that_is_too_old_is_told_so_in_a_sentence() -> None:
    with zipfile.ZipFile(built.pyz()) as opened:
        main = opened.read("__main__.py").decode()
    code = f"import sys\nsys.version_info = (3, 6, 9)\n{main}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith("leakcase-collect: this file needs Python 3.9 or newer")
    assert len(done.stderr.splitlines()) == 1


def test_the_zipapp_is_the_same_bytes_when_built_again(tmp_path: Path) -> None:
    again = tmp_path / "again.pyz"
    built.run([sys.executable, "packaging/pyz.py", str(again)], timeout=60)
    assert again.read_bytes() == built.pyz().read_bytes()


def test_the_lean_wheel_is_the_same_bytes_when_built_again(tmp_path: Path) -> None:
    assert built.build_wheel("collector", tmp_path).read_bytes() == built.lean_wheel().read_bytes()


def test_the_elf_leaves_out_nothing_that_the_collector_imports() -> None:
    spec = importlib.util.spec_from_file_location("elf_build", built.ROOT / "packaging" / "elf.py")
    assert spec is not None
    assert spec.loader is not None
    elf_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(elf_build)
    imported = {
        ".".join(found.module.split(".")[:depth])
        for package in ("leakcase_bundle", "leakcase_collector")
        for source in sources(package)
        for found in source.imports()
        for depth in (1, 2)
    }
    assert "select" in imported
    assert imported & set(elf_build.UNNEEDED) == set()
