"""Stacks are those that gdb unwinds, at whatever instruction a program is stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from leakcase_collector.unwind.modules import CodeModules
from leakcase_collector.unwind.unwinder import Unwinder
from tests.collector.unwind.stepped import RecordedTarget, Stop, build, step_through

pytestmark = [
    pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is not installed"),
    pytest.mark.skipif(not shutil.which("g++"), reason="no compiler is installed"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="reads registers of x86-64"),
]

#: In the manner of distributions, with entries of the PLT that are filled at the first call.
LAZY = ["-fcf-protection", "-Wl,-z,lazy"]
NOW = "-Wl,-z,now"
#: Fixed addresses, and no dynamic loader.
STATIC = ["-static", "-no-pie"]


def differences(target: RecordedTarget, stops: Sequence[Stop]) -> list[Stop]:
    with CodeModules(target) as modules:
        unwinder = Unwinder(modules, "x86_64")
        found = []
        for stop in stops:
            ours = unwinder.unwind(stop.registers, stop.start, stop.stack, after_call=False)
            if ours.pcs != stop.pcs or ours.end != "root":
                found.append(stop)
        return found


@pytest.mark.parametrize(("options", "stride"), [([NOW], 11), (LAZY, 19), (STATIC, 7)])
def test_stacks_of_c_are_those_of_gdb(options: list[str], stride: int, tmp_path: Path) -> None:
    target, stops = step_through([str(build("calls.c", tmp_path, *options))], tmp_path, 500, stride)
    names = {name for stop in stops for _, name in stop.frames}
    assert {"deep", "handler", "main", "_start"} <= names, "it did not come to what is tested"
    # The PLT of a static program (IRELATIVE) has no table; gdb knows its instructions.
    different = [stop for stop in differences(target, stops) if stop.frames[0][1]]
    assert different == []


def test_stacks_through_exceptions_are_those_of_gdb(tmp_path: Path) -> None:
    target, stops = step_through([str(build("throws.cc", tmp_path, NOW))], tmp_path, 400, 23)
    assert len({name for stop in stops for _, name in stop.frames}) > 20
    # At one instruction of libgcc, where it has put the stack of the function that catches, no
    # table can tell: gdb goes through data there.
    with CodeModules(target) as modules:
        misled = [stop for stop in stops if any(not modules.place(pc) for pc in stop.pcs)]
    assert len(misled) <= 3
    assert [stop for stop in differences(target, stops) if stop not in misled] == []


def test_the_second_unwind_of_the_same_stops_gives_the_same(tmp_path: Path) -> None:
    """What is remembered of the first one does not change the answer."""
    target, stops = step_through([str(build("calls.c", tmp_path))], tmp_path, 150, 11)
    with CodeModules(target) as modules:
        unwinder = Unwinder(modules, "x86_64")
        looks = [
            [unwinder.unwind(s.registers, s.start, s.stack, after_call=False) for s in stops]
            for _ in range(2)
        ]
    assert looks[0] == looks[1]
    assert {stack.end for stack in looks[0]} == {"root"}
