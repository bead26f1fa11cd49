"""Which runtimes a process hosts, on the interpreters of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from leakcase_collector.system.door import System
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.runtime import Runtime, java_version, runtime_of
from tests.collector.system.elf_builder import BytesReader, TinyElf

SYSTEM = System()
PHP = TinyElf(defined=("php_module_startup",))


def of_file(path: str, is_program: bool = True) -> Runtime | None:
    path = os.path.realpath(path)
    with SYSTEM.open_target_file(os.getpid(), path) as file:
        return runtime_of(ElfFile(file), path, is_program)


def of_tiny(tiny: TinyElf, path: str, is_program: bool = True) -> Runtime | None:
    return runtime_of(ElfFile(BytesReader(tiny.build())), path, is_program)


def reported(*command: str) -> str:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    match = re.search(r"\d+\.\d+\.\d+", result.stdout.decode())
    assert match is not None
    return match.group()


@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="no Python in /usr/bin")
def test_a_python_with_its_library_inside_is_cpython_in_its_version() -> None:
    runtime = of_file("/usr/bin/python3")
    assert runtime is not None
    version = reported("/usr/bin/python3", "--version")
    assert (runtime.kind, runtime.evidence) == ("cpython", "symbol")
    assert runtime.version == version or version.startswith(f"{runtime.version}.")


PYENV = sorted(Path("~/.pyenv/versions").expanduser().glob("3.*/lib/libpython3.*.so.1.0"))


@pytest.mark.skipif(not PYENV, reason="no Python with a shared library")
def test_a_shared_libpython_is_the_runtime_and_its_launcher_is_not() -> None:
    for library in PYENV:
        version = library.parents[1].name
        runtime = of_file(str(library), is_program=False)
        assert runtime is not None
        assert (runtime.kind, runtime.evidence) == ("cpython", "library")
        assert runtime.version is not None
        # Py_Version is exported since 3.11; before, the file's name is all there is.
        exact = tuple(map(int, version.split(".")[:2])) >= (3, 11)
        assert runtime.version == (version if exact else version.rpartition(".")[0])
        assert of_file(str(library.parents[1] / "bin/python3")) is None


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_node_is_recognised_by_what_it_exports() -> None:
    node = str(shutil.which("node"))
    runtime = of_file(node)
    assert runtime is not None
    assert runtime.kind == "node"
    assert runtime.version in (reported(node, "--version"), None)


@pytest.mark.skipif(not shutil.which("perl"), reason="perl is not installed")
def test_perl_is_recognised() -> None:
    runtime = of_file(str(shutil.which("perl")))
    assert runtime is not None
    assert runtime.kind == "perl"


JVMS = sorted(Path("/usr/lib/jvm").glob("*/lib/server/libjvm.so"))


@pytest.mark.skipif(not JVMS, reason="no JVM is installed")
def test_a_jvm_is_recognised_and_its_version_read_from_its_release_file() -> None:
    for library in JVMS:
        runtime = of_file(str(library), is_program=False)
        assert runtime is not None
        assert (runtime.kind, runtime.evidence) == ("jvm", "library")
        version = java_version(SYSTEM, os.getpid(), str(library))
        java = library.parents[2] / "bin/java"
        output = subprocess.run([java, "-version"], stderr=subprocess.PIPE, check=True).stderr
        assert f'"{version}"'.encode() in output


def test_a_program_that_hosts_nothing_has_no_runtime() -> None:
    assert of_file("/bin/sleep") is None
    assert of_tiny(TinyElf(kind=2), "/opt/pythonic") is None


@pytest.mark.parametrize(
    ("path", "tiny", "is_program", "expected"),
    [
        ("/usr/lib/libruby-3.1.so.3.1", TinyElf(soname="x"), False, ("ruby", "library", "3.1")),
        (
            "/usr/share/dotnet/shared/Microsoft.NETCore.App/8.0.11/libcoreclr.so",
            TinyElf(soname="x"),
            False,
            ("dotnet", "library", "8.0.11"),
        ),
        ("/app/service", TinyElf(defined=("DotNetRuntimeInfo",)), True, ("dotnet", "symbol", None)),
        (
            "/usr/bin/php8.2",
            PHP,
            True,
            ("php", "symbol", "8.2"),
        ),
        (
            "/usr/local/sbin/php-fpm",
            replace(PHP, sections={".rodata": b"X-Powered-By: PHP/8.3.1\0"}),
            True,
            ("php", "symbol", "8.3.1"),
        ),
        (
            "/usr/lib/erlang/erts-13.1.5/bin/beam.smp",
            TinyElf(defined=("enif_alloc",)),
            True,
            ("beam", "symbol", "13.1.5"),
        ),
        ("/opt/erl/bin/beam.smp", TinyElf(kind=2), True, ("beam", "name", None)),
        ("/usr/bin/python3.9", TinyElf(kind=2), True, ("cpython", "name", "3.9")),
        ("/usr/lib/libnode.so.108", TinyElf(soname="x"), False, ("node", "library", None)),
        (
            "/opt/service",
            TinyElf(
                kind=2,
                sections={
                    ".go.buildinfo": b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + b"\x06go1.21"
                },
            ),
            True,
            ("go", "section", "1.21"),
        ),
    ],
)
def test_runtimes_that_this_machine_lacks_are_known_by_their_marks(
    path: str, tiny: TinyElf, is_program: bool, expected: tuple[str, str, str | None]
) -> None:
    runtime = of_tiny(tiny, path, is_program)
    assert runtime == Runtime(*expected, path)
