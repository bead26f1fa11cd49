"""memleak-bpfcc in place of our own loader: what is outstanding, by stack, after a bounded time.

It compiles its program on the host with LLVM and the kernel's headers (``BCC_KERNEL_SOURCE`` names
others), knows frames by frame pointers only, follows stacks by a hash that may collide, and tells
of no losses. It looks for its functions in the C library that the target has by name, so what
is elsewhere (static programs, other allocators) it does not see. Written for the one of BCC 0.26.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Callable, Optional

from leakcase_collector.errors import CollectorError
from leakcase_collector.system.clock import monotonic_ns
from leakcase_collector.system.commands import find_program, run

from .tools import ToolFailed, ToolRun, ToolStack

#: Debian's name and that of others.
PROGRAMS = ("memleak-bpfcc", "memleak")
STACKS = 500
#: Compiling takes one to six seconds, undoing up to five.
SPARE_SECONDS = 40
#: Of the library itself (BPF_MAP_TYPE_STACK_TRACE's own limit, PERF_MAX_STACK_DEPTH).
FRAMES = 127
_OUTPUT_LIMIT_BYTES = 8 << 20
_HEADERS = "BCC_KERNEL_SOURCE"
_STACK = re.compile(rb"^\t(\d+) bytes in (\d+) allocations from stack$")
_FRAME = re.compile(rb"^\t\t0x([0-9a-f]{1,16})\t")


def is_usable() -> Optional[str]:
    """None, or why this host's memleak cannot be used."""
    if _program() is None:
        return "memleak-bpfcc is not installed"
    build = f"/lib/modules/{os.uname().release}/build"
    if not os.environ.get(_HEADERS) and not os.path.isdir(build):
        return f"memleak-bpfcc wants the kernel's headers in {build} or where {_HEADERS} says"
    return None


def _program() -> Optional[str]:
    return next((name for name in PROGRAMS if find_program(name) is not None), None)


def trace(pid: int, seconds: float, is_stopped: Callable[[], bool] = lambda: False) -> ToolRun:
    """Run it for so long (whole seconds). ToolFailed where it does not work here."""
    reason, program = is_usable(), _program()
    if reason is not None or program is None:
        raise ToolFailed(f"{reason}. Provide it, or do without it.", "memleak-bpfcc")
    whole = max(1, int(seconds))
    headers = os.environ.get(_HEADERS)
    command = [program, "-p", str(pid), "-o", "0", "-T", str(STACKS), str(whole), "1"]
    started_ns = monotonic_ns()
    try:
        result = run(
            command,
            whole + SPARE_SECONDS,
            _OUTPUT_LIMIT_BYTES,
            environment={"PYTHONUNBUFFERED": "1", **({_HEADERS: headers} if headers else {})},
            is_stopped=is_stopped,
        )
    except CollectorError as error:
        raise ToolFailed(str(error), "memleak-bpfcc") from error
    if b"outstanding allocations" not in result.stdout:
        last = result.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        said = "".join(char for char in last[:160] if char.isprintable()) or "it gave no reason"
        raise ToolFailed(f"memleak-bpfcc did not work: {said}.", "memleak-bpfcc")
    stacks = list(parse(result.stdout))
    return ToolRun(
        "memleak-bpfcc",
        started_ns,
        monotonic_ns() - started_ns,
        stacks,
        allocations=None,
        allocated_bytes=None,
        frees=None,
        lost_events=None,
        truncated_stacks=sum(len(stack.pcs) >= FRAMES for stack in stacks),
    )


def parse(output: bytes) -> Iterator[ToolStack]:
    """The stacks of its last report, in its order: bytes rising."""
    report = output.rpartition(b"outstanding allocations")[2]
    size = blocks = 0
    pcs: list[int] = []
    for line in [*report.splitlines(), b"\t0 bytes in 0 allocations from stack"]:
        frame, stack = _FRAME.match(line), _STACK.match(line)
        if frame is not None:
            pcs.append(int(frame[1], 16))
        elif stack is not None:
            if blocks:
                yield ToolStack(tuple(pcs), blocks, size)
            size, blocks, pcs = int(stack[1]), int(stack[2]), []
