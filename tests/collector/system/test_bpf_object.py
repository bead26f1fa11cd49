"""The compiled programs that are brought along."""

from __future__ import annotations

from pathlib import Path

import pytest

from leakcase_collector.system import tracer_layout as layout
from leakcase_collector.system.bpf_object import BpfObject, Program, parse_object

ROOT = Path(__file__).resolve().parents[3]
KEPT = ROOT / "collector" / "leakcase_collector" / "_bpf"
MACHINES = ("x86_64", "aarch64")


def kept(machine: str) -> BpfObject:
    return parse_object((KEPT / f"alloc-{machine}.o").read_bytes())


@pytest.mark.parametrize("machine", MACHINES)
def test_maps_are_as_large_as_what_is_packed_for_them(machine: str) -> None:
    maps = kept(machine).maps
    sizes = {
        "control": layout.CONTROL.size,
        "progress": layout.PROGRESS.size,
        "code_ranges": len(layout.pack_code_ranges([(0x1000, 0x2000)])),
        "live": layout.BLOCK.size,
        "sites": layout.SITE.size,
        "counters": layout.COUNTERS.size,
    }
    assert {name: maps[name].value_bytes for name in sizes} == sizes
    assert len(layout.pack_code_ranges([])) == sizes["code_ranges"]
    assert maps["blank_thread"].value_bytes == maps["threads"].value_bytes


@pytest.mark.parametrize("machine", MACHINES)
def test_every_program_refers_to_maps_of_its_object_only(machine: str) -> None:
    made = kept(machine)
    assert set(made.programs) == {
        "session", "session_python", "entry", "entry_fixed", "at_return", "at_return_python",
    }  # fmt: skip
    for program in made.programs.values():
        assert {name for _, name in program.maps} <= set(made.maps)
    python = {name for _, name in made.programs["session_python"].maps}
    assert python - {name for _, name in made.programs["session"].maps} == {
        "python_layout",
        "python_threads",
    }
    assert made.licence == b"Dual MIT/GPL"


def test_linking_writes_descriptors_and_the_cookie_into_the_instructions() -> None:
    load = bytes([0x18, 0x01]) + bytes(14)
    magic = bytes.fromhex("1802000065736163000000006b61656c")
    code = Program(load + magic, ((0, "live"),)).linked({"live": 77}, cookie=0x1122334455667788)
    assert code[:8] == bytes([0x18, 0x11, 0, 0, 77, 0, 0, 0])
    assert code[20:24] + code[28:32] == (0x1122334455667788).to_bytes(8, "little")
    assert kept("x86_64").programs["entry_fixed"].linked(
        dict.fromkeys(kept("x86_64").maps, 3), 1
    ) != kept("x86_64").programs["entry_fixed"].linked(dict.fromkeys(kept("x86_64").maps, 3), 2)


def test_too_many_code_ranges_lose_their_smallest_gaps() -> None:
    ranges = [(0x10000 * i, 0x10000 * i + 0x1000 + 16 * i) for i in range(1, 80)]
    merged = layout.merge_ranges(ranges, 64)
    assert len(merged) == 64
    assert merged[0] == ranges[0]
    assert merged[-1] == (ranges[63][0], ranges[-1][1])
    assert layout.merge_ranges([(5, 9), (1, 5), (7, 8)], 64) == [(1, 9)]
