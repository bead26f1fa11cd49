from __future__ import annotations

from pathlib import Path

from leakcase_bundle.records import Setting
from leakcase_collector.probes.settings import SettingsProbe, known_program, parse_environ
from tests.collector.probes.children import python
from tests.collector.probes.context import RecordingContext
from tests.collector.probes.recording import machine

MIB = 1024 * 1024


def _settings(context: RecordingContext) -> list[tuple[str, str, str, int | None]]:
    SettingsProbe().begin(context, 0)
    return [(s.source, s.name, s.value, s.value_bytes) for s in context.emitted(Setting)]


def test_only_listed_variables_are_taken_out_of_an_environment() -> None:
    content = (
        b"PATH=/bin\0MALLOC_ARENA_MAX=2\0AWS_SECRET_ACCESS_KEY=hunter2\0GOGC=off\0"
        b"XMALLOC_ARENA_MAX=3\0MALLOC_ARENA_MAX\0=GOGC=1\0"
    )
    assert parse_environ(content) == [("MALLOC_ARENA_MAX", "2"), ("GOGC", "off")]


def test_an_environment_overwritten_by_a_title_gives_what_is_left() -> None:
    assert parse_environ(b"alice payroll idle\0\0\0=\0GOGC=5") == [("GOGC", "5")]
    assert parse_environ(b"\0\0\0") == []


def test_a_program_is_known_by_the_first_name_that_is_listed() -> None:
    assert known_program(["redis-server", "redis-check-rdb"]) == "redis-server"
    assert known_program(["payroll", "memcached"]) == "memcached"
    assert known_program(["python3.11"]) == ""
    assert known_program([]) == ""


def test_the_settings_of_a_child_are_reported_and_its_secrets_are_not() -> None:
    environment = {
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_CONF": "narenas:4,prof_prefix:/home/alice/heap",
        "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072",
        "JAVA_TOOL_OPTIONS": "-Xmx512m -Dpassword=hunter2",
        "DATABASE_URL": "postgres://alice:hunter2@db/payroll",
    }
    with python("", environment, ["--max-old-space-size=100", "--password=hunter2"]) as child:
        context = RecordingContext(child.pid)
        found = _settings(context)
    assert sorted(found) == [
        ("arguments", "--max-old-space-size", "100", 100 * MIB),
        ("environment", "-Xmx", "512m", 512 * MIB),
        ("environment", "GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072", None),
        ("environment", "MALLOC_ARENA_MAX", "2", None),
        ("environment", "MALLOC_CONF", "narenas:4,prof_prefix:<value>", None),
    ]
    assert context.gaps == []


def _recorded(tmp_path: Path, cmdline: bytes, exe: str, environ: bytes = b"") -> RecordingContext:
    files = {"/proc/4711/cmdline": cmdline, "/proc/4711/environ": environ}
    return RecordingContext(4711, machine(tmp_path, files, {"/proc/4711/exe": exe}))


def test_a_programs_own_option_is_read_for_that_program_only(tmp_path: Path) -> None:
    memcached = _recorded(tmp_path / "a", b"memcached\x00-m\x001024\x00", "/usr/bin/memcached")
    assert _settings(memcached) == [("arguments", "-m", "1024", 1024 * MIB)]
    other = _recorded(tmp_path / "b", b"python3\x00-m\x001024\x00", "/usr/bin/python3.11")
    assert _settings(other) == []


def test_the_programs_file_tells_where_its_title_does_not(tmp_path: Path) -> None:
    context = _recorded(tmp_path, b"cache-1\x00-m\x0064\x00", "/usr/bin/memcached (deleted)")
    assert _settings(context) == [("arguments", "-m", "64", 64 * MIB)]


def test_of_an_option_given_twice_the_last_counts(tmp_path: Path) -> None:
    context = _recorded(tmp_path, b"java\0-Xmx1g\0-Xmx2g\0", "/usr/bin/java")
    assert _settings(context) == [("arguments", "-Xmx", "2g", 2048 * MIB)]


def test_an_environment_that_cannot_be_read_is_a_gap_and_the_arguments_are_read(
    tmp_path: Path,
) -> None:
    files = {"/proc/4711/cmdline": b"java\0-Xmx1g\0"}
    context = RecordingContext(4711, machine(tmp_path, files))
    assert _settings(context) == [("arguments", "-Xmx", "1g", 1024 * MIB)]
    assert context.gaps == [("not-supported", "environ")]
