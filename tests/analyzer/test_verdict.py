"""Case in, answer out: processes of known behaviour and the verdict about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.report.units import render
from leakcase_bundle import records as kinds
from leakcase_bundle.strings import NameToken
from tests.analyzer.cases import MIB, Capture, Mapping, as_file, heap_leak

Answer = Callable[[Capture], Analysis]


@pytest.fixture
def answer(tmp_path: Path) -> Answer:
    return lambda capture: analyze(as_file(capture, tmp_path))


def reasons(analysis: Analysis) -> str:
    return "\n".join(render(reason) for reason in analysis.verdict.reasons)


def growing(analysis: Analysis, what: str) -> float:
    return next(one.rate_per_hour for one in analysis.growing if one.what == what)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [8_009, 40_009, 1_000_003])
def test_a_steady_native_leak_is_a_heap_leak_at_its_rate(
    seed: int, rate: int, answer: Answer
) -> None:
    verdict = answer(heap_leak(rate, seed=seed)).verdict
    assert (verdict.status, verdict.kind) == ("leak", "heap")
    assert verdict.rate_bytes_per_hour == pytest.approx(rate * 3600, rel=0.05)
    low, high = verdict.rate_interval_bytes_per_hour or (0, 0)
    assert low < rate * 3600 < high
    assert verdict.confidence >= 0.7


@pytest.mark.parametrize("seed", range(4))
def test_steady_memory_is_stable_and_says_what_it_would_have_seen(
    seed: int, answer: Answer
) -> None:
    verdict = answer(Capture(seed=seed)).verdict
    assert (verdict.status, verdict.kind) == ("stable", "none")
    assert "growth above" in render(verdict.headline)
    assert verdict.watch_longer_seconds is None


def test_a_cache_that_fills_and_stops_is_bounded(answer: Answer) -> None:
    case = Capture(seconds=180)
    case.anonymous_bytes = case.filling_cache(20 * MIB, 60 * MIB, 40)
    verdict = answer(case).verdict
    assert verdict.status == "bounded"
    assert verdict.rate_bytes_per_hour is None
    assert "then stopped" in render(verdict.headline)


def test_a_sawtooth_is_bounded(answer: Answer) -> None:
    case = Capture()
    case.anonymous_bytes = case.sawtooth(20 * MIB, 30 * MIB, 11)
    assert answer(case).verdict.status == "bounded"


def test_a_spike_before_the_capture_that_the_allocator_keeps_is_no_leak(answer: Answer) -> None:
    case = Capture()
    case.anonymous_bytes = case.stable(100 * MIB)
    assert answer(case).verdict.status == "stable"


def test_one_step_is_no_leak(answer: Answer) -> None:
    case = Capture()
    case.anonymous_bytes = case.stable(20 * MIB) + np.where(case.t > 70, 30 * MIB, 0)
    verdict = answer(case).verdict
    assert verdict.status in ("undecided", "bounded")
    assert verdict.rate_bytes_per_hour is None


def test_growth_that_went_to_swap_counts_as_growth(answer: Answer) -> None:
    case = heap_leak()
    assert case.anonymous_bytes is not None
    grown = case.anonymous_bytes - 50 * MIB
    case.anonymous_bytes, case.swap_bytes = case.constant(30 * MIB), grown + 90 * MIB
    analysis = answer(case)
    assert analysis.verdict.status == "leak"
    assert analysis.verdict.rate_bytes_per_hour == pytest.approx(40_009 * 3600, rel=0.05)
    assert "is in swap" in reasons(analysis)
    assert "before anybody restarts" in render(analysis.actions[0].what)


def test_pages_that_move_to_swap_are_no_growth(answer: Answer) -> None:
    case = Capture()
    moved = np.floor(case.t) * 100_000
    case.anonymous_bytes, case.swap_bytes = 80 * MIB - moved, 10 * MIB + moved
    assert answer(case).verdict.status == "stable"


def test_a_thread_leak_explains_the_stacks_that_grow_with_it(answer: Answer) -> None:
    case = Capture()
    case.threads = case.steps(4, 1.0)
    case.anonymous_bytes = case.leak(20 * MIB, 9_001)
    case.mappings = [
        Mapping("thread-stack", MIB, MIB + 9_001 * 120),
        Mapping("main-heap", 19 * MIB, 19 * MIB),
    ]
    case.extra = [
        kinds.ThreadGroup(case.at(0), NameToken("<name:3>"), 1),
        kinds.ThreadGroup(case.at(120), NameToken("<name:3>"), 121),
    ]
    analysis = answer(case)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "threads")
    assert growing(analysis, "threads") == pytest.approx(3600, rel=0.05)
    assert analysis.verdict.rate_bytes_per_hour == pytest.approx(9_001 * 3600, rel=0.1)
    assert "<name:3>: 1 at first, 121 at last" in reasons(analysis)


def test_a_heap_leak_beside_a_thread_leak_is_the_heap_where_it_is_far_larger(
    answer: Answer,
) -> None:
    case = heap_leak(9_000_011)
    case.threads = case.steps(4, 1.0)
    verdict = answer(case).verdict
    assert (verdict.status, verdict.kind) == ("leak", "heap")


def test_a_descriptor_leak_names_the_kind_that_grows(answer: Answer) -> None:
    case = Capture()
    case.descriptors = {
        "total": case.steps(14, 5),
        "sockets": case.steps(4, 5),
        "files": case.constant(10),
    }
    case.sockets = {"total": case.steps(4, 5), "tcp_close_wait": case.steps(0, 5)}
    case.extra = [kinds.Limits(known=True, open_files=1024)]
    analysis = answer(case)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "fds")
    assert analysis.verdict.rate_bytes_per_hour is None
    assert growing(analysis, "descriptors") == pytest.approx(18_000, rel=0.05)
    assert "sockets make up 100 % of the growth" in reasons(analysis)
    assert "CLOSE_WAIT" in reasons(analysis)
    assert analysis.time_to_limits[0].seconds == pytest.approx((1024 - 614) / 5, rel=0.1)


def test_descriptors_that_come_and_go_are_not_the_answer_about_steady_memory(
    answer: Answer,
) -> None:
    case = Capture()
    case.descriptors = {"total": 8 + 21.0 * (case.t % 7 == 0)}
    verdict = answer(case).verdict
    assert verdict.status == "stable"
    assert render(verdict.headline).startswith("No leak: anonymous memory is steady")


def test_heap_growth_beside_a_descriptor_leak_is_both(answer: Answer) -> None:
    case = heap_leak()
    case.descriptors = {"total": case.steps(14, 5), "sockets": case.steps(4, 5)}
    analysis = answer(case)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "heap")
    assert "not the only thing that grows" in reasons(analysis)
    assert growing(analysis, "descriptors") > 0


@pytest.mark.parametrize("kind", ["memfd", "tmpfs-file", "sysv-shared-memory"])
def test_shared_memory_that_is_mapped_more_and_more_is_its_own_kind(
    kind: str, answer: Answer
) -> None:
    case = Capture()
    case.shared_bytes = case.leak(0, 372_736)
    case.mappings = [Mapping(kind, 0, 372_736 * 120, anonymous=False)]
    verdict = answer(case).verdict
    assert (verdict.status, verdict.kind) == ("leak", "shared-memory")
    assert verdict.rate_bytes_per_hour == pytest.approx(372_736 * 3600, rel=0.05)


def test_touching_a_fixed_shared_mapping_page_by_page_is_bounded(answer: Answer) -> None:
    # A PostgreSQL backend that comes to see the shared buffers does this.
    case = Capture()
    case.shared_bytes = case.leak(0, 372_736)
    case.mappings = [
        Mapping("shared-anonymous", 0, 372_736 * 120, 128 * MIB, 128 * MIB, anonymous=False)
    ]
    verdict = answer(case).verdict
    assert (verdict.status, verdict.kind) == ("bounded", "shared-memory")


def test_reading_through_a_mapped_file_is_bounded_by_the_file(answer: Answer) -> None:
    case = Capture(seconds=60)
    case.file_bytes = case.leak(8 * MIB, 1_028_096)
    case.mappings = [Mapping("shared-file", 8 * MIB, 67 * MIB, 97 * MIB, 97 * MIB, anonymous=False)]
    analysis = answer(case)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("bounded", "file-mapping")
    assert analysis.verdict.rate_bytes_per_hour is None
    assert "97.0 MiB are mapped" in reasons(analysis)


def test_without_snapshots_a_level_address_space_bounds_file_pages(answer: Answer) -> None:
    case = Capture()
    case.file_bytes = case.leak(8 * MIB, 1_028_096)
    assert answer(case).verdict.status == "bounded"


def test_a_mapped_file_that_is_extended_for_ever_is_a_leak(answer: Answer) -> None:
    case = Capture()
    case.file_bytes = case.leak(8 * MIB, 266_240)
    case.mappings = [Mapping("shared-file", 8 * MIB, 8 * MIB + 266_240 * 120, anonymous=False)]
    verdict = answer(case).verdict
    assert (verdict.status, verdict.kind) == ("leak", "file-mapping")


def test_gpu_memory_is_judged_by_itself(answer: Answer) -> None:
    case = Capture()
    case.gpu_bytes = case.leak(100 * MIB, 1_000_003)
    verdict = answer(case).verdict
    assert (verdict.status, verdict.kind) == ("leak", "gpu")


def test_page_cache_in_a_containers_figure_is_ruled_out(answer: Answer) -> None:
    case = Capture()
    case.cgroup = {
        "current_bytes": case.leak(200 * MIB, 3_000_017),
        "anon_bytes": case.constant(60 * MIB),
        "file_bytes": case.leak(100 * MIB, 3_000_017),
        "shmem_bytes": case.constant(0),
    }
    case.group(limit_bytes=1 << 30)
    analysis = answer(case)
    assert analysis.verdict.status == "stable"
    ruled_out = {render(one.claim): render(one.because) for one in analysis.ruled_out}
    assert "not counted" in ruled_out["page cache in the container's figure"]
    assert not analysis.growing


def test_a_file_in_tmpfs_that_nobody_maps_shows_in_the_control_group(answer: Answer) -> None:
    case = Capture()
    case.cgroup = {"shmem_bytes": case.leak(0, 372_736), "file_bytes": case.leak(0, 372_736)}
    case.group()
    verdict = answer(case).verdict
    assert (verdict.status, verdict.kind) == ("leak", "shared-memory")


def test_what_a_neighbour_in_the_control_group_holds_is_not_blamed_on_the_target(
    answer: Answer,
) -> None:
    case = Capture()
    case.cgroup = {"shmem_bytes": case.leak(0, 372_736), "file_bytes": case.leak(0, 372_736)}
    case.group(other_processes=3)
    assert answer(case).verdict.status == "stable"


def test_socket_buffers_of_a_process_alone_in_its_group_are_a_leak_of_another_kind(
    answer: Answer,
) -> None:
    case = Capture()
    case.cgroup = {"socket_bytes": case.leak(0, 372_736)}
    case.group()
    verdict = answer(case).verdict
    assert (verdict.status, verdict.kind) == ("leak", "other")
    assert verdict.confidence < 0.6
    assert render(verdict.headline).startswith("Probably a leak")


# --- of what kind -------------------------------------------------------------------------------


def anonymous_growth(kind: str, **options: object) -> Capture:
    case = heap_leak(**options)  # type: ignore[arg-type]
    case.mappings = [
        Mapping("main-heap", 40 * MIB, 40 * MIB),
        Mapping(kind, 10 * MIB, 10 * MIB + 40_009 * case.seconds),
    ]
    return case


@pytest.mark.parametrize(
    ("mapping", "allocator", "runtime", "kind"),
    [
        ("anonymous", "glibc", None, "mmap"),
        ("arena-heap", "glibc", None, "heap"),
        ("main-heap", "glibc", None, "heap"),
        ("anonymous", "jemalloc", None, "heap"),
        ("anonymous", "tcmalloc", None, "heap"),
        ("anonymous", "mimalloc", None, "heap"),
        ("anonymous", "musl", None, "heap"),
        ("anonymous", "glibc", "cpython", "heap"),
        ("thread-stack", "glibc", None, "threads"),
        ("jit-code", "glibc", None, "other"),
    ],
)
def test_the_kind_follows_from_where_the_memory_lies(
    mapping: str, allocator: str, runtime: str | None, kind: str, answer: Answer
) -> None:
    verdict = answer(anonymous_growth(mapping, allocator=allocator, runtime=runtime)).verdict
    assert (verdict.status, verdict.kind) == ("leak", kind)


def test_mmap_says_that_large_blocks_of_malloc_look_the_same(answer: Answer) -> None:
    effects = [render(one.effect) for one in answer(anonymous_growth("anonymous")).not_seen]
    assert any("large malloc blocks" in effect for effect in effects)


@pytest.mark.parametrize("runtime", ["jvm", "node", "go", "dotnet"])
def test_a_collected_heap_is_undecided_at_first_and_a_weak_leak_after_ten_minutes(
    runtime: str, answer: Answer
) -> None:
    short = answer(anonymous_growth("anonymous", runtime=runtime)).verdict
    assert (short.status, short.kind) == ("undecided", "managed-heap")
    assert short.rate_bytes_per_hour == pytest.approx(40_009 * 3600, rel=0.05)
    long = answer(anonymous_growth("anonymous", runtime=runtime, seconds=700)).verdict
    assert (long.status, long.kind) == ("leak", "managed-heap")
    assert long.confidence < 0.6


def test_a_native_leak_inside_a_jvm_is_told_by_mallocs_own_heap(answer: Answer) -> None:
    verdict = answer(anonymous_growth("main-heap", runtime="jvm", seconds=700)).verdict
    assert (verdict.status, verdict.kind) == ("leak", "heap")


# --- bounds -------------------------------------------------------------------------------------


def test_filling_up_to_a_known_bound_is_undecided_until_it_is_passed(answer: Answer) -> None:
    case = heap_leak(2_000_003)
    case.setting("--maxmemory", 1 << 30)
    verdict = answer(case).verdict
    assert verdict.status == "undecided"
    assert "bound" in render(verdict.headline)
    rest = (1 << 30) * 1.25 + 16 * MIB - (50 * MIB + 2_000_003 * 120)
    assert verdict.watch_longer_seconds == pytest.approx(rest / 2_000_003, rel=0.1)


def test_growth_that_stopped_at_a_known_bound_is_bounded(answer: Answer) -> None:
    case = Capture(seconds=40)
    case.anonymous_bytes = case.filling_cache(14 * MIB, 68 * MIB, 32)
    assert answer(case).verdict.status == "undecided"
    case.setting("--maxmemory", 64 * MIB)
    verdict = answer(case).verdict
    assert verdict.status == "bounded"
    assert 0 < verdict.confidence <= 0.8
    assert verdict.watch_longer_seconds is None


def test_growth_that_stopped_far_below_a_bound_stays_undecided(answer: Answer) -> None:
    case = Capture(seconds=40)
    case.anonymous_bytes = case.filling_cache(14 * MIB, 68 * MIB, 32)
    case.setting("--maxmemory", 640 * MIB)
    assert answer(case).verdict.status == "undecided"


def test_growth_beyond_a_known_bound_is_a_leak(answer: Answer) -> None:
    case = heap_leak(2_000_003)
    case.setting("--maxmemory", 64 * MIB)
    assert answer(case).verdict.status == "leak"


def test_a_bound_of_the_collected_heap_does_not_excuse_native_memory(answer: Answer) -> None:
    case = anonymous_growth("main-heap", runtime="jvm", seconds=700)
    case.setting("-Xmx", 1 << 30)
    assert answer(case).verdict.status == "leak"
    case = anonymous_growth("anonymous", runtime="jvm", seconds=700)
    case.setting("-Xmx", 1 << 30)
    assert answer(case).verdict.status == "undecided"


def test_a_control_groups_limit_is_no_bound_but_a_deadline(answer: Answer) -> None:
    case = heap_leak()
    assert case.anonymous_bytes is not None
    case.cgroup = {"current_bytes": case.anonymous_bytes + 8 * MIB}
    case.group(limit_bytes=100 * MIB)
    analysis = answer(case)
    assert analysis.verdict.status == "leak"
    room = 100 * MIB - 58 * MIB - 40_009 * 120
    assert analysis.time_to_limits[0].seconds == pytest.approx(room / 40_009, rel=0.1)
    assert "raise it, or restart within" in render(analysis.actions[0].what)


# --- when it grows ------------------------------------------------------------------------------


def test_marks_tell_that_it_grows_only_while_it_works(answer: Answer) -> None:
    case = heap_leak()
    case.anonymous_bytes = case.stable(50 * MIB) + np.cumsum((case.t % 60) < 30) * 80_000.0
    for start in (0, 60):
        case.mark(start, "active")
        case.mark(start + 30, "idle")
    analysis = answer(case)
    assert analysis.verdict.status == "leak"
    assert analysis.verdict.trigger == "active"
    assert "as marked" in reasons(analysis)


def test_cpu_time_tells_that_it_grows_only_while_it_works(answer: Answer) -> None:
    case = heap_leak(seconds=240)
    works = (case.t % 40) < 20
    case.anonymous_bytes = case.stable(50 * MIB) + np.cumsum(works) * 80_000.0
    case.cpu_seconds = np.cumsum(np.where(works, 0.7, 0.005))
    assert answer(case).verdict.trigger == "active"


def test_without_phases_the_trigger_is_unknown_and_marking_is_advised(answer: Answer) -> None:
    analysis = answer(heap_leak())
    assert analysis.verdict.trigger == "unknown"
    assert any("mark PID" in render(action.what) for action in analysis.actions)


# --- what lowers the confidence -----------------------------------------------------------------


def test_a_truncated_case_is_answered_and_says_so(answer: Answer) -> None:
    case = heap_leak(finish=False, end=None)
    analysis = answer(case)
    assert analysis.verdict.status == "leak"
    assert any("cut off" in render(one.because) for one in analysis.not_seen)
    assert analysis.verdict.confidence < answer(heap_leak()).verdict.confidence


def test_a_gap_is_named_with_its_effect_and_lowers_the_confidence(answer: Answer) -> None:
    case = heap_leak()
    case.gap("regions", "not-permitted")
    analysis = answer(case)
    named = {render(one.claim): render(one.effect) for one in analysis.not_seen}
    assert named["its mappings"] == "which mappings grew is not known"
    assert analysis.verdict.confidence < answer(heap_leak()).verdict.confidence


def test_what_a_host_does_not_have_costs_no_confidence(answer: Answer) -> None:
    case = heap_leak()
    case.gap("gpu", "not-supported")
    assert answer(case).verdict.confidence == answer(heap_leak()).verdict.confidence


def test_what_was_not_part_of_the_case_is_named_with_what_it_would_add(answer: Answer) -> None:
    because = [render(one.because) for one in answer(heap_leak()).not_seen]
    assert sum("--allow read-memory" in text for text in because) == 1
    assert sum("--allow trace" in text for text in because) == 1
    case = heap_leak()
    header = case.header()
    header.levels.append("read-memory")
    case.header = lambda: header  # type: ignore[method-assign]
    because = [render(one.because) for one in answer(case).not_seen]
    assert not any("--allow read-memory" in text for text in because)


def test_missed_samples_are_named_and_lower_the_confidence(answer: Answer) -> None:
    case = heap_leak()
    case.extra.append(
        kinds.CollectorSeries(taken_ns=[case.at(1), case.at(119)], missed_ticks=[0, 40])
    )
    analysis = answer(case)
    assert any("25 % of the samples" in render(one.claim) for one in analysis.not_seen)
    assert analysis.verdict.confidence < answer(heap_leak()).verdict.confidence


def test_a_shorter_window_is_less_sure(answer: Answer) -> None:
    assert (
        answer(heap_leak(seconds=40)).verdict.confidence
        < answer(heap_leak(seconds=600)).verdict.confidence
    )


def test_a_window_of_seconds_is_undecided_and_says_how_long_to_watch(answer: Answer) -> None:
    verdict = answer(heap_leak(seconds=12)).verdict
    assert verdict.status == "undecided"
    assert verdict.confidence == 0
    assert verdict.watch_longer_seconds is not None and verdict.watch_longer_seconds >= 100


def test_a_case_without_a_sample_is_undecided(answer: Answer) -> None:
    case = Capture(end=None, finish=False)
    case.keep_only_facts()
    analysis = answer(case)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("undecided", "none")
    assert analysis.memory.resident_bytes is None


def test_after_an_exec_only_the_last_program_is_judged(answer: Answer) -> None:
    # The first program leaked, the second is steady; the page count says the opposite.
    case = Capture(seconds=240)
    leaks = np.minimum(case.t, 120) * 1_000_003.0
    case.anonymous_bytes = np.where(case.t < 120, 20 * MIB + leaks, 0) + np.where(
        case.t >= 120, case.stable(50 * MIB), 0
    )
    case.event(120, "exec")
    case.extra.append(case.target(120, name="<name:2>"))
    analysis = answer(case)
    assert analysis.verdict.status == "stable"
    assert analysis.evidence.window_seconds == pytest.approx(120)
    assert analysis.evidence.target is not None and analysis.evidence.target.name == "<name:2>"
    assert any("replaced (exec) 2 min" in render(one.because) for one in analysis.not_seen)


def test_an_exec_at_the_very_end_leaves_the_program_before_it_to_judge(answer: Answer) -> None:
    case = heap_leak()
    case.event(120.5, "exec")
    case.extra.append(case.target(120.5, name="<name:2>"))
    analysis = answer(case)
    assert analysis.verdict.status == "leak"
    assert analysis.evidence.target is not None and analysis.evidence.target.name == "<name:1>"


def test_memory_is_split_into_what_is_known_and_the_rest(answer: Answer) -> None:
    case = heap_leak()
    case.mappings.append(Mapping("thread-stack", MIB, MIB))
    case.shared_bytes = case.constant(2 * MIB)
    memory = answer(case).memory
    assert memory.resident_bytes is not None and memory.unexplained_bytes is not None
    assert memory.mapped_file_bytes == 8 * MIB
    assert memory.shared_bytes == 2 * MIB
    assert memory.stack_bytes == MIB
    assert memory.swap_bytes == 0
    assert memory.live_heap_bytes is None
    assert memory.unexplained_bytes == memory.resident_bytes - 11 * MIB


def test_on_an_old_kernel_all_resident_memory_stands_in_for_anonymous(answer: Answer) -> None:
    case = heap_leak()
    records = [
        record
        if not isinstance(record, kinds.StatusSeries)
        else kinds.StatusSeries(
            taken_ns=record.taken_ns, rss_bytes=record.rss_bytes, swap_bytes=record.swap_bytes
        )
        for record in case.records()
    ]
    case.records = lambda: records  # type: ignore[method-assign]
    analysis = answer(case)
    assert analysis.verdict.status == "leak"
    assert any("Linux 4.5" in render(one.because) for one in analysis.not_seen)


def test_the_programs_package_leads_to_a_search_for_known_issues(answer: Answer) -> None:
    from leakcase_bundle.strings import BuildId, PackageToken, PathToken, VersionToken

    case = heap_leak()
    case.extra.append(
        kinds.Module(
            index=0,
            path=PathToken("/usr/bin/program"),
            is_program=True,
            deleted=False,
            build_id=BuildId("ab" * 20),
            package=PackageToken("nginx-core"),
            package_version=VersionToken("1.22.1-9"),
        )
    )
    said = [render(a.what) + " " + render(a.why) for a in answer(case).actions]
    assert any("nginx-core 1.22.1-9 memory leak" in text and "ab" * 20 in text for text in said)
