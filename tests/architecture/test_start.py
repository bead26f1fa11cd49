"""Starting is cheap: the command line is there before anything heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY_FOR_COLLECTOR = {
    "ctypes", "zstandard", "msgpack", "subprocess", "asyncio", "urllib.request", "ssl", "psutil",
    "numpy", "typer", "leakcase_collector.probes", "leakcase_collector.session",
    "leakcase_collector.redact",
}  # fmt: skip
HEAVY_FOR_ANALYZER = {"numpy", "scipy", "jinja2", "zstandard", "leakcase_collector.probes"}


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_collectors_command_line_imports_nothing_heavy() -> None:
    code = "from leakcase_collector.cli import build_parser\nbuild_parser().format_help()"
    assert modules_after(code) & HEAVY_FOR_COLLECTOR == set()


def test_the_analyzers_command_line_imports_nothing_heavy() -> None:
    assert modules_after("import leakcase_analyzer.cli") & HEAVY_FOR_ANALYZER == set()


@pytest.mark.parametrize("module", ["leakcase_collector.capture", "leakcase_collector.marks"])
def test_a_capture_needs_none_of_the_analyzers_libraries(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert loaded & {"numpy", "scipy", "jinja2", "typer", "leakcase_analyzer"} == set()
