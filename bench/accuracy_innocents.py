"""Programs that do not leak, whatever their memory does meanwhile."""

from __future__ import annotations

import gc
import random
import sqlite3
import threading
import time
from collections import OrderedDict, deque

from accuracy_loads import (
    LIBC,
    Churn,
    fill_and_flush,
    ticks,
    touched_block,
    work_and_rest,
)


def idle(rng: random.Random) -> None:
    for _ in ticks():
        pass


def churn_malloc(rng: random.Random) -> None:
    churn = Churn(rng, slots=rng.choice([1000, 4000, 8000]))
    for _ in ticks():
        churn.turn()


def churn_large(rng: random.Random) -> None:
    churn = Churn(rng, slots=20, low_bytes=8 << 10, high_bytes=512 << 10, per_tick=2)
    for _ in ticks():
        churn.turn()


def churn_objects(rng: random.Random) -> None:
    table: list[object] = [None] * 8000
    for _ in ticks():
        for _ in range(200):
            size = rng.randint(1, 300)
            table[rng.randrange(len(table))] = rng.choice([bytes, list, str])(range(size % 250))


def churn_cycles(rng: random.Random) -> None:
    gc.set_threshold(5000, 10, 10)
    for _ in ticks():
        for _ in range(100):
            ring: list[object] = [bytes(rng.randint(10, 800))]
            ring.append(ring)


def active_and_idle(rng: random.Random) -> None:
    work_and_rest(rng, 0.0)


def sawtooth(rng: random.Random) -> None:
    fill_and_flush(rng, leak_bytes_per_second=0.0)


def spikes(rng: random.Random) -> None:
    churn = Churn(rng)
    due = rng.uniform(10, 60)
    held: list[int] = []
    for now in ticks():
        churn.turn()
        if now >= due and not held:
            held = [touched_block(1 << 20) for _ in range(rng.randint(5, 20))]
            due = now + rng.uniform(1, 4)
        elif now >= due:
            for address in held:
                LIBC.free(address)
            held = []
            due = now + rng.uniform(30, 90)


def _cache(rng: random.Random, entries: int, per_second: float, entry_bytes: int) -> None:
    """Least-recently-used; the keys' popularity falls by a power law, so hits slow the fill."""
    cache: OrderedDict[int, bytes] = OrderedDict()
    asked = 0
    for now in ticks():
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


def retention(rng: random.Random) -> None:
    """Blocks shrink to a small pin; the hole that each leaves is too small for the next one."""
    size = rng.choice([1500, 4000])
    last = touched_block(size)
    for _ in ticks():
        # The next block stands behind the last one, so that what is cut off stays a hole.
        following = touched_block(size)
        LIBC.realloc(last, 24)
        last = following


def retention_kept(rng: random.Random) -> None:
    """A burst of small blocks; a few survivors pin all its pages."""
    churn = Churn(rng, slots=1000)
    blocks = [touched_block(rng.randint(100, 2000)) for _ in range(20000)]
    for i, address in enumerate(blocks):
        if i % 25:
            LIBC.free(address)
    for _ in ticks():
        churn.turn()


def ring(rng: random.Random) -> None:
    kept: deque[bytes] = deque(maxlen=rng.choice([1000, 4000]))
    for _ in ticks():
        for _ in range(10):
            kept.append(bytes(rng.randint(100, 4000)))


def expiring_cache(rng: random.Random) -> None:
    """Entries die of age; the load swings."""
    kept: deque[tuple[float, bytes]] = deque()
    age = rng.uniform(10, 40)
    load = 8.0
    for now in ticks():
        load = min(20.0, max(2.0, load + rng.gauss(0, 0.4)))
        for _ in range(int(load)):
            kept.append((now + age, bytes(rng.randint(500, 4000))))
        while kept and kept[0][0] < now:
            kept.popleft()


def warm_up(rng: random.Random) -> None:
    """Pieces are loaded less and less often."""
    churn = Churn(rng)
    kept: list[bytes] = []
    goal_bytes, tau = rng.choice([3e6, 12e6]), rng.uniform(6, 40)
    total = 0
    for now in ticks():
        churn.turn()
        while total < goal_bytes * (1 - 2.718281828 ** (-now / tau)):
            piece = bytes(rng.randint(1000, 20000))
            kept.append(piece)
            total += len(piece)


def doublings(rng: random.Random) -> None:
    """One array, copied to twice its size whenever it is full, filled by ever less."""
    churn = Churn(rng, slots=1000)
    array, size = touched_block(100_000), 100_000
    due, gap = rng.uniform(1, 5), rng.uniform(2, 6)
    for now in ticks():
        churn.turn()
        if now >= due:
            bigger = touched_block(2 * size)
            LIBC.free(array)
            array, size = bigger, 2 * size
            gap *= 2
            due += gap


def database(rng: random.Random) -> None:
    base = sqlite3.connect(":memory:")
    base.execute("create table t (k integer primary key, v blob)")
    for _ in ticks():
        for _ in range(15):
            base.execute(
                "insert or replace into t values (?, ?)",
                (rng.randrange(3000), bytes(rng.randint(10, 1500))),
            )
        base.execute("select count(*), sum(length(v)) from t where k % 7 = 1").fetchall()


def short_threads(rng: random.Random) -> None:
    def work() -> None:
        churn = Churn(random.Random(1), slots=200)
        for _ in range(5):
            churn.turn()
            time.sleep(0.05)
        for address in churn.table:
            LIBC.free(address)

    for _ in ticks():
        if rng.random() < 0.2:
            threading.Thread(target=work).start()


def thread_pool(rng: random.Random) -> None:
    """Grows to eight threads as the first requests come, and stays."""
    started = 0
    for now in ticks():
        if started < 8 and now > 3 * started + 2:
            threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()
            started += 1
