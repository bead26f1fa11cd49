"""What the programs of `accuracy_programs.py` are made of: glibc blocks, pace, churn."""

from __future__ import annotations

import ctypes
import mmap
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

TICK_SECONDS = 0.05

LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = ctypes.c_void_p
LIBC.malloc.argtypes = [ctypes.c_size_t]
LIBC.realloc.restype = ctypes.c_void_p
LIBC.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.free.argtypes = [ctypes.c_void_p]
LIBC.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


class _MallocBooks(ctypes.Structure):
    """struct mallinfo2, mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


LIBC.mallinfo2.restype = _MallocBooks


def touched_block(size_bytes: int) -> int:
    """A touched block of glibc's heap."""
    address = LIBC.malloc(size_bytes)
    if not address:
        raise MemoryError
    LIBC.memset(address, 1, size_bytes)
    return int(address)


def ticks() -> Iterator[float]:
    """Seconds since the start, about every TICK_SECONDS; prints malloc's books every second."""
    start = told = time.monotonic()
    while True:
        now = time.monotonic()
        if now - told >= 1.0:
            books = LIBC.mallinfo2()
            print((books.uordblks + books.hblkhd) // 1024, books.fordblks // 1024, flush=True)
            told = now
        yield now - start
        time.sleep(TICK_SECONDS)


@dataclass
class Churn:
    """A table of blocks of glibc's heap, replaced at random: an innocent allocator load."""

    rng: random.Random
    slots: int = 4000
    low_bytes: int = 16
    high_bytes: int = 2048
    per_tick: int = 60

    def __post_init__(self) -> None:
        self.table = [0] * self.slots

    def turn(self) -> None:
        for _ in range(self.per_tick):
            i = self.rng.randrange(self.slots)
            if self.table[i]:
                LIBC.free(self.table[i])
            self.table[i] = touched_block(self.rng.randint(self.low_bytes, self.high_bytes))


def owed(rate: float, now: float, paid: float) -> float:
    return rate * now - paid


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def work_and_rest(rng: random.Random, leak_bytes_per_second: float) -> None:
    churn = Churn(rng)
    active, until, paid, worked, last = False, 0.0, 0.0, 0.0, 0.0
    for now in ticks():
        if now >= until:
            active = not active
            until = now + rng.uniform(12, 25)
        if active:
            churn.turn()
            burn(0.004)
            worked += now - last
            while owed(leak_bytes_per_second, worked, paid) > 0:
                paid += 700
                touched_block(700)
        last = now


def fill_and_flush(rng: random.Random, leak_bytes_per_second: float) -> None:
    """A buffer fills and is flushed; its pages go back to the kernel each time."""
    buffer: list[mmap.mmap] = []
    period = rng.uniform(5, 14)
    due, paid = period, 0.0
    for now in ticks():
        pages = mmap.mmap(-1, 24 << 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.write(bytes(24 << 10))
        buffer.append(pages)
        while owed(leak_bytes_per_second, now, paid) > 0:
            paid += 900
            touched_block(900)
        if now >= due:
            for pages in buffer:
                pages.close()
            buffer.clear()
            due += period * rng.uniform(0.8, 1.2)
