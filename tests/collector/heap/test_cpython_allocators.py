"""The functions that allocate Python's objects, as the interpreter itself answers."""

from __future__ import annotations

import pytest

from leakcase_collector.heap.cpython_allocators import AllocatorFunction, allocator_functions
from leakcase_collector.heap.cpython_blocks import ResidentBlocks
from leakcase_collector.probes.python_types import find_python
from leakcase_collector.probes.subject import LiveSubject
from leakcase_collector.system.door import System
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.memory import ProcessMemory
from tests.collector.heap.pythons import COVERED, program

each_python = pytest.mark.parametrize("python", COVERED)

#: PyMem_GetAllocator(domain, &allocator): domain 1 is "mem", 2 is "object".
ASKING = """
import ctypes
BEFORE
def functions(domain):
    words = (ctypes.c_void_p * 5)()
    ctypes.pythonapi.PyMem_GetAllocator(domain, words)
    return list(words)[1:]
outer = [
    [ctypes.cast(getattr(ctypes.pythonapi, domain + name), ctypes.c_void_p).value
     for name in ("Malloc", "Calloc", "Realloc", "Free")]
    for domain in ("PyObject_", "PyMem_")
]
tell([functions(1), functions(2), outer])
sys.stdin.read()
"""
CALLS = ("malloc", "calloc", "realloc", "free")


def allocators(pid: int) -> list[AllocatorFunction]:
    with ProcessIdentity(System(), pid) as identity, ProcessMemory(System(), identity) as memory:
        subject = LiveSubject(System(), pid, identity)
        image = find_python(subject)
        assert image is not None
        (module,) = (m for m in subject.program_files() if m.path == image.path)
        with subject.open_program_file(module) as file:
            mappings = memory.mappings()
            return allocator_functions(ElfFile(file), image, ResidentBlocks(memory), mappings)


def check(python: str, before: str = "") -> list[AllocatorFunction]:
    with program(python, ASKING.replace("BEFORE", before)) as held:
        mem, objects, outer = held.first
        found = allocators(held.pid)
    inner = {pair for table in (mem, objects) for pair in zip(CALLS, table)}
    assert {(f.call, f.address) for f in found if f.has_context} == inner
    exported = {pair for table in outer for pair in zip(CALLS, table)}
    assert {(f.call, f.address) for f in found if not f.has_context} <= exported
    assert len({f.address for f in found}) == len(found)
    return found


@each_python
def test_the_functions_are_those_that_the_interpreter_names(python: str) -> None:
    check(python)


@each_python
def test_a_replacement_is_found_and_no_copy_of_what_it_replaced(python: str) -> None:
    found = check(python, "import tracemalloc; tracemalloc.start()")
    assert [(f.call, f.has_context) for f in found] == [(call, True) for call in CALLS]


@pytest.mark.parametrize("python", [p for p in COVERED if p.startswith("/usr/bin/")])
def test_copies_in_exported_functions_are_seen(python: str) -> None:
    """Debian's build is optimized by a profile, and compares with the usual function's address."""
    copies = {f.call for f in check(python) if not f.has_context}
    assert {"malloc", "free"} <= copies
