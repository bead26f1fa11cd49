"""Which settings of allocators and runtimes may be read, and by which rule their values are kept.

An environment holds passwords, so names that are not listed here are never looked at, and of the
values of those that are, only numbers, sizes, booleans and listed words survive
(`leakcase_collector.settings_rules`). The same holds for the options of well-known programs that
cap their memory: without its cap, a cache that still fills looks like a leak.

Sources of the names: mallopt(3), "Memory Allocation Tunables" of the glibc manual, jemalloc(3)
(the "opt." names of releases 3 to 5), mimalloc's environment options, gperftools' pages on tcmalloc
and the heap profiler, and the manuals of CPython, Go, Node.js, the JVM, Ruby, .NET, redis,
memcached, PostgreSQL, MariaDB and MongoDB.
"""

from __future__ import annotations

from typing import Optional

from leakcase_collector.settings_rules import (
    FLAG_WORDS,
    PLACEHOLDER,
    Reduced,
    Rule,
    flag,
    gigabytes,
    hexadecimal,
    hexadecimal_size,
    kilobytes,
    libraries,
    megabytes,
    number,
    one_of,
    pages_of_8k,
    pairs,
    presence,
    redis_size,
    size,
)

MAX_TEXT = 240


# --- allocators ---------------------------------------------------------------------------------


def _each(names: str, rule: Rule, prefix: str = "") -> dict[str, Rule]:
    return {prefix + name: rule for name in names.split()}


_GLIBC_TUNABLES: dict[str, Rule] = {
    **_each(
        "arena_max arena_test check perturb mmap_max tcache_count tcache_unsorted_limit hugetlb",
        number,
        "glibc.malloc.",
    ),
    **_each("mmap_threshold trim_threshold top_pad tcache_max mxfast", size, "glibc.malloc."),
    **_each("glibc.pthread.stack_cache_size", size),
    **_each("glibc.pthread.stack_hugetlb glibc.mem.tagging glibc.mem.decorate_maps", number),
}
_JEMALLOC: dict[str, Rule] = {
    **_each(
        """abort abort_conf cache_oblivious trust_madvise retain background_thread zero utrace
        xmalloc tcache prof prof_active prof_thread_active_init prof_accum prof_gdump prof_final
        prof_leak prof_leak_error confirm_conf hpa stats_print redzone valgrind munmap""",
        flag,
    ),
    **_each(
        """narenas max_background_threads dirty_decay_ms muzzy_decay_ms decay_time lg_dirty_mult
        lg_extent_max_active_fit lg_tcache_max lg_prof_sample lg_prof_interval lg_chunk
        prof_bt_max hpa_sec_nshards""",
        number,
    ),
    **_each("oversize_threshold tcache_max quarantine hpa_slab_max_alloc stats_interval", size),
    "metadata_thp": one_of("disabled auto always"),
    "thp": one_of("default always never", flag),
    "dss": one_of("disabled primary secondary"),
    "percpu_arena": one_of("disabled percpu phycpu"),
    "junk": one_of("true false alloc free"),
    "purge": one_of("ratio decay"),
    "prof_prefix": presence,
}
_ALLOCATORS: dict[str, Rule] = {
    **_each("MALLOC_ARENA_MAX MALLOC_ARENA_TEST MALLOC_MMAP_MAX_ MALLOC_CHECK_", number),
    **_each("MALLOC_PERTURB_", number),
    **_each("MALLOC_TRIM_THRESHOLD_ MALLOC_TOP_PAD_ MALLOC_MMAP_THRESHOLD_", size),
    "MALLOC_TRACE": presence,
    "GLIBC_TUNABLES": pairs(":", "=", _GLIBC_TUNABLES),
    **_each("MALLOC_CONF JE_MALLOC_CONF _RJEM_MALLOC_CONF", pairs(",", ":", _JEMALLOC)),
    **_each("HEAPPROFILE", presence),
    "HEAPCHECK": one_of("minimal normal strict draconian as-is local", presence),
    **_each(
        "HEAP_PROFILE_ALLOCATION_INTERVAL HEAP_PROFILE_DEALLOCATION_INTERVAL "
        "HEAP_PROFILE_INUSE_INTERVAL",
        size,
    ),
    **_each("HEAP_PROFILE_TIME_INTERVAL", number),
    **_each("HEAP_PROFILE_MMAP HEAP_PROFILE_ONLY_MMAP HEAP_PROFILE_MMAP_LOG", flag),
    **_each(
        "SAMPLE_PARAMETER LARGE_ALLOC_REPORT_THRESHOLD MAX_TOTAL_THREAD_CACHE_BYTES",
        size,
        "TCMALLOC_",
    ),
    **_each("RELEASE_RATE TRANSFER_NUM_OBJ OVERRIDE_PAGESIZE", number, "TCMALLOC_"),
    **_each("AGGRESSIVE_DECOMMIT DISABLE_MEMORY_RELEASE", flag, "TCMALLOC_"),
    **_each("SKIP_MMAP SKIP_SBRK MEMFS_MAP_PRIVATE", flag, "TCMALLOC_"),
    **_each("HEAP_LIMIT_MB MEMFS_LIMIT_MB DEVMEM_LIMIT", megabytes, "TCMALLOC_"),
    **_each("MEMFS_MALLOC_PATH", presence, "TCMALLOC_"),
    **_each(
        """SHOW_ERRORS SHOW_STATS VERBOSE EAGER_COMMIT EAGER_REGION_COMMIT ARENA_EAGER_COMMIT
        EAGER_COMMIT_DELAY PURGE_DECOMMITS RESET_DECOMMITS ALLOW_DECOMMIT ALLOW_LARGE_OS_PAGES
        LARGE_OS_PAGES ALLOW_THP RESERVE_HUGE_OS_PAGES RESERVE_HUGE_OS_PAGES_AT SEGMENT_CACHE
        PAGE_RESET SEGMENT_RESET ABANDONED_PAGE_RESET ABANDONED_PAGE_PURGE RESET_DELAY
        DECOMMIT_DELAY ARENA_RESET_DELAY PURGE_DELAY PURGE_EXTEND_DELAY ARENA_PURGE_MULT
        USE_NUMA_NODES LIMIT_OS_ALLOC DISALLOW_OS_ALLOC DISALLOW_ARENA_ALLOC OS_TAG MAX_ERRORS
        MAX_WARNINGS MAX_SEGMENT_RECLAIM DESTROY_ON_EXIT ABANDONED_RECLAIM_ON_FREE RETRY_ON_OOM
        VISIT_ABANDONED GENERIC_COLLECT PAGE_RECLAIM_ON_FREE PAGE_FULL_RETAIN
        PAGE_COMMIT_ON_DEMAND TARGET_SEGMENTS_PER_THREAD""",
        one_of(FLAG_WORDS),
        "MIMALLOC_",
    ),
    **_each("RESERVE_OS_MEMORY ARENA_RESERVE MINIMAL_PURGE_SIZE", kilobytes, "MIMALLOC_"),
    "LD_PRELOAD": libraries,
}

# --- runtimes -----------------------------------------------------------------------------------

_RUNTIMES: dict[str, Rule] = {
    "PYTHONMALLOC": one_of(
        "default malloc pymalloc mimalloc debug malloc_debug pymalloc_debug mimalloc_debug"
    ),
    **_each("PYTHONTRACEMALLOC PYTHON_GIL", number),
    **_each("PYTHONMALLOCSTATS PYTHONDEVMODE", flag),
    "GOGC": one_of("off"),
    "GOMEMLIMIT": one_of("off", size),
    "GODEBUG": pairs(
        ",", "=", _each("madvdontneed gctrace scavtrace gcstoptheworld sbrk invalidptr", number)
    ),
    **_each(
        """HEAP_INIT_SLOTS HEAP_0_INIT_SLOTS HEAP_1_INIT_SLOTS HEAP_2_INIT_SLOTS HEAP_3_INIT_SLOTS
        HEAP_4_INIT_SLOTS HEAP_FREE_SLOTS HEAP_GROWTH_FACTOR HEAP_GROWTH_MAX_SLOTS
        HEAP_FREE_SLOTS_MIN_RATIO HEAP_FREE_SLOTS_MAX_RATIO HEAP_FREE_SLOTS_GOAL_RATIO
        HEAP_OLDOBJECT_LIMIT_FACTOR HEAP_REMEMBERED_WB_UNPROTECTED_OBJECTS_LIMIT_RATIO
        MALLOC_LIMIT_GROWTH_FACTOR OLDMALLOC_LIMIT_GROWTH_FACTOR""",
        number,
        "RUBY_GC_",
    ),
    **_each("MALLOC_LIMIT MALLOC_LIMIT_MAX OLDMALLOC_LIMIT OLDMALLOC_LIMIT_MAX", size, "RUBY_GC_"),
    **{
        prefix + name: rule
        for prefix in ("DOTNET_", "COMPlus_")
        for name, rule in {
            **_each("GCHeapHardLimit GCgen0size GCgen0MaxBudget", hexadecimal_size),
            **_each("GCHeapHardLimitPercent GCHighMemPercent GCHeapCount", hexadecimal),
            **_each("GCConserveMemory gcServer gcConcurrent GCRetainVM", hexadecimal),
        }.items()
    },
}

#: Options of the JVM, with their value right behind the name.
_JVM_ATTACHED: dict[str, Rule] = _each("-Xmx -Xms -Xmn -Xss", size)
_JVM_ASSIGNED: dict[str, Rule] = {
    **_each(
        """MaxHeapSize InitialHeapSize SoftMaxHeapSize MaxRAM NewSize MaxNewSize MetaspaceSize
        MaxMetaspaceSize CompressedClassSpaceSize ReservedCodeCacheSize MaxDirectMemorySize
        G1HeapRegionSize""",
        size,
        "-XX:",
    ),
    **_each(
        """MaxRAMPercentage InitialRAMPercentage MinRAMPercentage MinHeapFreeRatio MaxHeapFreeRatio
        G1PeriodicGCInterval SoftRefLRUPolicyMSPerMB ZUncommitDelay""",
        number,
        "-XX:",
    ),
    "-XX:ThreadStackSize": kilobytes,
    "-XX:NativeMemoryTracking": one_of("off summary detail"),
}
_JVM_SWITCHES = frozenset(
    """UseSerialGC UseParallelGC UseG1GC UseZGC UseShenandoahGC UseEpsilonGC ZGenerational
    ZUncommit UseContainerSupport AlwaysPreTouch ExitOnOutOfMemoryError UseLargePages
    UseTransparentHugePages HeapDumpOnOutOfMemoryError UseCompressedOops""".split()
)
_NODE: dict[str, Rule] = _each(
    "--max-old-space-size --max-semi-space-size --initial-old-space-size --max-heap-size", megabytes
)
#: Environment variables that hold options of a runtime rather than a value.
_OPTION_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "NODE_OPTIONS")

# --- programs -----------------------------------------------------------------------------------

_REDIS: dict[str, Rule] = {
    **_each("--maxmemory --maxmemory-clients --client-query-buffer-limit", redis_size),
    "--maxmemory-policy": one_of(
        "noeviction allkeys-lru allkeys-lfu allkeys-random volatile-lru volatile-lfu "
        "volatile-random volatile-ttl"
    ),
    "--activedefrag": flag,
}
_MYSQL: dict[str, Rule] = _each(
    "--innodb-buffer-pool-size --key-buffer-size --tmp-table-size --max-heap-table-size "
    "--query-cache-size",
    size,
)
#: By the program's basename, as only there the option has that meaning (``python -m``).
_PROGRAM_OPTIONS: dict[str, dict[str, Rule]] = {
    "memcached": {**_each("-m --memory-limit", megabytes), **_each("-c --conn-limit", number)},
    **dict.fromkeys(("redis-server", "valkey-server", "keydb-server"), _REDIS),
    **dict.fromkeys(("mysqld", "mariadbd"), _MYSQL),
    "mongod": {"--wiredTigerCacheSizeGB": gigabytes},
    "postgres": {
        **_each("-B --shared_buffers", pages_of_8k),
        **_each("--work_mem --maintenance_work_mem", kilobytes),
    },
}

# --- the list itself ----------------------------------------------------------------------------

_ENVIRONMENT: dict[str, Rule] = {**_ALLOCATORS, **_RUNTIMES}
_BY_NAME: dict[str, Rule] = {
    **_ENVIRONMENT,
    **_JVM_ATTACHED,
    **_JVM_ASSIGNED,
    **{f"-XX:{name}": flag for name in _JVM_SWITCHES},
    **_NODE,
    **{name: rule for options in _PROGRAM_OPTIONS.values() for name, rule in options.items()},
}
#: The only names of environment variables that are ever looked at.
ENVIRONMENT_NAMES: tuple[str, ...] = (*_ENVIRONMENT, *_OPTION_VARIABLES)
#: The programs whose own options are on the list.
PROGRAMS: tuple[str, ...] = tuple(_PROGRAM_OPTIONS)


def reduce_value(name: str, raw: str) -> Optional[Reduced]:
    """The part of a setting's value that may be kept, and its size in bytes where it is one.

    `name` is an environment variable or an option as `option_settings` spells it; None for any
    that is not on the list. The text obeys the grammar of the field class `environment`.
    """
    rule = _BY_NAME.get(name)
    if rule is None:
        return None
    text, value_bytes = rule(raw.strip())
    return (text if len(text) <= MAX_TEXT else PLACEHOLDER), value_bytes


def option_settings(arguments: list[str], program: str) -> list[tuple[str, str]]:
    """The (name, raw value) of each listed option on a command line, argv[0] left out.

    `program` is the basename of the executable. Give an option variable's words the same way.
    """
    known = _PROGRAM_OPTIONS.get(program, {})
    found: list[tuple[str, str]] = []
    for position, raw in enumerate(arguments):
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        setting = _jvm_option(raw) or _assigned_option(raw, following, known)
        if setting is not None:
            found.append(setting)
    return found


def variable_settings(name: str, raw: str) -> list[tuple[str, str]]:
    """What a listed environment variable sets: itself, or each listed option that it holds."""
    if name in _OPTION_VARIABLES:
        return option_settings(raw.split(), "")
    return [(name, raw)] if name in _ENVIRONMENT else []


def _jvm_option(raw: str) -> Optional[tuple[str, str]]:
    if raw[:4] in _JVM_ATTACHED:
        return raw[:4], raw[4:]
    if not raw.startswith("-XX:"):
        return None
    if raw[4:5] in ("+", "-") and raw[5:] in _JVM_SWITCHES:
        return f"-XX:{raw[5:]}", "true" if raw[4] == "+" else "false"
    name, assigned, value = raw.partition("=")
    return (name, value) if assigned and name in _JVM_ASSIGNED else None


def _assigned_option(raw: str, following: str, known: dict[str, Rule]) -> Optional[tuple[str, str]]:
    """``--name=value``, ``--name value``, ``-nvalue``; postgres also says ``-c name=value``."""
    name, assigned, value = raw.partition("=")
    # V8 and MariaDB take underscores for dashes; PostgreSQL's names have them.
    spelled = name if name in known or not name.startswith("--") else name.replace("_", "-")
    if assigned and f"--{name}" in known:
        return f"--{name}", value
    if spelled in _NODE or spelled in known:
        return spelled, value if assigned else following
    attached = raw[:2] if raw[:1] == "-" and raw[2:3].isdigit() else ""
    return (attached, raw[2:]) if attached in known else None
