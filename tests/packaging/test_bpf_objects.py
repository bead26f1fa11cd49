"""The programs for the kernel are kept compiled: they have to be what the sources give."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.packaging.built import ROOT

KEPT = ROOT / "collector" / "leakcase_collector" / "_bpf"
MACHINES = ("x86_64", "aarch64")


def build_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bpf_build", ROOT / "packaging" / "bpf.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_objects_are_what_clang_makes_of_the_sources(tmp_path: Path) -> None:
    script = build_script()
    version = script.compiler_version()
    if version != script.COMPILER:
        pytest.skip(f"clang {script.COMPILER} with its llvm-strip is needed; here is {version}")
    made = script.build(tmp_path)
    assert [path.name for path in made] == [f"alloc-{machine}.o" for machine in MACHINES]
    for path in made:
        assert path.read_bytes() == (KEPT / path.name).read_bytes(), "run make bpf"
