"""What was freed goes back to the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import ctypes, os
from leakcase_collector.system.own_memory import give_back_early
if {early}:
    give_back_early()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
libc.free(libc.malloc(16 << 20))  # Raises the thresholds, where it may.
before = rss()
block = libc.malloc(8 << 20)
small = libc.malloc(64)  # Lies behind it, if it is in the heap.
ctypes.memset(block, 1, 8 << 20)
libc.free(block)
print(rss() - before)
"""


@pytest.mark.parametrize(
    ("early", "least", "most"), [(True, 0, 1 << 20), (False, 4 << 20, 1 << 30)]
)
def test_large_blocks_do_not_stay_in_the_heap(early: bool, least: int, most: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(early=early)],
        stdout=subprocess.PIPE, check=True, timeout=20,
    )  # fmt: skip
    assert least <= int(done.stdout) <= most
