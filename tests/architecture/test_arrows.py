"""Data flows one way, and a room imports only rooms before it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import PACKAGES, Import, Source, inside, sources

LINES_ALLOWED = 350

EVERY = [source for package in PACKAGES for source in sources(package)]
each_package = pytest.mark.parametrize("package", PACKAGES)


def imports_of(package: str) -> Iterator[tuple[Source, Import]]:
    for source in sources(package):
        for found in source.imports():
            yield source, found


def offences(package: str, *allowed: str) -> list[str]:
    """Imports of `package` that are neither of the standard library nor below `allowed`."""
    return [
        f"{source.path}:{found.line} imports {found.module}"
        for source, found in imports_of(package)
        if found.module.split(".")[0] not in sys.stdlib_module_names
        and not any(inside(found.module, room) for room in allowed)
    ]


def test_the_format_imports_nothing_of_ours_but_itself() -> None:
    # The standard library's since 3.12: SHA-256 without OpenSSL.
    assert offences("leakcase_bundle", "leakcase_bundle", "msgpack", "zstandard", "_sha2") == []


def test_the_collector_needs_the_format_and_the_standard_library_only() -> None:
    assert offences("leakcase_collector", "leakcase_collector", "leakcase_bundle") == []


def test_the_analyzer_never_imports_the_collector_but_to_investigate() -> None:
    found = [
        (source.module, found.module)
        for source, found in imports_of("leakcase_analyzer")
        if inside(found.module, "leakcase_collector")
    ]
    for importer, imported in found:
        assert "investigate" in importer, (importer, imported)
        assert inside(imported, "leakcase_collector.cli"), (importer, imported)


# Within the collector: the machine, how stacks unwind and what the bytes of a heap mean, who
# allocates, the probes, then the session that runs them.
_SYSTEM = "leakcase_collector.system"
_HEAP = "leakcase_collector.heap"
_ATTACH = "leakcase_collector.attach"
_UNWIND = "leakcase_collector.unwind"
_TRACE = "leakcase_collector.trace"
_PROBES = "leakcase_collector.probes"
_ERRORS = "leakcase_collector.errors"
_MAY_IMPORT = {
    _SYSTEM: {_SYSTEM, _ERRORS},
    _HEAP: {_HEAP, _SYSTEM, _ERRORS},
    _ATTACH: {_ATTACH, _UNWIND, _HEAP, _SYSTEM, _ERRORS},
    _UNWIND: {_UNWIND, _SYSTEM, _ERRORS},
    _TRACE: {_TRACE, _UNWIND, _HEAP, _SYSTEM, _ERRORS, "leakcase_collector.redact"},
    _PROBES: {
        _PROBES,
        _TRACE,
        _ATTACH,
        _HEAP,
        _SYSTEM,
        _ERRORS,
        "leakcase_collector.redact",
        "leakcase_collector.settings_allowlist",
    },
}


@pytest.mark.parametrize("room", _MAY_IMPORT)
def test_in_the_collector_a_room_imports_only_rooms_before_it(room: str) -> None:
    wrong = [
        f"{source.path}:{found.line} imports {found.module}"
        for source, found in imports_of("leakcase_collector")
        if inside(source.module, room)
        and inside(found.module, "leakcase_collector")
        and not any(inside(found.module, below) for below in _MAY_IMPORT[room])
    ]
    assert wrong == []


# The analyzer runs readers of debug information, and nothing else.
_SYMBOLIZERS = "leakcase_analyzer.symbols.symbolizers"


def test_programs_are_run_and_signals_sent_by_the_system_room_alone() -> None:
    for source in EVERY:
        if inside(source.module, _SYSTEM) or source.module == _SYMBOLIZERS:
            continue
        modules = {found.module.split(".")[0] for found in source.imports()}
        assert not modules & {"subprocess", "multiprocessing", "signal"}, source.path
        assert "_posixsubprocess" not in modules
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert called not in {
                    "os.kill", "os.killpg", "os.system", "os.popen", "os.fork", "os.execv",
                    "os.execve", "os.posix_spawn", "os.spawnv",
                }, (source.path, node.lineno, called)  # fmt: skip


def test_nothing_is_loaded_from_data_that_could_be_code() -> None:
    """A case comes from strangers: no pickle, no eval, no dynamic import of a name."""
    for source in EVERY:
        modules = {found.module.split(".")[0] for found in source.imports()}
        assert not modules & {"pickle", "marshal", "shelve", "runpy"}, source.path
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "__import__"}, (
                    source.path,
                    node.lineno,
                )


def test_no_file_is_two_things() -> None:
    long = {
        str(source.path): lines
        for source in EVERY
        if (lines := len(Path(source.path).read_text(encoding="utf-8").splitlines()))
        > LINES_ALLOWED
    }
    assert long == {}


@each_package
def test_every_module_says_what_it_is(package: str) -> None:
    silent = [str(s.path) for s in sources(package) if not ast.get_docstring(s.tree)]
    assert [path for path in silent if Path(path).stat().st_size > 0] == []
