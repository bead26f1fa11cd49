"""Settings: what is read of an environment and a command line, and what is kept of the values."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakcase_bundle.strings import ArgumentToken, EnvironmentToken
from leakcase_collector.settings_allowlist import (
    ENVIRONMENT_NAMES,
    option_settings,
    reduce_value,
    variable_settings,
)

MIB = 1024 * 1024
SECRET = "hunter2"


@pytest.mark.parametrize(
    ("name", "raw", "text", "value_bytes"),
    [
        ("MALLOC_ARENA_MAX", "2", "2", None),
        ("MALLOC_TRIM_THRESHOLD_", "131072", "131072", 131072),
        ("MALLOC_TRIM_THRESHOLD_", "-1", "-1", None),
        ("MALLOC_MMAP_THRESHOLD_", "0x20000", "0x20000", 131072),
        ("MALLOC_TRACE", "/home/alice/trace", "<value>", None),
        ("MALLOC_CONF", "prof:true,narenas:4", "prof:true,narenas:4", None),
        (
            "MALLOC_CONF",
            f"prof_prefix:/home/alice/heap,dirty_decay_ms:-1,{SECRET}:1,narenas:{SECRET}",
            "prof_prefix:<value>,dirty_decay_ms:-1,<value>,narenas:<value>",
            None,
        ),
        (
            "GLIBC_TUNABLES",
            f"glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=0x40000:{SECRET}=1",
            "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=0x40000:<value>",
            None,
        ),
        ("HEAPPROFILE", "/home/alice/heap", "<value>", None),
        ("HEAPCHECK", "strict", "strict", None),
        ("TCMALLOC_RELEASE_RATE", "1.5", "1.5", None),
        ("TCMALLOC_HEAP_LIMIT_MB", "512", "512", 512 * MIB),
        ("MIMALLOC_PURGE_DELAY", "-1", "-1", None),
        ("MIMALLOC_RESERVE_OS_MEMORY", "1048576", "1048576", 1024 * MIB),
        ("PYTHONMALLOC", "malloc_debug", "malloc_debug", None),
        ("PYTHONMALLOC", SECRET, "<value>", None),
        ("PYTHONMALLOCSTATS", "", "", None),
        ("GOGC", "off", "off", None),
        ("GOMEMLIMIT", "750MiB", "750MiB", 750 * MIB),
        ("GODEBUG", f"madvdontneed=1,x={SECRET}", "madvdontneed=1,<value>", None),
        ("RUBY_GC_HEAP_GROWTH_FACTOR", "1.1", "1.1", None),
        ("DOTNET_GCHeapHardLimit", "C800000", "C800000", 200 * MIB),
        ("-Xmx", "512m", "512m", 512 * MIB),
        ("-Xmx", SECRET, "<value>", None),
        ("-XX:MaxRAMPercentage", "75.0", "75.0", None),
        ("-XX:UseG1GC", "true", "true", None),
        ("--max-old-space-size", "4096", "4096", 4096 * MIB),
        ("--maxmemory", "100mb", "100mb", 100 * MIB),
        ("--maxmemory", "100m", "100m", 100_000_000),
        ("--maxmemory-policy", "allkeys-lru", "allkeys-lru", None),
        ("-m", "64", "64", 64 * MIB),
        ("--wiredTigerCacheSizeGB", "1.5", "1.5", 1536 * MIB),
        ("-B", "16384", "16384", 128 * MIB),
        (
            "LD_PRELOAD",
            "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2:/home/alice/libhook.so libasan.so.8",
            "libjemalloc.so.2:<value>:libasan.so.8",
            None,
        ),
        ("MALLOC_TRIM_THRESHOLD_", "99999999999999999999", "99999999999999999999", None),
    ],
)
def test_a_listed_value_keeps_its_numbers_and_known_words_only(
    name: str, raw: str, text: str, value_bytes: Optional[int]
) -> None:
    assert reduce_value(name, raw) == (text, value_bytes)


@pytest.mark.parametrize("name", ["PATH", "HOME", "AWS_SECRET_ACCESS_KEY", "malloc_conf", ""])
def test_a_name_that_is_not_listed_is_not_read(name: str) -> None:
    assert reduce_value(name, "1") is None
    assert variable_settings(name, "1") == []


def test_a_list_that_does_not_fit_a_token_is_dropped_as_a_whole() -> None:
    assert reduce_value("MALLOC_CONF", ",".join(["narenas:4"] * 60)) == ("<value>", None)


@pytest.mark.parametrize(
    ("program", "arguments", "found"),
    [
        (
            "java",
            ["-Xmx512m", "-XX:+UseG1GC", "-XX:MaxRAMPercentage=75", "-jar", "secret.jar"],
            [("-Xmx", "512m"), ("-XX:UseG1GC", "true"), ("-XX:MaxRAMPercentage", "75")],
        ),
        ("node", ["--max_old_space_size=4096"], [("--max-old-space-size", "4096")]),
        ("redis-server", ["--maxmemory", "100mb"], [("--maxmemory", "100mb")]),
        ("memcached", ["-m", "64", "-u", "alice"], [("-m", "64")]),
        ("memcached", ["-m64"], [("-m", "64")]),
        ("postgres", ["-c", "shared_buffers=128MB"], [("--shared_buffers", "128MB")]),
        ("mysqld", ["--innodb_buffer_pool_size=1G"], [("--innodb-buffer-pool-size", "1G")]),
        ("python3.11", ["-m", "http.server"], []),
        ("python3.11", ["--maxmemory", "100mb"], []),
        ("memcached", ["-m"], [("-m", "")]),
    ],
)
def test_options_that_cap_memory_are_found_for_the_programs_that_have_them(
    program: str, arguments: list[str], found: list[tuple[str, str]]
) -> None:
    assert option_settings(arguments, program) == found


def test_variables_that_hold_options_are_taken_apart() -> None:
    raw = f"-Xmx1g -Djavax.net.ssl.keyStorePassword={SECRET} -XX:-UseContainerSupport"
    assert variable_settings("JAVA_TOOL_OPTIONS", raw) == [
        ("-Xmx", "1g"),
        ("-XX:UseContainerSupport", "false"),
    ]
    assert variable_settings("NODE_OPTIONS", "--max-old-space-size=256 --require /home/x.js") == [
        ("--max-old-space-size", "256")
    ]


LISTED = [n for n in ENVIRONMENT_NAMES if reduce_value(n, "") is not None]
VALUES = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="abz019_:=,.-+xXkMgB% \n/<>", max_size=300),
    st.lists(st.sampled_from(["narenas:4", "prof:true", "x", "1", "=", "-1"]), max_size=80).map(
        ",".join
    ),
)


@given(st.sampled_from([*LISTED, "-Xmx", "--maxmemory", "-m", "--wiredTigerCacheSizeGB"]), VALUES)
def test_whatever_the_value_the_result_obeys_the_grammar_and_fits(name: str, raw: str) -> None:
    reduced = reduce_value(name, raw)
    assert reduced is not None
    text, value_bytes = reduced
    assert EnvironmentToken(text).is_well_formed()
    assert value_bytes is None or 0 <= value_bytes < 1 << 63


@given(st.sampled_from(LISTED), st.text(alphabet="ghjqvwz", min_size=4, max_size=12))
def test_words_that_are_not_listed_never_survive(name: str, word: str) -> None:
    for raw in (word, f"{word}:1", f"narenas:{word}", f"1,{word}", f"/{word}/lib{word}.so"):
        reduced = reduce_value(name, raw)
        assert reduced is not None
        assert word not in reduced[0]


@given(
    st.lists(st.one_of(st.text(max_size=30), st.sampled_from(["-m", "-Xmx1", "-XX:+", "=", "--"]))),
    st.sampled_from(["memcached", "postgres", "java", "", "redis-server"]),
)
def test_any_command_line_is_understood_or_left_alone(arguments: list[str], program: str) -> None:
    for name, raw in option_settings(arguments, program):
        assert reduce_value(name, raw) is not None
        assert ArgumentToken(name).is_well_formed()


@pytest.mark.parametrize("name", ENVIRONMENT_NAMES)
def test_every_listed_name_may_be_written_as_a_settings_name(name: str) -> None:
    assert ArgumentToken(name).is_well_formed()
