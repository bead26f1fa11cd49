"""Stacks of aarch64, recorded, are those that gdb unwound there; and what no recording holds.

The recordings are of programs/frames_aarch64.c, compiled by gcc 12.2 for aarch64 with -O2
-nostdlib -static, once with -mbranch-protection=standard and once with -fomit-frame-pointer, run by
qemu-aarch64 and stepped through by gdb 13.1: one stop for each instruction that it came to, with
all registers and the stack as on a processor that signs return addresses (-cpu max), and the
addresses that gdb unwound. As gdb cannot read signed ones without that processor's key mask, it
unwound the same steps on a processor where nothing is signed (-cpu cortex-a57).
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from leakcase_collector.unwind.modules import CodeModules
from leakcase_collector.unwind.unwinder import Unwinder
from tests.collector.unwind.targets import OneFile

RECORDED = Path(__file__).parent / "recorded"
STACK = 0x5500000000
STACK_POINTER, PROGRAM_COUNTER = 31, 32


def recording(name: str) -> tuple[OneFile, list[dict[str, Any]]]:
    found = json.loads(gzip.decompress((RECORDED / f"{name}.json.gz").read_bytes()))
    # Linked to where it lay: offset 0 of the file at 0x400000.
    return OneFile(base64.b64decode(found["program"]), 0x400000), found["stops"]


@pytest.mark.parametrize("name", ["aarch64_signed", "aarch64_plain"])
def test_recorded_stacks_are_those_of_gdb(name: str) -> None:
    target, stops = recording(name)
    assert len(stops) > 70
    with CodeModules(target) as modules:
        unwinder = Unwinder(modules, "aarch64")
        for stop in stops:
            registers = dict(enumerate(stop["registers"]))
            start, stack = registers[STACK_POINTER], bytes.fromhex(stop["stack"])
            found = unwinder.unwind(registers, start, stack, after_call=False)
            assert found.pcs == tuple(stop["pcs"]), hex(registers[PROGRAM_COUNTER])
            assert found.end == "root"


def test_the_recorded_return_addresses_were_signed() -> None:
    """Without that the recording would not show that signatures are taken off."""
    _, stops = recording("aarch64_signed")
    words = [word for stop in stops for (word,) in struct.iter_unpack("<Q", stop_bytes(stop))]
    code = [word for word in words if 0x400000 <= word & (1 << 48) - 1 < 0x401000]
    assert sum(word >> 48 != 0 for word in code) > 400


def stop_bytes(stop: dict[str, Any]) -> bytes:
    stack = bytes.fromhex(stop["stack"])
    return stack[: len(stack) // 8 * 8]
