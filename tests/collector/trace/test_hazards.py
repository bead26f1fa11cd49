"""Kernels on which watching a return would end the target are known, and left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from leakcase_collector.heap.cpython_runtime import PythonImage
from leakcase_collector.system.door import System
from leakcase_collector.trace.hazards import (
    KernelRelease,
    kernel_release,
    new_may_fail,
    return_hazard,
    switches_stacks,
    translator,
)
from leakcase_collector.trace.python_objects import may_leave_makers

STATUS = "Name:\tp\nSeccomp:\t{seccomp}\nx86_Thread_features:\t{features}\n"
LIMITS = (
    "Limit                     Soft Limit           Hard Limit           Units     \n"
    "Max data size             {data:<20} unlimited            bytes     \n"
    "Max address space         {space:<20} unlimited            bytes     \n"
)


def recorded(
    root: Path,
    release: str = "6.1.0-13-amd64",
    seccomp: int = 0,
    features: str = "",
    overcommit: str = "0",
    data: str = "unlimited",
    space: str = "unlimited",
) -> System:
    texts = {
        "sys/kernel/osrelease": release + "\n",
        "sys/vm/overcommit_memory": overcommit + "\n",
        "7/task/7/status": STATUS.format(seccomp=0, features=features),
        "7/task/9/status": STATUS.format(seccomp=seccomp, features=features),
        "7/status": STATUS.format(seccomp=0, features=features),
        "7/limits": LIMITS.format(data=data, space=space),
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return System(proc=str(root))


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.18.44-fc-v669", (6, 18, 44)),
        ("6.12.9+deb13-amd64", (6, 12, 9)),
        ("6.14-rc2", (6, 14, 0)),
        ("4.18.0-553.el8_10.x86_64", (4, 18, 0)),
        ("unheard of", (0, 0, 0)),
    ],
)
def test_a_kernel_s_release_is_read(
    tmp_path: Path, release: str, expected: tuple[int, int, int]
) -> None:
    assert kernel_release(recorded(tmp_path, release)) == KernelRelease(*expected)


@pytest.mark.parametrize(
    ("release", "seccomp", "is_hazard"),
    [
        ((6, 10, 9), 2, False),
        ((6, 11, 0), 2, True),
        ((6, 11, 0), 1, True),
        ((6, 11, 0), 0, False),
        ((6, 12, 13), 2, True),
        ((6, 12, 14), 2, False),
        ((6, 13, 2), 2, True),
        ((6, 13, 3), 2, False),
        ((6, 14, 0), 2, False),
    ],
)
def test_a_seccomp_filter_is_a_hazard_on_the_kernels_whose_return_is_a_system_call(
    tmp_path: Path, release: tuple[int, int, int], seccomp: int, is_hazard: bool
) -> None:
    system = recorded(tmp_path, seccomp=seccomp)
    told = return_hazard(system, 7, KernelRelease(*release), "x86_64")
    assert (told is not None) == is_hazard
    assert return_hazard(system, 7, KernelRelease(*release), "aarch64") is None


@pytest.mark.parametrize(
    ("release", "features", "is_hazard"),
    [((6, 9, 0), "shstk", True), ((6, 9, 0), "", False), ((6, 11, 0), "shstk wrss", False)],
)
def test_a_shadow_stack_is_a_hazard_until_the_kernel_minds_it(
    tmp_path: Path, release: tuple[int, int, int], features: str, is_hazard: bool
) -> None:
    system = recorded(tmp_path, features=features)
    told = return_hazard(system, 7, KernelRelease(*release), "x86_64")
    assert (told is not None) == is_hazard


def test_operator_new_may_fail_where_memory_is_limited(tmp_path: Path) -> None:
    assert not new_may_fail(recorded(tmp_path), 7)
    assert new_may_fail(recorded(tmp_path, space="4294967296"), 7)
    assert new_may_fail(recorded(tmp_path, data="1073741824"), 7)
    assert new_may_fail(recorded(tmp_path, overcommit="2"), 7)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/libexec/valgrind/memcheck-amd64-linux", "Valgrind"),
        ("/usr/libexec/valgrind/vgpreload_core-amd64-linux.so", "Valgrind"),
        ("/opt/dr/lib64/release/libdynamorio.so", "DynamoRIO"),
        ("/usr/bin/qemu-aarch64-static", "QEMU"),
        ("/usr/bin/valgrind-reader", None),
        ("/usr/lib/libqemu-ga.so", None),
    ],
)
def test_a_program_whose_code_is_translated_is_told_by_its_files(
    path: str, name: str | None
) -> None:
    assert translator(["/usr/lib/libc.so.6", path]) == name


def test_greenlets_are_told_by_their_extension_module() -> None:
    inside = "/srv/venv/lib/python3.11/site-packages/greenlet/_greenlet.cpython-311-x86_64.so"
    assert switches_stacks(["/usr/bin/python3.11", inside])
    assert not switches_stacks(["/usr/bin/python3.11", "/usr/lib/libgreenlet.txt"])


@pytest.mark.parametrize(
    ("version", "is_left"), [("3.11.2", True), ("3.9.18", True), (None, True), ("3.12.1", False)]
)
def test_python_s_objects_are_not_watched_where_a_greenlet_may_leave_their_making(
    version: str | None, is_left: bool
) -> None:
    image = PythonImage("/usr/bin/python3", 0, 0, 0, version)
    inside = "/srv/venv/greenlet/_greenlet.cpython-311-x86_64-linux-gnu.so"
    assert may_leave_makers(image, [image.path, inside]) == is_left
    assert not may_leave_makers(image, [image.path])
