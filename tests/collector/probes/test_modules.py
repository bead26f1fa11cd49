from __future__ import annotations

import ctypes.util
import shutil
import subprocess
from pathlib import Path

import pytest

from leakcase_bundle.records import Allocator, Module, Runtime
from leakcase_collector.probes.modules import ModulesProbe
from leakcase_collector.probes.runtimes import RuntimesProbe
from tests.collector.probes.children import python
from tests.collector.probes.context import RecordingContext, run

GCC = shutil.which("gcc")
needs_compiler = pytest.mark.skipif(GCC is None, reason="needs gcc")

LATE = """
import ctypes, sys
print('ready', flush=True); sys.stdin.readline()
ctypes.CDLL(sys.argv[1])
"""


def build(directory: Path, name: str, source: str, *options: str) -> str:
    """A program or library built from C."""
    path = directory / name
    code = directory / f"{name}.c"
    code.write_text(source)
    assert GCC is not None
    subprocess.run([GCC, str(code), "-o", str(path), *options], check=True, timeout=60)
    return str(path)


def test_a_programs_modules_are_told_from_each_other_with_their_build_ids() -> None:
    with python("") as child:
        context = run(ModulesProbe(), RecordingContext(child.pid))
    modules = context.emitted(Module)
    assert [module.index for module in modules] == list(range(len(modules)))
    assert [module.is_program for module in modules] == [True] + [False] * (len(modules) - 1)
    libc = [module for module in modules if module.path.endswith("/libc.so.6")]
    if not libc:
        pytest.skip("this Python does not use glibc")
    assert libc[0].elf_type == "shared-object"
    assert libc[0].position_independent is True
    assert libc[0].is_static is False
    assert libc[0].build_id is not None and len(libc[0].build_id) >= 32
    assert (libc[0].size_bytes or 0) > 100_000
    assert context.gaps in ([], [("not-supported", "package-database")])
    assert context.losses == []


@needs_compiler
def test_a_library_loaded_during_the_capture_is_added_at_its_end(tmp_path: Path) -> None:
    options = ("-shared", "-fPIC", "-g", "-Wl,--build-id=0x0123456789abcdef0123")
    library = build(tmp_path, "libsecretname.so", "int x(void){return 1;}", *options)
    with python(LATE, arguments=[library]) as child:
        probe, context = ModulesProbe(), RecordingContext(child.pid)
        probe.begin(context, 0)
        before = context.emitted(Module)
        child.tell()
        probe.finish(context, 1)
        probe.finish(context, 2)
    late = context.emitted(Module)[len(before) :]
    (found,) = [module for module in late if module.path.endswith("/libsecretname.so")]
    assert found.index >= len(before)
    assert found.build_id == "0123456789abcdef0123"
    assert found.has_debug_info is True and found.stripped is False
    assert found.bits in (32, 64) and found.language == "c"
    assert found.package is None and found.deleted is False
    assert str(tmp_path) not in found.path
    assert len({module.path for module in late}) == len(late)


@needs_compiler
def test_a_program_that_was_deleted_is_read_all_the_same(tmp_path: Path) -> None:
    source = '#include <unistd.h>\nint main(void){write(1,"ready\\n",6);pause();return 0;}'
    program = build(tmp_path, "service", source, "-Wl,--build-id=0xfeedface")
    process = subprocess.Popen([program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        Path(program).unlink()
        context = run(ModulesProbe(), RecordingContext(process.pid))
    finally:
        process.kill()
        process.communicate()
    first = context.emitted(Module)[0]
    assert (first.is_program, first.deleted, first.build_id) == (True, True, "feedface")
    assert ("not-permitted", "elf") not in context.gaps


@needs_compiler
def test_a_static_program_is_one_module_with_its_allocator_inside(tmp_path: Path) -> None:
    source = (
        "#include <stdlib.h>\n#include <unistd.h>\n"
        'int main(void){void *volatile p=malloc(9);write(1,"ready\\n",6);pause();return p!=0;}'
    )
    try:
        program = build(tmp_path, "static", source, "-static")
    except subprocess.CalledProcessError:
        pytest.skip("this machine has no static C library")
    process = subprocess.Popen([program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        context = RecordingContext(process.pid)
        run(ModulesProbe(), context)
        run(RuntimesProbe(), context)
    finally:
        process.kill()
        process.communicate()
    (module,) = context.emitted(Module)
    assert module.is_static is True and module.needed == []
    (allocator,) = context.emitted(Allocator)
    assert (allocator.linkage, allocator.effective) == ("static", True)
    assert context.emitted(Runtime) == []


def test_a_python_process_shows_its_runtime_and_its_allocator() -> None:
    with python("") as child:
        context = run(RuntimesProbe(), RecordingContext(child.pid))
    runtimes = context.emitted(Runtime)
    assert [runtime.kind for runtime in runtimes] == ["cpython"]
    effective = [allocator for allocator in context.emitted(Allocator) if allocator.effective]
    assert len(effective) == 1
    if ctypes.util.find_library("c") == "libc.so.6":
        assert effective[0].kind == "glibc"
        assert (effective[0].linkage, effective[0].version is None) == ("shared", False)
    assert context.gaps == []


def test_no_more_modules_are_written_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with python("") as child:
        everything = run(ModulesProbe(), RecordingContext(child.pid)).emitted(Module)
        monkeypatch.setattr("leakcase_collector.probes.modules.MAX_MODULES", 2)
        probe, context = ModulesProbe(), RecordingContext(child.pid)
        probe.begin(context, 0)
    assert [module.is_program for module in context.emitted(Module)] == [True, False]
    assert context.losses == [("records", len(everything) - 2)]


EXEC = """
import os, sys
print('ready', flush=True); sys.stdin.readline()
os.execv("/bin/sh", ["sh", "-c", "echo ready; read x"])
"""


def test_after_an_exec_the_new_programs_modules_are_written() -> None:
    with python(EXEC) as child:
        probe, context = ModulesProbe(), RecordingContext(child.pid)
        probe.begin(context, 0)
        before = context.emitted(Module)
        child.tell()
        probe.begin(context, 1)
    after = context.emitted(Module)[len(before) :]
    assert after[0].is_program and after[0].path != before[0].path
    assert after[0].index == len(before)
    # The shell runs on the same C library, which belongs to the new program's modules as well.
    assert {module.path for module in after} & {module.path for module in before}
