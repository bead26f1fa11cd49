"""Harmless programs of known truth whose memory `accuracy_record.py` records.

Run as `accuracy_programs.py KIND SEED`. Every program paces itself to a few per cent of a core,
limits its own address space and stops when its parent ends it.
"""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Callable

import accuracy_innocents as innocents
import accuracy_leaks as leaks

ADDRESS_SPACE_LIMIT_BYTES = 1 << 30

KINDS: dict[str, Callable[[random.Random], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        leaks.leak_small,
        leaks.leak_large,
        leaks.leak_requests,
        leaks.leak_objects,
        leaks.leak_when_active,
        leaks.leak_sawtooth,
        leaks.leak_into_kept_memory,
        leaks.cache_still_filling,
        leaks.buffer_extends,
        leaks.thread_leak,
        leaks.descriptor_leak,
        innocents.idle,
        innocents.churn_malloc,
        innocents.churn_large,
        innocents.churn_objects,
        innocents.churn_cycles,
        innocents.active_and_idle,
        innocents.sawtooth,
        innocents.spikes,
        innocents.cache_fills_then_stops,
        innocents.retention,
        innocents.retention_kept,
        innocents.ring,
        innocents.expiring_cache,
        innocents.warm_up,
        innocents.doublings,
        innocents.database,
        innocents.short_threads,
        innocents.thread_pool,
    )
}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_LIMIT_BYTES, ADDRESS_SPACE_LIMIT_BYTES))
    KINDS[sys.argv[1]](random.Random(int(sys.argv[2])))
