"""bpftrace in place of our own loader: what is outstanding, by stack, after a bounded time.

It knows frames by frame pointers only, traps every process that maps the same library (the others
are filtered out in the kernel, after the trap), and watches all the time it runs: the last resort,
or the choice of someone who trusts it more. Written for 0.17 and its successors.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Callable, Optional

from leakcase_collector.errors import CollectorError, NotSupported
from leakcase_collector.system.clock import monotonic_ns
from leakcase_collector.system.commands import find_program, run
from leakcase_collector.system.entry_point import EntryPoint

from .tools import ToolFailed, ToolRun, ToolStack

OLDEST = (0, 14)
FRAMES = 32
#: Blocks whose fate can be followed at once; with their stacks some 20 MB in the kernel.
BLOCKS = 131_072
#: Beyond the time of tracing: compiling, attaching, undoing, printing.
SPARE_SECONDS = 30
_OUTPUT_LIMIT_BYTES = 16 << 20

#: By call: the size asked for, plus one so that nothing is mistaken for none.
_SIZES = {
    "malloc": "arg0 + 1",
    "valloc": "arg0 + 1",
    "pvalloc": "arg0 + 1",
    "operator-new": "arg0 + 1",
    "calloc": "arg0 * arg1 + 1",
    "memalign": "arg1 + 1",
    "aligned-alloc": "arg1 + 1",
    "realloc": "arg1 + 1",
}
_FREES = ("free", "operator-delete")
_FORGET = """{ @blocks[@stack[$old]] = sum(-1); @bytes[@stack[$old]] = sum(1 - @size[$old]);
    @freed = count(); delete(@stack[$old]); delete(@size[$old]); }"""
# What was written is read back: a full map takes nothing, and says nothing.
_KEEP = """{
  $new = retval; $size = @asked[tid]; delete(@asked[tid]);
  if ($new != 0) {
    @allocated = count(); @allocated_bytes = sum($size - 1);
    @size[$new] = $size;
    if (@size[$new] == 0) { @lost = count(); } else {
      @stack[$new] = ustack(perf, FRAMES); @blocks[@stack[$new]] = sum(1);
      @bytes[@stack[$new]] = sum($size - 1);
    }
  }
}"""
_STACK_LINE = re.compile(r"^\s*([0-9a-f]{1,16}) ", re.MULTILINE)


def is_usable() -> Optional[str]:
    """None, or why this host's bpftrace cannot be used."""
    if find_program("bpftrace") is None:
        return "bpftrace is not installed"
    found = re.search(rb"v(\d+)\.(\d+)", run(["bpftrace", "--version"], 10).stdout)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        return f"bpftrace is older than {OLDEST[0]}.{OLDEST[1]}"
    return None


def script(pid: int, points: Sequence[EntryPoint], seconds: float) -> str:
    """The program for bpftrace: each call counted once, losses too, ending by itself.

    `pid` as the root pid namespace has it. NotSupported where nothing can be watched so.
    """
    parts = []
    # Frees first: a block that is freed before we watch frees would look kept for ever.
    for point in (one for one in points if one.call in _FREES):
        parts.append(f"{_probe('uprobe', point)} /pid == {pid}/ {{ $old = arg0;")
        parts.append(f"  if (@size[$old]) {_FORGET} }}")
    allocating = [one for one in points if one.call in _SIZES]
    for point in allocating:
        lines = [f"{_probe('uprobe', point)} /pid == {pid}/ {{"]
        if point.call == "realloc":
            lines.append(f"  $old = arg0; if (@size[$old]) {_FORGET}")
        parts.append("\n".join([*lines, f"  @asked[tid] = {_SIZES[point.call]}; }}"]))
        parts.append(f"{_probe('uretprobe', point)} /pid == {pid} && @asked[tid]/ {_KEEP}")
    if not allocating or not any(one.call in _FREES for one in points):
        raise NotSupported("bpftrace finds no allocator to watch in this program.")
    parts.append(f"interval:ms:{max(1, int(seconds * 1000))} {{ exit(); }}")
    parts.append("END { clear(@stack); clear(@size); clear(@asked); }")
    return "\n".join(parts).replace("FRAMES", str(FRAMES))


def _probe(kind: str, point: EntryPoint) -> str:
    # Opened by us, so the name works in another process for as long as we live.
    path = point.path.replace("/proc/self/", f"/proc/{os.getpid()}/")
    return f"{kind}:{path}:{point.function}"


def trace(
    pid: int,
    points: Sequence[EntryPoint],
    seconds: float,
    is_stopped: Callable[[], bool] = lambda: False,
) -> ToolRun:
    """Run it for so long. ToolFailed where it does not work here; the reason is its own."""
    reason = is_usable()
    if reason is not None:
        raise ToolFailed(f"{reason}. Install it, or do without it.", "bpftrace")
    program = script(pid, points, seconds)
    started_ns = monotonic_ns()
    try:
        result = run(
            ["bpftrace", "-f", "json", "-e", program],
            seconds + SPARE_SECONDS,
            _OUTPUT_LIMIT_BYTES,
            environment={"BPFTRACE_MAP_KEYS_MAX": str(BLOCKS)},
            is_stopped=is_stopped,
        )
    except CollectorError as error:
        raise ToolFailed(str(error), "bpftrace") from error
    maps = dict(_maps(result.stdout))
    if not result.stdout.count(b'"attached_probes"'):
        raise ToolFailed(f"bpftrace could not attach: {_reason(result.stderr)}.", "bpftrace")
    blocks, held = _by_stack(maps, "@blocks"), _by_stack(maps, "@bytes")
    stacks = [
        ToolStack(_addresses(stack), count, held.get(stack, 0))
        for stack, count in blocks.items()
        if count > 0
    ]
    return ToolRun(
        "bpftrace",
        started_ns,
        monotonic_ns() - started_ns,
        stacks,
        allocations=_number(maps, "@allocated"),
        allocated_bytes=_number(maps, "@allocated_bytes"),
        frees=_number(maps, "@freed"),
        lost_events=_number(maps, "@lost") + _lost_events(result.stdout),
        truncated_stacks=sum(len(stack.pcs) >= FRAMES for stack in stacks),
    )


def _maps(output: bytes) -> Iterator[tuple[str, object]]:
    """The maps that bpftrace printed as lines of JSON."""
    for line in output.splitlines():
        if not line.startswith(b'{"type": "map"'):
            continue
        try:
            data = json.loads(line)["data"]
        except (ValueError, KeyError, RecursionError):
            continue
        if isinstance(data, dict):
            yield from data.items()


def _by_stack(maps: dict[str, object], name: str) -> dict[str, int]:
    found = maps.get(name)
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, int)}


def _number(maps: dict[str, object], name: str) -> int:
    value = maps.get(name, 0)
    return value if isinstance(value, int) else 0


def _lost_events(output: bytes) -> int:
    found: Iterable[bytes] = re.findall(rb'"lost_events".{0,40}?(\d+)', output)
    return sum(int(count) for count in found)


def _addresses(stack: str) -> tuple[int, ...]:
    return tuple(int(address, 16) for address in _STACK_LINE.findall(stack))


def _reason(stderr: bytes) -> str:
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if "ERROR" in line]
    said = [line for line in lines if "RLIMIT_MEMLOCK" not in line]
    return "".join(char for char in (said or ["it gave no reason"])[0][:160] if char.isprintable())
