"""Programs that leak, and their twins: caches too far from their bound to be told apart."""

from __future__ import annotations

import os
import random
import resource
import threading
import time

from accuracy_loads import (
    LIBC,
    Churn,
    fill_and_flush,
    owed,
    ticks,
    touched_block,
    work_and_rest,
)


def _leak(rng: random.Random, rate: float, low: int, high: int) -> None:
    churn = Churn(rng)
    paid = 0.0
    for now in ticks():
        churn.turn()
        while owed(rate, now, paid) > 0:
            size = rng.randint(low, high)
            touched_block(size)
            paid += size


def leak_small(rng: random.Random) -> None:
    _leak(rng, rng.choice([7919, 17389, 48611, 131071]), 48, 600)


def leak_large(rng: random.Random) -> None:
    _leak(rng, rng.choice([17389, 104729, 524287]), 40 << 10, 90 << 10)


def leak_requests(rng: random.Random) -> None:
    """Requests come at random; each leaks the same."""
    churn = Churn(rng)
    size = rng.choice([9973, 30011, 65537])
    mean_gap = rng.choice([1.0, 2.5, 5.0])
    due = rng.expovariate(1 / mean_gap)
    for now in ticks():
        churn.turn()
        while now >= due:
            touched_block(size)
            due += rng.expovariate(1 / mean_gap)


def leak_objects(rng: random.Random) -> None:
    kept: dict[int, object] = {}
    rate = rng.choice([29, 101, 401])
    for now in ticks():
        junk = [bytes(rng.randint(1, 400)) for _ in range(100)]
        while len(kept) < rate * now:
            kept[len(kept)] = {"name": str(rng.random()), "values": list(range(rng.randint(0, 20)))}
        del junk


def leak_when_active(rng: random.Random) -> None:
    work_and_rest(rng, rng.choice([30011, 104729]))


def leak_sawtooth(rng: random.Random) -> None:
    fill_and_flush(rng, leak_bytes_per_second=rng.choice([20011, 65537]))


def leak_into_kept_memory(rng: random.Random) -> None:
    """Resident memory stands: the leak eats what the allocator kept of an earlier peak."""
    churn = Churn(rng)
    peak = [touched_block(10_000) for _ in range(4000)]
    touched_block(10_000)  # above the peak: the heap's top cannot shrink
    for address in peak:
        LIBC.free(address)
    rate = rng.choice([20011, 65537])
    paid = 0.0
    for now in ticks():
        churn.turn()
        while owed(rate, now, paid) > 0:
            paid += 900
            touched_block(900)


def cache_still_filling(rng: random.Random) -> None:
    """The leak's twin: distinct keys, and a bound that lies far off."""
    kept: dict[int, bytes] = {}
    per_second = rng.choice([13, 53])
    for now in ticks():
        while len(kept) < per_second * now:
            kept[len(kept)] = bytes(rng.randint(300, 2000))


def buffer_extends(rng: random.Random) -> None:
    """The leak's twin again: one array that is extended a little all the time, to a far bound."""
    values = bytearray()
    step = rng.choice([500, 2000])
    for _ in ticks():
        values.extend(bytes(step))
        if len(values) > 50_000_000:
            values.clear()


def thread_leak(rng: random.Random) -> None:
    threading.stack_size(128 << 10)
    started = 0
    for now in ticks():
        while started < now / 2:
            threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()
            started += 1


def descriptor_leak(rng: random.Random) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    opened = 0
    for now in ticks():
        while opened < 3 * now:
            os.dup(0)
            opened += 1
