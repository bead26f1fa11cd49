"""Heaps with a collector: managed growth or native, how sure, of which classes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from leakcase_analyzer.analysis import analyze
from leakcase_analyzer.own_types import is_own
from leakcase_analyzer.report.html import html_text
from leakcase_analyzer.report.json_report import json_text
from leakcase_analyzer.report.markdown import markdown_text
from leakcase_analyzer.report.terminal import terminal_text
from leakcase_analyzer.report.units import render
from leakcase_bundle.records import ManagedClasses, ManagedHeap, ManagedNative
from leakcase_bundle.strings import SymbolToken
from tests.analyzer.cases import MIB, Capture, Mapping, as_file
from tests.analyzer.heap_cases import Heap, allow, growing, see
from tests.analyzer.test_heap import Answer, known_parts
from tests.analyzer.trace_cases import Source, Traced

GROWN = int(400_009 * 120)


@pytest.fixture
def answer(tmp_path: Path) -> Answer:
    return lambda capture: analyze(as_file(capture, tmp_path))


def told(case: Capture, seconds: float, resident: float, *, kept: float | None = None,
         runtime: str = "jvm", collections: int | None = 10) -> None:  # fmt: skip
    """What the runtime said of its heap at a time."""
    case.extra.append(
        ManagedHeap(
            case.at(seconds),
            runtime,
            {"jvm": "hsperfdata", "go": "heap-stats", "node": "v8-pages"}[runtime],
            used_bytes=int(resident),
            kept_bytes=None if kept is None else int(kept),
            committed_bytes=256 * MIB,
            resident_bytes=int(resident),
            collections=collections,
        )
    )


def counted(case: Capture, seconds: float, classes: dict[str, tuple[int, int]]) -> None:
    rows = [(SymbolToken(name), *amount) for name, amount in classes.items()]
    names, counts, sizes = (list(column) for column in zip(*rows, strict=True))
    case.extra.append(ManagedClasses(case.at(seconds), "jvm", True, names, counts, sizes, 0, 0, 0))


def java(kept_share: float) -> Capture:
    """A JVM whose heap grows; so much of that is left by collections."""
    case = growing(runtime="jvm")
    case.mappings = [Mapping("anonymous", 20 * MIB, 20 * MIB + GROWN)]
    told(case, 0, 10 * MIB, kept=4 * MIB)
    told(case, 120, 10 * MIB + GROWN, kept=4 * MIB + kept_share * GROWN, collections=60)
    return case


def test_growth_in_the_java_heap_that_collections_leave_is_a_managed_leak(answer: Answer) -> None:
    analysis = answer(java(0.95))
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "managed-heap")
    reasons = "\n".join(render(reason) for reason in analysis.verdict.reasons)
    assert "lie in the heap of jvm" in reasons and "after 50 collections" in reasons
    guessed = answer(java(0.1))
    assert guessed.verdict.kind == "managed-heap"
    assert guessed.verdict.confidence < 0.7 * analysis.verdict.confidence


def test_growth_beside_a_java_heap_that_does_not_grow_is_native(answer: Answer) -> None:
    case = growing(runtime="jvm")
    told(case, 0, 10 * MIB, kept=4 * MIB)
    told(case, 120, 10 * MIB, kept=4 * MIB)
    see(case, 0, Heap(in_use=5 * MIB))
    see(case, 120, Heap(in_use=5 * MIB + GROWN))
    assert answer(case).verdict.kind == "heap"


def test_the_looks_that_saw_more_of_the_growth_decide(answer: Answer) -> None:
    case = growing(runtime="jvm")
    told(case, 110, 10 * MIB)
    told(case, 120, 14 * MIB)
    see(case, 0, Heap(in_use=5 * MIB))
    see(case, 120, Heap(in_use=5 * MIB + GROWN))
    assert answer(case).verdict.kind == "heap"


def test_a_java_heap_in_shared_memory_is_managed_and_no_shared_memory_of_the_programs(
    answer: Answer,
) -> None:
    for kept_share, kind in ((0.9, "managed-heap"), (0.0, "shared-memory")):
        case = allow(Capture(runtime="jvm", seconds=600))
        case.shared_bytes = case.leak(20 * MIB, 200_003)
        grown = 200_003 * 600
        case.mappings = [Mapping("memfd", 20 * MIB, 20 * MIB + grown, anonymous=False)]
        for seconds, kept in ((0, 4 * MIB), (600, 4 * MIB + kept_share * grown)):
            told(case, seconds, kept, kept=kept)
            case.extra[-1] = replace(case.extra[-1], resident_bytes=None)
        verdict = answer(case).verdict
        assert (verdict.status, verdict.kind) == ("leak", kind)


def test_the_classes_that_grow_are_told_and_the_programs_own_is_advised(answer: Answer) -> None:
    case = java(0.95)
    counted(case, 0, {"byte[]": (1000, 10 * MIB), "app.Session": (10, 1000)})
    counted(case, 120, {"byte[]": (1000, 40 * MIB), "app.Session": (200_010, 16 * MIB)})
    analysis = answer(case)
    assert [one.name for one in analysis.types] == ["byte[]", "app.Session"]
    assert analysis.types[1].count == 200_000
    advice = [render(action.what) for action in analysis.actions]
    assert any("app.Session" in one and "GC.heap_dump" in one for one in advice), advice
    assert not any("bug tracker" in one for one in advice), "the JVM's makers did not write it"
    assert "200,000 more objects of app.Session" in render(analysis.verdict.headline)


def test_what_the_jvm_has_for_itself_is_told_by_purpose(answer: Answer) -> None:
    case = growing(runtime="jvm")
    purposes = ["java-heap", "thread", "internal"]
    for seconds, sizes in ((0, [8, 4, 1]), (120, [80, 4, 30])):
        sizes = [size * MIB for size in sizes]
        case.extra.append(ManagedNative(case.at(seconds), purposes, sizes, sizes))
    reasons = "\n".join(render(reason) for reason in answer(case).verdict.reasons)
    assert "internal grew most, by 29.0 MiB" in reasons


# --- the split ------------------------------------------------------------------------------------


def test_a_managed_heap_and_generated_code_are_the_runtimes_part(answer: Answer) -> None:
    case = allow(Capture(runtime="jvm"))
    case.anonymous_bytes = case.stable(60 * MIB)
    case.mappings = [
        Mapping("anonymous", 45 * MIB, 45 * MIB),
        Mapping("jit-code", 5 * MIB, 5 * MIB),
    ]
    told(case, 120, 40 * MIB)
    see(case, 120, Heap(in_use=8 * MIB))
    memory = answer(case).memory
    assert memory.runtime_bytes == 45 * MIB
    assert memory.live_heap_bytes == pytest.approx(8 * MIB, abs=4096)
    assert known_parts(answer(case)) == memory.resident_bytes


def test_a_java_heap_in_a_memfd_is_the_runtimes_part_and_not_shared(answer: Answer) -> None:
    case = allow(Capture(runtime="jvm"))
    case.shared_bytes = case.constant(40 * MIB)
    case.mappings = [Mapping("memfd", 36 * MIB, 36 * MIB, anonymous=False)]
    told(case, 120, 12 * MIB, kept=12 * MIB)
    case.extra[-1] = replace(case.extra[-1], resident_bytes=None)
    memory = answer(case).memory
    assert (memory.runtime_bytes, memory.shared_bytes) == (36 * MIB, 4 * MIB)


def test_all_that_a_go_program_without_a_c_library_maps_is_its_runtimes(answer: Answer) -> None:
    case = allow(Capture(runtime="go", allocator=None))
    case.mappings = [Mapping("anonymous", 49 * MIB, 49 * MIB)]
    told(case, 120, 30 * MIB, runtime="go")
    memory = answer(case).memory
    assert memory.runtime_bytes == 49 * MIB and memory.allocator_bytes is None


def test_mappings_of_another_allocator_are_its_own_in_use_or_kept(answer: Answer) -> None:
    case = allow(Capture(allocator="jemalloc"))
    case.mappings = [Mapping("anonymous", 48 * MIB, 48 * MIB)]
    analysis = answer(case)
    assert analysis.memory.allocator_bytes == 48 * MIB
    assert analysis.memory.live_heap_bytes is None
    assert known_parts(analysis) == analysis.memory.resident_bytes


# --- a limit of the collected heap ----------------------------------------------------------------


def test_a_leak_that_collections_leave_is_not_excused_by_the_heaps_limit(answer: Answer) -> None:
    for kept_share, status in ((0.95, "leak"), (0.1, "undecided")):
        case = java(kept_share)
        case.setting("-Xmx", 1 << 30)
        analysis = answer(case)
        verdict = analysis.verdict
        assert verdict.status == status, kept_share
        said = " ".join(render(reason) for reason in verdict.reasons)
        assert ("-Xmx = 1.00 GiB" in said) == (status == "leak")
        assert ("that only bounds it" in said) == (status == "leak")
        met = [one.limit for one in analysis.time_to_limits]
        assert ("the limit of its collected heap, -Xmx" in met) == (status == "leak")


def test_a_full_heap_that_stopped_at_its_limit_is_not_called_bounded(answer: Answer) -> None:
    for kept, status in ((62 * MIB, "undecided"), (8 * MIB, "bounded")):
        case = allow(Capture(seconds=40, runtime="jvm"))
        case.anonymous_bytes = case.filling_cache(14 * MIB, 68 * MIB, 32)
        case.mappings = [Mapping("anonymous", 14 * MIB, 68 * MIB)]
        told(case, 0, 12 * MIB, kept=min(kept, 10 * MIB))
        told(case, 40, 64 * MIB, kept=kept, collections=60)
        case.setting("-Xmx", 64 * MIB)
        verdict = answer(case).verdict
        assert verdict.status == status
        said = " ".join(render(reason) for reason in verdict.reasons)
        assert ("for want of room" in said) == (status == "undecided")


# --- native calls beside a collected heap that grows ----------------------------------------------


def test_native_blocks_do_not_claim_what_the_collected_heap_grows_by(answer: Answer) -> None:
    own = Source(("os::strdup", "main"), each_window=2)
    analysis = answer(Traced(java(0.95), [own]).add())
    assert analysis.code is not None and analysis.code.aside
    assert [one.bytes_per_second for one in analysis.code.suspects] == [None]
    assert json.loads(json_text(analysis))["suspects_aside"] is True
    screen = terminal_text(analysis, colour=False, unicode=True)
    assert "os::strdup" not in screen and "allocated in" not in screen
    for page in (markdown_text(analysis), html_text(analysis)):
        assert "What grows lies in the collected heap" in page
    native = growing(runtime="jvm")
    told(native, 0, 10 * MIB, kept=4 * MIB)
    told(native, 120, 10 * MIB, kept=4 * MIB)
    beside = answer(Traced(native, [own]).add()).code
    assert beside is not None and not beside.aside and beside.suspects[0].bytes_per_second


def test_a_heap_that_fills_pages_it_had_already_is_what_grows(answer: Answer) -> None:
    own = Source(("os::malloc", "main"), each_window=2)
    case = growing(runtime="jvm")
    case.mappings = [Mapping("anonymous", 160 * MIB, 160 * MIB + GROWN)]
    told(case, 0, 150 * MIB, kept=40 * MIB)
    told(case, 120, 152 * MIB, kept=40 * MIB + GROWN, collections=60)
    analysis = answer(Traced(case, [own]).add())
    assert analysis.code is not None and analysis.code.aside
    assert analysis.verdict.kind == "managed-heap"
    unseen = [render(one.claim) for one in analysis.not_seen]
    assert "how much of it the collector could free" not in unseen, "its collections told that"


def test_native_code_is_set_aside_only_where_the_answer_is_the_collected_heap(
    answer: Answer,
) -> None:
    leaks = Source(("grow", "main"), each_window=1200)  # as fast as memory grows

    def filling() -> Capture:
        case = growing(runtime="jvm")
        told(case, 0, 150 * MIB, kept=40 * MIB)
        told(case, 120, 150 * MIB, kept=40 * MIB + GROWN, collections=60)
        return case

    in_books = filling()
    see(in_books, 0, Heap(in_use=5 * MIB))
    see(in_books, 120, Heap(in_use=5 * MIB + GROWN))
    few = replace(leaks, each_window=2)
    for case, source, kind in (
        (filling(), leaks, "heap"),
        (in_books, few, "heap"),
        (java(0.95), leaks, "managed-heap"),
    ):
        analysis = answer(Traced(case, [source]).add())
        assert analysis.verdict.kind == kind
        assert analysis.code is not None
        assert analysis.code.aside == (kind == "managed-heap")


def test_it_is_not_said_that_memory_does_not_rise_where_the_collected_heap_does(
    answer: Answer,
) -> None:
    busy = Source(("work", "main"), each_window=12_000)
    analysis = answer(Traced(java(0.95), [busy], looks=(2, 5)).add())
    assert analysis.code is not None and analysis.code.aside
    said = [analysis.code.claim, *(one.because for one in analysis.not_seen)]
    assert not any("does not rise" in render(one) for one in said)


def test_a_part_never_grows_by_more_than_the_whole(answer: Answer) -> None:
    def reasons_of(resident_bytes: float) -> str:
        case = growing(runtime="jvm")
        told(case, 0, 10 * MIB, kept=4 * MIB)
        told(case, 120, 10 * MIB + resident_bytes, kept=4 * MIB)
        return "\n".join(render(reason) for reason in answer(case).verdict.reasons)

    added, part = re.findall(
        r"of (\S+ MiB) that were added (\S+ MiB) lie", reasons_of(1.2 * GROWN)
    )[0]
    assert added == part
    reasons = reasons_of(10 * GROWN)
    assert "lie in the heap of jvm" not in reasons
    assert "the heap of jvm has grown by 458 MiB, and all memory together by" in reasons


def test_the_screen_shows_the_classes_that_grow_the_programs_own_among_them(
    answer: Answer,
) -> None:
    case = java(0.95)
    names = [f"java.util.Thing{number}" for number in range(3)]
    counted(case, 0, dict.fromkeys(["byte[]", "char[]", "int[]", "long[]", *names], (0, 0)))
    rows = {"byte[]": 40, "char[]": 30, "int[]": 20, "long[]": 10}
    grown = {name: (1000, size * MIB) for name, size in rows.items()}
    counted(case, 120, {**grown, "app.Session": (200_000, 5 * MIB), "app.Gone": (0, 4096)})
    screen = terminal_text(answer(case), colour=False, unicode=True)
    assert "objects     +1,000 byte[] (40.0 MiB)" in screen
    assert "+200,000 app.Session (5.00 MiB)" in " ".join(screen.split())
    assert "app.Gone" not in screen


@pytest.mark.parametrize(
    ("runtime", "command"),
    [("jvm", "jcmd PID GC.run"), ("node", "kill -USR1 PID"), ("go", "debug/pprof/goroutine")],
)
def test_an_undecided_heap_is_advised_how_to_ask_its_runtime(
    runtime: str, command: str, answer: Answer
) -> None:
    case = growing(runtime=runtime)
    case.mappings = [Mapping("anonymous", 20 * MIB, 20 * MIB + GROWN)]
    told(case, 0, 10 * MIB, runtime=runtime, collections=None)
    told(case, 120, 10 * MIB + GROWN, runtime=runtime, collections=None)
    analysis = answer(case)
    assert analysis.verdict.status == "undecided"
    first, *others = [render(action.what) for action in analysis.actions]
    assert first.startswith("capture again for") and any(command in one for one in others)
    assert "--allow read-memory --duration" in first, "what was allowed is asked for again"


def test_the_runtimes_own_classes_are_not_taken_for_the_programs() -> None:
    assert is_own("app.Session", "jvm") and is_own("MapLeak$Order[]", "jvm")
    assert not any(
        is_own(name, "jvm")
        for name in ("java.nio.DirectByteBuffer", "jdk.internal.ref.Cleaner", "byte[]", "int[][]")
    )
    assert is_own("Session", "cpython")
    assert not any(is_own(name, "cpython") for name in ("collections.deque", "dict", "coroutine"))
