"""Harmless programs of known truth whose memory `accuracy_record.py` records.

Run as `accuracy_programs.py KIND SEED`. Every program paces itself to a few per cent of a core,
limits its own address space and stops when its parent ends it.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import random
import resource
import sqlite3
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ADDRESS_SPACE_LIMIT_BYTES = 1 << 30
TICK_SECONDS = 0.05

_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.realloc.restype = ctypes.c_void_p
_libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]
_libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


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


_libc.mallinfo2.restype = _MallocBooks


def _block(size_bytes: int) -> int:
    """A touched block of glibc's heap."""
    address = _libc.malloc(size_bytes)
    if not address:
        raise MemoryError
    _libc.memset(address, 1, size_bytes)
    return int(address)


def _ticks() -> Iterator[float]:
    """Seconds since the start, about every TICK_SECONDS; prints malloc's books every second."""
    start = told = time.monotonic()
    while True:
        now = time.monotonic()
        if now - told >= 1.0:
            books = _libc.mallinfo2()
            print((books.uordblks + books.hblkhd) // 1024, books.fordblks // 1024, flush=True)
            told = now
        yield now - start
        time.sleep(TICK_SECONDS)


@dataclass
class _Churn:
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
                _libc.free(self.table[i])
            self.table[i] = _block(self.rng.randint(self.low_bytes, self.high_bytes))


def _owed(rate: float, now: float, paid: float) -> float:
    return rate * now - paid


def idle(rng: random.Random) -> None:
    for _ in _ticks():
        pass


def churn_malloc(rng: random.Random) -> None:
    churn = _Churn(rng, slots=rng.choice([1000, 4000, 8000]))
    for _ in _ticks():
        churn.turn()


def churn_large(rng: random.Random) -> None:
    churn = _Churn(rng, slots=20, low_bytes=8 << 10, high_bytes=512 << 10, per_tick=2)
    for _ in _ticks():
        churn.turn()


def churn_objects(rng: random.Random) -> None:
    table: list[object] = [None] * 8000
    for _ in _ticks():
        for _ in range(200):
            size = rng.randint(1, 300)
            table[rng.randrange(len(table))] = rng.choice([bytes, list, str])(range(size % 250))


def churn_cycles(rng: random.Random) -> None:
    gc.set_threshold(5000, 10, 10)
    for _ in _ticks():
        for _ in range(100):
            ring: list[object] = [bytes(rng.randint(10, 800))]
            ring.append(ring)


def _leak(rng: random.Random, rate: float, low: int, high: int) -> None:
    churn = _Churn(rng)
    paid = 0.0
    for now in _ticks():
        churn.turn()
        while _owed(rate, now, paid) > 0:
            size = rng.randint(low, high)
            _block(size)
            paid += size


def leak_small(rng: random.Random) -> None:
    _leak(rng, rng.choice([7919, 17389, 48611, 131071]), 48, 600)


def leak_large(rng: random.Random) -> None:
    _leak(rng, rng.choice([17389, 104729, 524287]), 40 << 10, 90 << 10)


def leak_requests(rng: random.Random) -> None:
    """Requests come at random; each leaks the same."""
    churn = _Churn(rng)
    size = rng.choice([9973, 30011, 65537])
    mean_gap = rng.choice([1.0, 2.5, 5.0])
    due = rng.expovariate(1 / mean_gap)
    for now in _ticks():
        churn.turn()
        while now >= due:
            _block(size)
            due += rng.expovariate(1 / mean_gap)


def leak_objects(rng: random.Random) -> None:
    kept: dict[int, object] = {}
    rate = rng.choice([29, 101, 401])
    for now in _ticks():
        junk = [bytes(rng.randint(1, 400)) for _ in range(100)]
        while len(kept) < rate * now:
            kept[len(kept)] = {"name": str(rng.random()), "values": list(range(rng.randint(0, 20)))}
        del junk


def _burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def _alternating(rng: random.Random, leak_bytes_per_second: float) -> None:
    churn = _Churn(rng)
    active, until, paid, worked, last = False, 0.0, 0.0, 0.0, 0.0
    for now in _ticks():
        if now >= until:
            active = not active
            until = now + rng.uniform(12, 25)
        if active:
            churn.turn()
            _burn(0.004)
            worked += now - last
            while _owed(leak_bytes_per_second, worked, paid) > 0:
                paid += 700
                _block(700)
        last = now


def leak_when_active(rng: random.Random) -> None:
    _alternating(rng, rng.choice([30011, 104729]))


def active_and_idle(rng: random.Random) -> None:
    _alternating(rng, 0.0)


def leak_sawtooth(rng: random.Random) -> None:
    _buffered(rng, leak_bytes_per_second=rng.choice([20011, 65537]))


def sawtooth(rng: random.Random) -> None:
    _buffered(rng, leak_bytes_per_second=0.0)


def _buffered(rng: random.Random, leak_bytes_per_second: float) -> None:
    """A buffer fills and is flushed; its pages go back to the kernel each time."""
    buffer: list[mmap.mmap] = []
    period = rng.uniform(5, 14)
    due, paid = period, 0.0
    for now in _ticks():
        pages = mmap.mmap(-1, 24 << 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.write(bytes(24 << 10))
        buffer.append(pages)
        while _owed(leak_bytes_per_second, now, paid) > 0:
            paid += 900
            _block(900)
        if now >= due:
            for pages in buffer:
                pages.close()
            buffer.clear()
            due += period * rng.uniform(0.8, 1.2)


def leak_into_kept_memory(rng: random.Random) -> None:
    """Resident memory stands: the leak eats what the allocator kept of an earlier peak."""
    churn = _Churn(rng)
    peak = [_block(10_000) for _ in range(4000)]
    _block(10_000)  # above the peak: the heap's top cannot shrink
    for address in peak:
        _libc.free(address)
    rate = rng.choice([20011, 65537])
    paid = 0.0
    for now in _ticks():
        churn.turn()
        while _owed(rate, now, paid) > 0:
            paid += 900
            _block(900)


def spikes(rng: random.Random) -> None:
    churn = _Churn(rng)
    due = rng.uniform(10, 60)
    held: list[int] = []
    for now in _ticks():
        churn.turn()
        if now >= due and not held:
            held = [_block(1 << 20) for _ in range(rng.randint(5, 20))]
            due = now + rng.uniform(1, 4)
        elif now >= due:
            for address in held:
                _libc.free(address)
            held = []
            due = now + rng.uniform(30, 90)


def _cache(rng: random.Random, entries: int, per_second: float, entry_bytes: int) -> None:
    """Least-recently-used; the keys' popularity falls by a power law, so hits slow the fill."""
    cache: OrderedDict[int, bytes] = OrderedDict()
    asked = 0
    for now in _ticks():
        while asked < per_second * now:
            asked += 1
            key = int(rng.paretovariate(0.25))
            if key in cache:
                cache.move_to_end(key)
                continue
            cache[key] = bytes(rng.randint(entry_bytes // 2, entry_bytes * 2))
            if len(cache) > entries:
                cache.popitem(last=False)


def cache_fills_then_stops(rng: random.Random) -> None:
    seconds = rng.uniform(15, 60)
    per_second = rng.choice([40, 100, 200])
    _cache(rng, int(seconds * per_second * 0.6), per_second, rng.choice([600, 2000]))


def cache_still_filling(rng: random.Random) -> None:
    """The leak's twin: distinct keys, and a bound that lies far off."""
    kept: dict[int, bytes] = {}
    per_second = rng.choice([13, 53])
    for now in _ticks():
        while len(kept) < per_second * now:
            kept[len(kept)] = bytes(rng.randint(300, 2000))


def retention(rng: random.Random) -> None:
    """Blocks shrink to a small pin; the hole that each leaves is too small for the next one."""
    size = rng.choice([1500, 4000])
    last = _block(size)
    for _ in _ticks():
        # The next block stands behind the last one, so that what is cut off stays a hole.
        following = _block(size)
        _libc.realloc(last, 24)
        last = following


def retention_kept(rng: random.Random) -> None:
    """A burst of small blocks; a few survivors pin all its pages."""
    churn = _Churn(rng, slots=1000)
    blocks = [_block(rng.randint(100, 2000)) for _ in range(20000)]
    for i, address in enumerate(blocks):
        if i % 25:
            _libc.free(address)
    for _ in _ticks():
        churn.turn()


def ring(rng: random.Random) -> None:
    kept: deque[bytes] = deque(maxlen=rng.choice([1000, 4000]))
    for _ in _ticks():
        for _ in range(10):
            kept.append(bytes(rng.randint(100, 4000)))


def expiring_cache(rng: random.Random) -> None:
    """Entries die of age; the load swings."""
    kept: deque[tuple[float, bytes]] = deque()
    age = rng.uniform(10, 40)
    load = 8.0
    for now in _ticks():
        load = min(20.0, max(2.0, load + rng.gauss(0, 0.4)))
        for _ in range(int(load)):
            kept.append((now + age, bytes(rng.randint(500, 4000))))
        while kept and kept[0][0] < now:
            kept.popleft()


def warm_up(rng: random.Random) -> None:
    """Pieces are loaded less and less often."""
    churn = _Churn(rng)
    kept: list[bytes] = []
    goal_bytes, tau = rng.choice([3e6, 12e6]), rng.uniform(6, 40)
    total = 0
    for now in _ticks():
        churn.turn()
        while total < goal_bytes * (1 - 2.718281828 ** (-now / tau)):
            piece = bytes(rng.randint(1000, 20000))
            kept.append(piece)
            total += len(piece)


def doublings(rng: random.Random) -> None:
    """One array, copied to twice its size whenever it is full, filled by ever less."""
    churn = _Churn(rng, slots=1000)
    array, size = _block(100_000), 100_000
    due, gap = rng.uniform(1, 5), rng.uniform(2, 6)
    for now in _ticks():
        churn.turn()
        if now >= due:
            bigger = _block(2 * size)
            _libc.free(array)
            array, size = bigger, 2 * size
            gap *= 2
            due += gap


def buffer_extends(rng: random.Random) -> None:
    """The leak's twin again: one array that is extended a little all the time, to a far bound."""
    values = bytearray()
    step = rng.choice([500, 2000])
    for _ in _ticks():
        values.extend(bytes(step))
        if len(values) > 50_000_000:
            values.clear()


def database(rng: random.Random) -> None:
    base = sqlite3.connect(":memory:")
    base.execute("create table t (k integer primary key, v blob)")
    for _ in _ticks():
        for _ in range(15):
            base.execute(
                "insert or replace into t values (?, ?)",
                (rng.randrange(3000), bytes(rng.randint(10, 1500))),
            )
        base.execute("select count(*), sum(length(v)) from t where k % 7 = 1").fetchall()


def short_threads(rng: random.Random) -> None:
    def work() -> None:
        churn = _Churn(random.Random(1), slots=200)
        for _ in range(5):
            churn.turn()
            time.sleep(0.05)
        for address in churn.table:
            _libc.free(address)

    for _ in _ticks():
        if rng.random() < 0.2:
            threading.Thread(target=work).start()


def thread_leak(rng: random.Random) -> None:
    threading.stack_size(128 << 10)
    started = 0
    for now in _ticks():
        while started < now / 2:
            threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()
            started += 1


def thread_pool(rng: random.Random) -> None:
    """Grows to eight threads as the first requests come, and stays."""
    started = 0
    for now in _ticks():
        if started < 8 and now > 3 * started + 2:
            threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()
            started += 1


def descriptor_leak(rng: random.Random) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    opened = 0
    for now in _ticks():
        while opened < 3 * now:
            os.dup(0)
            opened += 1


KINDS: dict[str, Callable[[random.Random], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        idle,
        churn_malloc,
        churn_large,
        churn_objects,
        churn_cycles,
        leak_small,
        leak_large,
        leak_requests,
        leak_objects,
        leak_when_active,
        active_and_idle,
        leak_sawtooth,
        sawtooth,
        spikes,
        cache_fills_then_stops,
        cache_still_filling,
        retention,
        retention_kept,
        ring,
        expiring_cache,
        warm_up,
        doublings,
        buffer_extends,
        leak_into_kept_memory,
        database,
        short_threads,
        thread_leak,
        thread_pool,
        descriptor_leak,
    )
}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_LIMIT_BYTES, ADDRESS_SPACE_LIMIT_BYTES))
    KINDS[sys.argv[1]](random.Random(int(sys.argv[2])))
