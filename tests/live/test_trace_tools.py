"""bpftrace and memleak-bpfcc, really run: what they say, typed, and what they refuse."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import pytest

from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.trace import bpftrace_tool, memleak_tool
from leakcase_collector.trace.tools import ToolFailed, ToolRun
from samples import runner

pytestmark = [pytest.mark.live, pytest.mark.slow]
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="kernel probes want root")
BYTES = 64


def libc_of(pid: Union[int, str]) -> str:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next(line.split()[-1] for line in lines if re.search(r"/libc[.-]", line))


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[runner.Running]:
    """With a C library of its own: BCC cannot watch a function that another tracer watches."""
    runner.build()
    library = tmp_path_factory.mktemp("libc") / "libc.so.6"
    shutil.copy(libc_of("self"), library)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(library.parent))
        running = runner.start("small-block-leak", seconds=180)
    with running:
        yield running


@pytest.fixture(scope="module")
def kernel_headers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One tree of the two that Debian makes of the kernel's headers."""
    halves = [
        sorted(Path("/usr/src").glob(f"linux-headers-*-{half}")) for half in ("common", "amd64")
    ]
    if not all(halves):
        pytest.skip("there are no kernel headers in /usr/src")
    tree = tmp_path_factory.mktemp("headers")
    for half in halves:
        subprocess.run(["cp", "-rsf", f"{half[-1]}/.", tree], check=True)
    yield tree


def symbol_of(program: str, name: str) -> range:
    """Where a function lies in the file."""
    lines = subprocess.run(["nm", "-S", program], capture_output=True, text=True, check=True)
    address, size = next(
        line.split()[:2] for line in lines.stdout.splitlines() if line.endswith(f" {name}")
    )
    return range(int(address, 16), int(address, 16) + int(size, 16) + 1)


def blocks_of(run: ToolRun, pid: int, name: str) -> int:
    """What is outstanding of the stacks whose innermost frame is the function."""
    program = os.path.realpath(f"/proc/{pid}/exe")
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    base = next(int(line.split("-")[0], 16) for line in maps if line.endswith(program))
    function = symbol_of(program, name)
    return sum(one.blocks for one in run.stacks if one.pcs and one.pcs[0] - base in function)


def points(pid: int) -> Iterator[EntryPoint]:
    for call in ("malloc", "calloc", "realloc", "free"):
        yield EntryPoint(call, libc_of(pid), 0, call != "free", True, 1000, call, (7, 6, 2))


@is_root
@pytest.mark.skipif(shutil.which("bpftrace") is None, reason="bpftrace is not installed")
def test_bpftrace_tells_the_leaking_function_and_how_much(leaking: Any) -> None:
    run = bpftrace_tool.trace(leaking.pid, list(points(leaking.pid)), 2)
    expected = next(one for one in runner.load_expected() if one.name == "small-block-leak")
    leak = expected.what_is_leaked
    assert leak is not None
    kept = blocks_of(run, leaking.pid, leak.symbol)
    # Two seconds and what attaching and printing took: between half as many and twice as many.
    assert 0.5 < kept / (2 * leak.blocks_per_second) < 2.5
    assert kept == max(one.blocks for one in run.stacks) or kept > 100
    assert run.allocations is not None and run.frees is not None
    outstanding = sum(one.blocks for one in run.stacks)
    assert abs(run.allocations - run.frees - outstanding) <= 2 + (run.lost_events or 0)


@is_root
@pytest.mark.skipif(shutil.which("bpftrace") is None, reason="bpftrace is not installed")
def test_blocks_that_bpftrace_cannot_follow_are_counted(
    leaking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpftrace_tool, "BLOCKS", 64)
    run = bpftrace_tool.trace(leaking.pid, list(points(leaking.pid)), 1)
    assert run.lost_events is not None and run.lost_events > 10
    assert sum(one.blocks for one in run.stacks) <= 64


@is_root
@pytest.mark.skipif(shutil.which("memleak-bpfcc") is None, reason="memleak-bpfcc is not installed")
def test_memleak_tells_the_leaking_function(
    leaking: Any, kernel_headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(kernel_headers))
    run = memleak_tool.trace(leaking.pid, 2)
    expected = next(one for one in runner.load_expected() if one.name == "small-block-leak")
    assert expected.what_is_leaked is not None
    assert blocks_of(run, leaking.pid, expected.what_is_leaked.symbol) > 100


def test_without_headers_memleak_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BCC_KERNEL_SOURCE", raising=False)
    monkeypatch.setattr(memleak_tool, "find_program", lambda name: f"/usr/sbin/{name}")
    if os.path.isdir(f"/lib/modules/{os.uname().release}/build"):
        assert memleak_tool.is_usable() is None
        return
    with pytest.raises(ToolFailed, match="headers") as refused:
        memleak_tool.trace(os.getpid(), 1)
    assert refused.value.gap_detail == "memleak-bpfcc"


def test_a_report_of_memleak_is_read_to_its_end() -> None:
    report = (
        b"Attaching to pid 7, Ctrl+C to quit.\n"
        b"[13:51:11] Top 50 stacks with outstanding allocations:\n"
        b"\t24 bytes in 3 allocations from stack\n"
        b"\t\t0x000055e55f697e3e\tleak (with a (strange) name)+0xe [programs]\n"
        b"\t\t0x00007f0000000001\t[unknown]\n"
        b"\t4096 bytes in 1 allocations from stack\n"
    )
    stacks = list(memleak_tool.parse(report))
    assert stacks == [((0x55E55F697E3E, 0x7F0000000001), 3, 24), ((), 1, 4096)]


def test_a_program_without_an_allocator_is_refused() -> None:
    with pytest.raises(Exception, match="no allocator"):
        bpftrace_tool.script(1, [], 1.0)
