"""A program that counts its own allocations, places to watch it at, and a tracer by itself.

python tracer_targets.py METHOD PID            attach, arm, say so, sleep until killed
python tracer_targets.py METHOD count PROGRAM  trace `mix`, print both counts as JSON
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from leakcase_collector.system.allocation_tracer import AllocationTracer, TracerLimits
from leakcase_collector.system.entry_point import EntryPoint

SOURCE = Path(__file__).parent / "native" / "counted.c"
#: Function, word, and the registers of its arguments (x86-64: rdi 7, rsi 6, rdx 2, rcx 1).
FUNCTIONS = (
    ("malloc", "malloc", (7,)),
    ("calloc", "calloc", (7, 6)),
    ("realloc", "realloc", (7, 6)),
    ("reallocarray", "reallocarray", (7, 6, 2)),
    ("memalign", "memalign", (7, 6)),
    ("aligned_alloc", "aligned-alloc", (7, 6)),
    ("posix_memalign", "posix-memalign", (7, 6, 2)),
    ("valloc", "valloc", (7,)),
    ("free", "free", (7,)),
)
MAPPINGS = (
    ("mmap", "mmap", (7, 6, 2, 1)),
    ("munmap", "munmap", (7, 6)),
    ("mremap", "mremap", (7, 6, 2)),
)
#: The ways that need a descriptor for each point take long to close them.
FEW = (FUNCTIONS[0], FUNCTIONS[-1])
_FREES = ("free", "munmap")


def points(functions: Any = FUNCTIONS) -> list[EntryPoint]:
    """Entries of this machine's libc, which the program has as well."""
    # Not CDLL(None): a program that is not position-independent has entries of its own for some.
    libc = ctypes.CDLL("libc.so.6")
    found = []
    for function, call, registers in functions:
        address = ctypes.cast(getattr(libc, function), ctypes.c_void_p).value
        assert address is not None
        path, offset = _file_at(address)
        found.append(
            EntryPoint(call, path, offset, call not in _FREES, True, 1000, function, registers)
        )
    return found


def point_in(program: str, function: str, call: str, pid: int) -> EntryPoint:
    """The entry of a function of the program itself."""
    table = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    (vaddr,) = [int(line.split()[0], 16) for line in table.splitlines()
                if line.split()[-1] == function]  # fmt: skip
    path, offset = _file_at(_base(pid, program) + vaddr, pid)
    return EntryPoint(call, path, offset, True, True, 1000, function, (7,))


def _base(pid: int, program: str) -> int:
    return min(start for start, _, _, path, _ in _mappings(pid) if path == program)


def _mappings(pid: int | str) -> Iterator[tuple[int, int, int, str, str]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, flags, offset, _, _, *path = line.split(None, 5)
        start, end = (int(part, 16) for part in addresses.split("-"))
        yield start, end, int(offset, 16), path[0] if path else "", flags


def _file_at(address: int, pid: int | str = "self") -> tuple[str, int]:
    for start, end, offset, path, _ in _mappings(pid):
        if start <= address < end:
            return path, address - start + offset
    raise AssertionError(f"nothing is mapped at {address:#x}")


def code_ranges(pid: int) -> list[tuple[int, int]]:
    return [(start, end) for start, end, _, _, flags in _mappings(pid) if "x" in flags]


class Counted:
    """The running program; `tell` gives it a command and returns its counts."""

    def __init__(self, program: str, threads: int = 1) -> None:
        self.program = program
        command = ["setpriv", "--pdeathsig", "KILL", "--", "prlimit", "--as=4294967296", "--core=0"]
        self.process = subprocess.Popen(
            [*command, "--", program, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self.pid = self.process.pid
        assert self.answer() == "ready"

    def say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def tell(self, command: str) -> dict[str, int]:
        self.say(command)
        said: dict[str, int] = json.loads(self.answer())
        return said

    def code_at(self, point: EntryPoint) -> bytes:
        """What stands at the point in this process's memory now."""
        for start, end, offset, path, flags in _mappings(self.pid):
            if (
                path == point.path
                and "x" in flags
                and 0 <= point.file_offset - offset < end - start
            ):
                with open(f"/proc/{self.pid}/mem", "rb") as memory:
                    memory.seek(start + point.file_offset - offset)
                    return memory.read(8)
        raise AssertionError(f"{point.path} is not mapped")

    def offset_of(self, address: int, path: str) -> int:
        """Where in the file the address is."""
        found, offset = _file_at(address, self.pid)
        assert found == path
        return offset

    def end(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def counted(program: str, threads: int = 1) -> Iterator[Counted]:
    target = Counted(program, threads)
    try:
        yield target
    finally:
        target.end()


@contextlib.contextmanager
def tracing(
    target: Counted,
    method: Optional[str] = None,
    limits: TracerLimits = TracerLimits(),  # noqa: B008
    functions: Any = FUNCTIONS,
) -> Iterator[AllocationTracer]:
    """A tracer of it that knows its code and is not armed yet."""
    with AllocationTracer(target.pid, points(functions), method=method, limits=limits) as tracer:
        tracer.set_code_ranges(code_ranges(target.pid))
        yield tracer


def compare(program: str, method: str, threads: int, operations: int) -> dict[str, Any]:
    """What the program counted and what the tracer did, of the same operations."""
    with counted(program, threads) as target, tracing(target, method) as tracer:
        armed_ns = tracer.arm()
        own = target.tell(f"mix {operations}")
        seen = tracer.counters()
        live = tracer.live()
        sites = tracer.sites()
        samples = tracer.drain()
        tracer.detach()
        total = 0
        for block in live:
            total ^= block.address
        return {
            "method": tracer.method,
            "own": own,
            "seen": seen._asdict(),
            "blocks": len(live),
            "bytes": sum(block.size for block in live),
            "sum": total,
            "outstanding": sum(site.allocations - site.freed for site in sites.values()),
            "outstanding_bytes": sum(s.allocated_bytes - s.freed_bytes for s in sites.values()),
            "sites": len(sites),
            "samples": len({sample.key for sample in samples}),
            "armed_ns": armed_ns,
            "detach_ns": tracer.detach_ns,
        }


def _hold(method: str, pid: int) -> None:
    with AllocationTracer(pid, points(FEW), method=method) as tracer:
        tracer.set_code_ranges(code_ranges(pid))
        tracer.arm()
        print("armed", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    if sys.argv[2] == "count":
        print(json.dumps(compare(sys.argv[3], sys.argv[1], 4, 2000)))
    elif sys.argv[2] == "once":
        with counted(sys.argv[3]) as once, tracing(once, sys.argv[1], functions=FEW[:1]) as tracer:
            print(json.dumps(tracer.arm()))
    else:
        _hold(sys.argv[1], int(sys.argv[2]))
