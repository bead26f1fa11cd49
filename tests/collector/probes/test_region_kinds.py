from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakcase_bundle.vocabulary import VOCABULARIES
from leakcase_collector.probes.region_groups import Group, RegionTally
from leakcase_collector.probes.region_kinds import (
    FILE,
    ProcessFacts,
    classify_named,
    is_arena_heap,
    stack_sizes,
)
from leakcase_collector.probes.region_text import MapLine, map_lines, parse_map_line
from tests.collector.probes.recording import recorded
from tests.collector.probes.texts import changed

MB = 1 << 20
STACK = 8 * MB
FACTS = ProcessFacts(
    executable=b"/usr/bin/service",
    tmpfs_devices=frozenset((b"00:1a",)),
    huge_page_devices=frozenset((b"00:20",)),
    stack_limit_bytes=STACK,
    threads=4,
)


def groups_of(text: bytes, facts: ProcessFacts = FACTS, flags: bytes = b"") -> list[Group]:
    """The groups of a text of maps."""
    tally = RegionTally(facts)
    for line in map_lines([text]):
        assert line is not None
        tally.add(line, (), flags)
    return tally.groups(10_000)


def kinds_of(text: bytes, facts: ProcessFacts = FACTS) -> dict[str, int]:
    """Kind to number of mappings."""
    out: dict[str, int] = {}
    for group in groups_of(text, facts):
        out[group.key.kind] = out.get(group.key.kind, 0) + group.sums[0]
    return out


def row(start: int, size: int, permissions: str, path: str = "", device: str = "00:00") -> bytes:
    """One line of maps."""
    return f"{start:x}-{start + size:x} {permissions} 00000000 {device} 0 {path}\n".encode()


@pytest.mark.parametrize(
    ("permissions", "device", "path", "kind"),
    [
        ("rw-p", "00:00", "[heap]", "main-heap"),
        ("rw-p", "00:00", "[stack]", "main-stack"),
        ("rw-p", "00:00", "[stack:4712]", "thread-stack"),
        ("rw-p", "00:00", "[anon:stack_and_tls:4712]", "thread-stack"),
        ("rw-p", "00:00", "[anon: glibc: pthread stack: 4712]", "thread-stack"),
        ("rw-p", "00:00", "[anon: glibc: malloc arena]", "arena-heap"),
        ("rw-p", "00:00", "[anon:cache]", "anonymous"),
        ("---p", "00:00", "[anon:cache]", "reserved"),
        ("rwxp", "00:00", "[anon:jit]", "jit-code"),
        ("rw-s", "00:01", "[anon_shmem:pool]", "shared-anonymous"),
        ("r-xp", "00:00", "[vdso]", "vdso"),
        ("r--p", "00:00", "[vvar]", "vdso"),
        ("r--p", "00:00", "[vvar_vclock]", "vdso"),
        ("--xp", "00:00", "[vsyscall]", "vdso"),
        ("r-xp", "00:00", "[something new]", "other"),
        ("rw-s", "00:01", "/dev/zero (deleted)", "shared-anonymous"),
        ("rw-p", "00:05", "/dev/zero", "anonymous"),
        ("rw-s", "00:01", "/SYSV0052e2c1 (deleted)", "sysv-shared-memory"),
        ("rw-s", "00:01", "/memfd:pool (deleted)", "memfd"),
        ("r-xs", "00:01", "/memfd:doublemapper (deleted)", "jit-code"),
        ("rw-s", "00:1a", "/dev/shm/ring", "tmpfs-file"),
        ("rw-s", "00:1a", "/run/service/state", "tmpfs-file"),
        ("rw-s", "00:1a", "/run/service/state (deleted)", "tmpfs-file"),
        ("rw-p", "00:0f", "/anon_hugepage (deleted)", "huge-pages"),
        ("rw-s", "00:20", "/mnt/huge/pool", "huge-pages"),
        ("rw-s", "00:05", "/dev/nvidia0", "gpu-device"),
        ("rw-s", "00:05", "/dev/dri/renderD128", "gpu-device"),
        ("rw-s", "00:01", "/drm mm object (deleted)", "gpu-device"),
        ("rw-s", "00:0c", "anon_inode:i915.gem", "gpu-device"),
        ("rw-s", "00:0b", "/dmabuf:", "gpu-device"),
        ("rw-s", "00:0e", "anon_inode:[io_uring]", "io-uring"),
        ("rw-s", "00:0e", "anon_inode:[perf_event]", "other"),
        ("rw-s", "00:09", "socket:[4711]", "other"),
        ("rw-s", "00:15", "/[aio] (deleted)", "other"),
        ("rw-s", "00:05", "/dev/uio0", "device"),
        ("r--p", "08:01", "/srv/data/table", FILE),
    ],
)
def test_a_path_tells_the_kind(permissions: str, device: str, path: str, kind: str) -> None:
    line = parse_map_line(row(0x7F0000000000, 4096, permissions, path, device)[:-1])
    assert line is not None
    assert classify_named(line, FACTS).kind == kind


def test_a_name_given_by_the_program_is_kept_apart_from_paths() -> None:
    line = MapLine(0, 4096, b"rw-s", b"00:01", b"/memfd:pool (deleted)")
    named = classify_named(line, FACTS)
    assert (named.path, named.name) == (b"", b"pool")


def test_a_file_with_an_executable_mapping_is_a_library_in_all_its_mappings() -> None:
    at = 0x7F0000000000
    text = b"".join(
        (
            row(at, 4096, "r--p", "/opt/lib/a.so", "08:01"),
            row(at + 4096, 8192, "r-xp", "/opt/lib/a.so", "08:01"),
            row(at + 12288, 4096, "rw-p", "/opt/lib/a.so", "08:01"),
            row(at + 0x100000, 4096, "r--p", "/opt/lib/words", "08:01"),
            row(at + 0x200000, 4096, "rw-s", "/opt/lib/words", "08:01"),
            row(at + 0x300000, 4096, "r-xp", "/usr/bin/service", "08:01"),
            row(at + 0x400000, 4096, "rw-p", "/usr/bin/service", "08:01"),
        )
    )
    assert kinds_of(text) == {
        "library-code": 2,
        "library-data": 1,
        "file-data": 1,
        "shared-file": 1,
        "program-code": 1,
        "program-data": 1,
    }


def test_an_upgraded_library_stays_a_library_and_an_unlinked_file_does_not() -> None:
    at = 0x7F0000000000
    text = b"".join(
        (
            row(at, 4096, "r-xp", "/usr/lib/a.so (deleted)", "08:01"),
            row(at + 4096, 4096, "rw-p", "/usr/lib/a.so (deleted)", "08:01"),
            row(at + 0x100000, 4096, "rw-s", "/srv/scratch (deleted)", "08:01"),
        )
    )
    assert kinds_of(text) == {"library-code": 1, "library-data": 1, "deleted-file": 1}


def test_zeroed_data_behind_a_library_is_its_data_but_not_behind_a_data_file() -> None:
    at = 0x7F0000000000
    library = row(at, 4096, "r-xp", "/usr/lib/a.so", "08:01")
    library += row(at + 4096, 4096, "rw-p", "/usr/lib/a.so", "08:01")
    library += row(at + 8192, 40960, "rw-p")
    assert kinds_of(library) == {"library-code": 1, "library-data": 2}
    data = row(at, 4096, "rw-p", "/srv/archive", "08:01") + row(at + 4096, 40960, "rw-p")
    assert kinds_of(data) == {"file-data": 1, "anonymous": 1}


@pytest.mark.parametrize(
    "own_bytes, mapped_bytes, kind",
    [
        (4096, 3 * MB, "anonymous"),
        (3 * MB, 3 * MB, "library-data"),
        (None, 3 * MB, "library-data"),
        (0, 40960, "library-data"),
    ],
)
def test_memory_behind_a_librarys_data_that_exceeds_its_bss_is_not_the_librarys(
    own_bytes: int | None, mapped_bytes: int, kind: str
) -> None:
    at = 0x7F0000000000
    library = row(at, 4096, "r-xp", "/usr/lib/a.so", "08:01")
    library += row(at + 4096, 4096, "rw-p", "/usr/lib/a.so", "08:01")
    asked: list[bytes] = []

    def bss_bytes(path: bytes) -> int | None:
        asked.append(path)
        return own_bytes

    found = kinds_of(
        library + row(at + 8192, mapped_bytes, "rw-p"), FACTS._replace(bss_bytes=bss_bytes)
    )
    expected = {"library-code": 1, "library-data": 1}
    expected[kind] = expected.get(kind, 0) + 1
    assert found == expected
    assert asked == ([b"/usr/lib/a.so"] if mapped_bytes > MB else [])


def test_anonymous_mappings_by_their_protections() -> None:
    at = 0x10000
    text = b"".join(
        row(at + n * 0x100000, 4096, permissions)
        for n, permissions in enumerate(("rw-p", "r--p", "---p", "rwxp", "r-xp", "rw-s"))
    )
    assert kinds_of(text) == {
        "anonymous": 2,
        "reserved": 1,
        "jit-code": 2,
        "shared-anonymous": 1,
    }


# --- arenas -------------------------------------------------------------------------------------


def test_a_heap_of_an_arena_reaches_with_its_reserve_to_the_next_64_mib() -> None:
    start = 0x7FED6C000000
    text = row(start, 132 << 10, "rw-p") + row(start + (132 << 10), 64 * MB - (132 << 10), "---p")
    assert kinds_of(text) == {"arena-heap": 1, "reserved": 1}


def test_a_full_heap_of_an_arena_has_no_reserve() -> None:
    text = row(0x7FED6C000000, 64 * MB, "rw-p")
    (heap,) = groups_of(text, flags=b" rd wr mr mw me nr sd")
    assert heap.key.kind == "arena-heap"


def test_full_heaps_that_the_kernel_joined_with_the_next_one_are_of_an_arena() -> None:
    start, size = 0x7FED6C000000, 65 * MB
    text = row(start, size, "rw-p") + row(start + size, 63 * MB, "---p")
    assert kinds_of(text) == {"arena-heap": 1, "reserved": 1}


def test_an_aligned_buffer_of_64_mib_is_no_arena() -> None:
    text = row(0x7FED6C000000, 64 * MB, "rw-p")
    for flags in (b" rd wr mr mw me ac", b""):
        (buffer,) = groups_of(text, flags=flags)
        assert buffer.key.kind == "anonymous"


def test_a_small_reserve_of_an_arena_is_no_guard_for_the_next_arena() -> None:
    first, second = 0x7FED6C000000, 0x7FED70000000
    text = row(first, 64 * MB - 4096, "rw-p") + row(second - 4096, 4096, "---p")
    text += row(second, STACK, "rw-p") + row(second + STACK, 64 * MB - STACK, "---p")
    assert kinds_of(text) == {"arena-heap": 2, "reserved": 2}


@pytest.mark.parametrize(
    ("start", "size", "reserve"),
    [
        (0x7FED6C001000, 1 * MB, 63 * MB - 4096),  # not aligned
        (0x7FED6C000000, 1 * MB, 1 * MB),  # the reserve ends before
        (0x7FED6C000000, 1 * MB, 0),  # no reserve
        (0xC000000000, 4 * MB, 60 * MB),  # Go's first arena
        (0x1C000000000, 4 * MB, 60 * MB),  # Go's second hint
    ],
)
def test_other_aligned_or_reserved_memory_is_no_arena(start: int, size: int, reserve: int) -> None:
    line = MapLine(start, start + size, b"rw-p", b"00:00", b"")
    following = MapLine(line.end, line.end + reserve, b"---p", b"00:00", b"") if reserve else None
    assert not is_arena_heap(line, following, b"")


# --- stacks -------------------------------------------------------------------------------------


def stacks(count: int, size: int, guard: int = 4096, at: int = 0x7F0000000000) -> bytes:
    """Stacks below each other as pthread_create makes them."""
    out = b""
    for number in range(count):
        start = at + number * (size + guard)
        out += row(start, guard, "---p") + row(start + guard, size, "rw-p")
    return out


def test_a_guard_and_the_stack_limits_size_make_a_stack() -> None:
    assert kinds_of(stacks(3, STACK)) == {"thread-stack": 3, "reserved": 3}


def test_stacks_that_were_asked_for_in_another_size_are_seen_as_well() -> None:
    assert kinds_of(stacks(3, 256 << 10)) == {"thread-stack": 3, "reserved": 3}
    # A JVM puts its guard of 16 KiB inside the megabyte that it asks for.
    assert kinds_of(stacks(3, 1008 << 10, 16 << 10)) == {"thread-stack": 3, "reserved": 3}


def test_the_topmost_stack_is_seen_though_the_kernel_joined_it_with_its_neighbour() -> None:
    assert kinds_of(stacks(1, STACK + 12288)) == {"thread-stack": 1, "reserved": 1}


def test_a_stack_that_was_joined_with_more_data_than_stack_is_data() -> None:
    assert kinds_of(stacks(1, STACK + 64 * MB)) == {"anonymous": 1, "reserved": 1}


def test_a_program_that_guards_its_buffers_does_not_have_a_thousand_stacks() -> None:
    text = stacks(1000, 64 << 10) + stacks(3, STACK, at=0x7E0000000000)
    facts = FACTS._replace(threads=4)
    assert kinds_of(text, facts) == {"thread-stack": 3, "anonymous": 1000, "reserved": 1003}


def test_pages_between_guards_are_too_small_for_stacks() -> None:
    assert kinds_of(stacks(100, 4096), FACTS._replace(threads=200)) == {
        "anonymous": 100,
        "reserved": 100,
    }


def test_stacks_guarded_from_inside_show_by_their_flag_and_size() -> None:
    text = row(0x7F0000000000, 3 * STACK, "rw-p")
    (flagged,) = groups_of(text, flags=b" rd wr ac nh")
    (plain,) = groups_of(text)
    assert (flagged.key.kind, plain.key.kind) == ("thread-stack", "anonymous")


def test_a_recorded_jvm_has_a_stack_for_each_thread_and_an_arena_for_each_that_glibc_allows() -> (
    None
):
    facts = ProcessFacts(
        executable=b"/usr/lib/jvm/java-17-openjdk-amd64/bin/java",
        stack_limit_bytes=STACK,
        threads=19,
    )
    kinds = kinds_of(recorded("maps-jvm-17-threads-19.txt"), facts)
    # All 18, and one table of the garbage collector that has a guard and a round size.
    assert kinds["thread-stack"] == 19
    # On that machine of two cores glibc made no more than 8 arenas a core, one the main heap.
    assert kinds["arena-heap"] == 15
    assert kinds["main-heap"] == 1
    assert kinds["main-stack"] == 1
    assert kinds["program-code"] == 4


def test_the_limits_size_is_taken_first_then_the_most_frequent() -> None:
    candidates = {STACK: 2, 64 << 10: 900, 1 << 20: 5}
    assert stack_sizes(candidates, 8, STACK) == {STACK, 1 << 20}
    assert stack_sizes(candidates, None, STACK) == set(candidates)
    assert stack_sizes({}, 8, None) == set()


# --- sums and bounds ----------------------------------------------------------------------------

_ROWS = st.builds(
    row,
    st.integers(1, 1 << 30).map(lambda page: page * 4096),
    st.sampled_from([4096, 16384, 65536, STACK, 64 * MB]),
    st.sampled_from(["rw-p", "r--p", "---p", "r-xp", "rwxp", "rw-s", "?!%-"]),
    st.one_of(
        st.sampled_from(["", "[heap]", "[stack]", "/dev/zero (deleted)", "[anon:x]"]),
        st.integers(0, 40).map(lambda number: f"/srv/file-{number}"),
    ),
    st.sampled_from(["00:00", "08:01", "00:1a"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_ROWS, max_size=60), st.integers(1, 12))
def test_groups_add_up_to_all_mappings_and_keep_to_their_limit(
    rows: list[bytes], limit: int
) -> None:
    tally = RegionTally(FACTS)
    lines = [line for line in map_lines([b"".join(rows)]) if line is not None]
    for line in lines:
        tally.add(line, ())
    groups = tally.groups(limit)
    assert sum(group.sums[0] for group in groups) == len(rows)
    assert sum(group.sums[1] for group in groups) == sum(line.end - line.start for line in lines)
    assert len(groups) <= limit + len({group.key.kind for group in groups})
    assert {group.key.kind for group in groups} <= VOCABULARIES["region_kind"]


def test_a_hundred_thousand_files_are_folded_without_losing_a_byte() -> None:
    tally = RegionTally(FACTS)
    for number in range(100_000):
        start = 0x10000 + number * 8192
        tally.add(MapLine(start, start + 4096, b"r--p", b"08:01", b"/srv/%d" % number), ())
    groups = tally.groups(300)
    assert sum(group.sums[1] for group in groups) == 100_000 * 4096
    assert sum(group.sums[0] for group in groups) == 100_000
    assert len(groups) <= 301
    assert tally.folded >= 100_000 - 301


def test_groups_that_were_written_before_keep_a_place() -> None:
    def tallied(extra: int) -> RegionTally:
        tally = RegionTally(FACTS)
        for number in range(30):
            start = 0x10000 + number * MB
            size = 4096 * (1 + number + (extra if number == 0 else 0))
            tally.add(MapLine(start, start + size, b"r--p", b"08:01", b"/srv/%d" % number), ())
        return tally

    first = {group.key for group in tallied(28).groups(9)}
    later = {group.key for group in tallied(0).groups(9, first)}
    smallest = next(key for key in first if key.path == b"/srv/0")
    assert smallest in later
    assert smallest not in {group.key for group in tallied(0).groups(9)}


@settings(max_examples=200, deadline=None)
@given(changed(recorded("maps-jvm-17-threads-19.txt")[:3000]))
def test_any_text_of_maps_is_tallied(text: bytes) -> None:
    tally = RegionTally(FACTS)
    for line in map_lines([text]):
        if line is not None:
            tally.add(line, ())
    for group in tally.groups(50):
        assert group.key.kind in VOCABULARIES["region_kind"]
