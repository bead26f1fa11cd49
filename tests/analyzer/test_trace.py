"""Traced allocations in, suspects out: who leaks, who caches, and how sure that is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from leakcase_analyzer.analysis import Analysis, analyze
from leakcase_analyzer.findings.suspect import Suspect, Suspects
from leakcase_analyzer.report.code_tables import callers_line
from leakcase_analyzer.report.json_report import json_text
from leakcase_analyzer.report.markdown import markdown_text
from leakcase_analyzer.report.terminal import terminal_text
from leakcase_analyzer.report.units import render
from leakcase_bundle import records as kinds
from leakcase_bundle.strings import PathToken, SymbolToken
from tests.analyzer.cases import MIB, Capture, as_file
from tests.analyzer.heap_cases import Heap, leaked, see
from tests.analyzer.trace_cases import CHURN, FOREVER, LEAK, Source, Traced, growing, watched

CACHE = Source(("cache_insert", "handle", "main"), each_window=60)


def answer(case: Capture, folder: Path) -> Analysis:
    return analyze(as_file(case, folder))


def code(case: Capture, folder: Path) -> Suspects:
    found = answer(case, folder).code
    assert found is not None
    return found


def function(one: Suspect) -> str | None:
    return None if one.frame is None else one.frame.function


def words(one: Suspect) -> str:
    return "\n".join(render(sentence) for sentence in one.evidence)


def reasons(analysis: Analysis) -> str:
    return "\n".join(render(reason) for reason in analysis.verdict.reasons)


# --- bursts and survivors -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_small_leak_under_much_churn_is_first_with_all_of_the_share(
    seed: int, tmp_path: Path
) -> None:
    case = growing()
    case.seed = seed
    case.__post_init__()
    case.anonymous_bytes = case.leak(20 << 20, 60_000)
    found = code(Traced(watched(case), [CHURN, LEAK]).add(), tmp_path)
    (first,) = found.suspects
    assert function(first) == "leak_session"
    assert first.share == pytest.approx(1.0, abs=0.01)
    assert first.fate == "stays"
    assert first.bytes_per_second == pytest.approx(60_000, rel=0.03)
    assert first.confidence >= 0.85
    assert found.passing == ()


def test_shares_of_several_sites_are_those_of_what_they_leak(tmp_path: Path) -> None:
    truth = {"half": 0.50, "third": 0.30, "seventh": 0.15, "twentieth": 0.05}
    sites = [
        Source((name, "main"), each_window=round(200 * part), freed_at_once=0.1)
        for name, part in truth.items()
    ]
    found = code(Traced(growing(), [*sites, CHURN]).add(), tmp_path)
    assert [function(one) for one in found.suspects] == list(truth)
    for one in found.suspects:
        assert one.share == pytest.approx(truth[function(one) or ""], abs=0.05)
    assert sum(one.share or 0 for one in found.suspects) == pytest.approx(1.0)


def test_the_first_line_names_the_function_and_the_advice_is_to_look_there(tmp_path: Path) -> None:
    analysis = answer(Traced(growing(), [LEAK, CHURN]).add(), tmp_path)
    assert render(analysis.verdict.headline).endswith(
        "100 % of what stays was allocated in leak_session (worker)."
    )
    assert render(analysis.actions[0].what).startswith("look at leak_session (worker)")
    assert not any("heaptrack" in render(action.what) for action in analysis.actions)


def test_three_captured_blocks_are_enough_to_name_a_rare_leak_but_less_sure(tmp_path: Path) -> None:
    rare = replace(LEAK, each_window=1)
    few = code(Traced(growing(500), [rare, CHURN], window_starts=(5, 15, 25)).add(), tmp_path)
    many = code(Traced(growing(), [LEAK, CHURN]).add(), tmp_path)
    assert function(few.suspects[0]) == "leak_session"
    assert few.suspects[0].confidence < many.suspects[0].confidence


def test_what_was_seen_is_said_and_no_more(tmp_path: Path) -> None:
    analysis = answer(Traced(growing(), [LEAK, CHURN]).add(), tmp_path)
    said = reasons(analysis)
    assert "in 8 windows of 0.3 s 49,440 allocations were seen" in said
    assert "1,440 of 1,440 blocks that outlived their window still held the words that" in said
    assert "after up to 60 s; none was seen freed" in said
    unseen = [render(one.claim) + render(one.effect) for one in analysis.not_seen]
    assert any("never freed" in one and "cache" in one for one in unseen)
    assert any("table that doubles" in one and "rare large blocks" in one for one in unseen)


# --- caches ---------------------------------------------------------------------------------------


def test_a_cache_is_told_from_a_leak_once_its_blocks_have_died(tmp_path: Path) -> None:
    found = code(Traced(growing(), [LEAK, replace(CACHE, life=20)]).add(), tmp_path)
    assert [function(one) for one in found.suspects] == ["leak_session"]
    assert [function(one) for one in found.passing] == ["cache_insert"]
    assert found.passing[0].fate == "dies"
    assert found.passing[0].share is None
    assert "they go on being freed: 0 % are left at 60 s" in words(found.passing[0])


def test_a_cache_that_loses_entries_at_random_is_no_leak(tmp_path: Path) -> None:
    def life(draw: float) -> float:
        return 60.0 * draw  # evenly up to a minute

    found = code(Traced(growing(), [LEAK, replace(CACHE, life=life)]).add(), tmp_path)
    assert [function(one) for one in found.suspects] == ["leak_session"]
    assert found.suspects[0].share == pytest.approx(1.0)


def test_before_a_cache_reaches_its_age_it_is_named_with_the_age_and_without_confidence(
    tmp_path: Path,
) -> None:
    cache = replace(CACHE, life=20)
    found = code(Traced(growing(), [cache, CHURN], looks=(2, 5)).add(), tmp_path)
    first = found.suspects[0]
    assert function(first) == "cache_insert"
    assert first.confidence < 0.6
    assert "after up to 5 s" in words(first)
    assert found.leading is None


def test_a_cache_that_takes_in_far_more_than_the_heap_grows_by_must_let_go_later(
    tmp_path: Path,
) -> None:
    cache = replace(CACHE, each_window=2000)
    analysis = answer(Traced(growing(20_000), [cache, CHURN]).add(), tmp_path)
    assert "most of them must be freed at some age beyond 60 s, as a cache's are" in reasons(
        analysis
    )
    assert analysis.code is not None
    assert analysis.code.suspects[0].confidence < 0.5


def short(kept_per_second: float, rises_by: float = 0.0) -> Traced:
    """Ten seconds of a server on a busy host, and one look at the blocks of each window."""
    case = watched(Capture(seconds=10))
    case.anonymous_bytes = case.leak(4 * MIB, rises_by)
    slow = Source(
        ("take_request", "main"), each_window=round(0.3 * kept_per_second / 512), size=512
    )
    return Traced(case, [slow], window_starts=(1, 3, 5), looks=(4.5,))


def test_requests_in_work_are_no_suspects_where_memory_does_not_rise(tmp_path: Path) -> None:
    analysis = answer(short(kept_per_second=20_000).add(), tmp_path)
    found = analysis.code
    assert found is not None and found.suspects == found.passing == ()
    assert [function(one) for one in found.in_work] == ["take_request"]
    assert "what was alive 4.5 s later is as likely in work as kept" in render(found.claim)
    (said,) = (one for one in analysis.not_seen if "take_request" in render(one.claim))
    assert render(said.because) == (
        "its blocks were followed for 4.5 s at most, and memory does not rise"
    )


@pytest.mark.parametrize("rises_by", [20_000, 60_000])
def test_what_stays_is_a_suspect_after_seconds_where_memory_takes_it_in(
    rises_by: float, tmp_path: Path
) -> None:
    found = code(short(kept_per_second=20_000, rises_by=rises_by).add(), tmp_path)
    assert [function(one) for one in found.suspects] == ["take_request"]
    assert found.in_work == ()


def test_a_heap_that_fills_what_it_had_free_takes_it_in_as_well(tmp_path: Path) -> None:
    case = short(kept_per_second=20_000).add()
    see(case, 0, Heap(in_use=2 * MIB, scattered=MIB))
    see(case, 10, Heap(in_use=2 * MIB + 200_000, scattered=MIB - 200_000))
    assert [function(one) for one in code(case, tmp_path).suspects] == ["take_request"]


def test_a_slow_leak_that_hides_in_the_noise_is_a_suspect_once_it_was_followed(
    tmp_path: Path,
) -> None:
    case = watched(Capture(seconds=60))
    case.anonymous_bytes = case.stable(40 * MIB)
    rare = Source(("leak_rarely", "main"), each_window=2)
    traced = Traced(case, [rare, CHURN], window_starts=(5, 10, 15, 20), looks=(10, 30))
    found = code(traced.add(), tmp_path)
    assert [function(one) for one in found.suspects] == ["leak_rarely"]
    assert found.suspects[0].confidence < 0.5


def test_a_leak_of_which_no_block_was_caught_is_less_sure(tmp_path: Path) -> None:
    caught = answer(Traced(growing(), [LEAK, CHURN]).add(), tmp_path).verdict
    missed = answer(Traced(growing(), [replace(CACHE, life=20), CHURN]).add(), tmp_path)
    assert missed.verdict.status == "leak"
    assert missed.verdict.confidence < caught.confidence - 0.1
    assert "it is kept for a while, as in a cache, and is not what grows" in reasons(missed)


def test_where_the_heap_does_not_grow_nobody_is_said_to_leak(tmp_path: Path) -> None:
    analysis = answer(Traced(watched(Capture()), [CACHE, CHURN]).add(), tmp_path)
    assert analysis.verdict.status == "stable"
    assert "cache_insert" not in render(analysis.verdict.headline)
    assert analysis.code is not None
    first = analysis.code.suspects[0]
    assert first.bytes_per_second is None
    assert first.confidence < 0.6


def test_a_function_that_frees_some_and_leaks_others_is_named_with_what_it_keeps(
    tmp_path: Path,
) -> None:
    def life(draw: float) -> float:
        return FOREVER if draw < 0.3 else 3.0

    found = code(Traced(growing(), [replace(LEAK, life=life), CHURN]).add(), tmp_path)
    first = found.suspects[0]
    assert (function(first), first.fate) == ("leak_session", "stays")
    assert first.curve.last_share == pytest.approx(0.3, abs=0.05)
    assert "it frees some and keeps others" in words(first)


# --- how sure -------------------------------------------------------------------------------------


def confidence(case: Capture, folder: Path) -> float:
    return code(case, folder).suspects[0].confidence


def test_blocks_that_look_alike_lower_the_confidence(tmp_path: Path) -> None:
    sure = Traced(growing(), [LEAK, CHURN])
    weak = Traced(growing(), [replace(LEAK, weak=1.0), CHURN])
    assert confidence(weak.add(), tmp_path) < confidence(sure.add(), tmp_path) - 0.2
    found = code(Traced(growing(), [replace(LEAK, weak=1.0), CHURN]).add(), tmp_path)
    assert "another block in the same place would look the same" in words(found.suspects[0])


def test_blocks_that_look_alike_count_less_where_frees_were_hardly_watched(tmp_path: Path) -> None:
    sources = [replace(LEAK, each_window=100), Source(("zeros", "main"), each_window=120, weak=1.0)]
    long = code(Traced(growing(), sources).add(), tmp_path)
    short = code(Traced(growing(), sources, linger_seconds=0.1).add(), tmp_path)
    assert function(long.suspects[0]) == "zeros"
    assert function(short.suspects[0]) == "leak_session"


def test_what_was_lost_is_said_and_lowers_the_confidence(tmp_path: Path) -> None:
    lossy = Traced(growing(), [LEAK, CHURN], lost_stacks=6000).add()
    assert confidence(lossy, tmp_path) < 0.6
    unseen = [render(one.claim) for one in answer(lossy, tmp_path).not_seen]
    assert "48,000 allocations (49 %)" in unseen


def test_shorter_looks_make_less_sure(tmp_path: Path) -> None:
    by_age = [
        confidence(Traced(growing(seconds=400), [LEAK], looks=looks).add(), tmp_path)
        for looks in ((3,), (10,), (10, 30), (10, 30, 60), (10, 30, 60, 300))
    ]
    assert by_age == sorted(set(by_age))


# --- idle and active ------------------------------------------------------------------------------


def is_active(seconds: float) -> bool:
    return int(seconds // 20) % 2 == 0


def test_a_function_that_leaks_only_while_the_process_works_is_told_so(tmp_path: Path) -> None:
    case = growing()
    always = Source(("leak_always", "main"), each_window=50)
    busy = Source(("leak_busy", "main"), each_window=50, active_only=True)
    Traced(case, [always, busy], window_starts=range(3, 60, 5), is_active=is_active).add()
    analysis = answer(case, tmp_path)
    assert analysis.code is not None
    found = {function(one): one for one in analysis.code.suspects}
    assert (found["leak_always"].trigger, found["leak_busy"].trigger) == ("constant", "active")
    said = words(found["leak_busy"])
    assert "stayed of 8 windows while it worked, 0 blocks of 4 windows while it rested" in said


def test_marks_tell_active_from_idle_too(tmp_path: Path) -> None:
    case = growing()
    for start in range(0, 120, 20):
        case.mark(start, "active" if is_active(start) else "idle")
    source = Source(("leak_idle", "main"), each_window=50, active_only=True)
    tracing = Traced(case, [source], window_starts=range(3, 60, 5))
    tracing.is_active = lambda seconds: not is_active(seconds)
    for_all = tracing.add()
    assert code(for_all, tmp_path).suspects[0].trigger == "idle"


# --- full tracing ---------------------------------------------------------------------------------


def test_full_tracing_tells_what_is_held_by_stack_and_age(tmp_path: Path) -> None:
    sources = [
        replace(LEAK, each_window=1000),
        Source(("set_up", "main"), each_window=5000, older=1.0),
        Source(("queue", "main"), each_window=90_000, freed_at_once=0.9, older=0.0),
    ]
    found = code(Traced(growing(), sources).all_traced(10, 60), tmp_path)
    assert found.basis == "outstanding"
    assert [function(one) for one in found.suspects] == ["leak_session"]
    first = found.suspects[0]
    assert (first.blocks, first.held_bytes, first.share) == (1000, 100_000, 1.0)
    assert (
        "not freed: 1,000 blocks, 97.7 KiB together, of 1,000 made while all was traced"
        in words(first)
    )
    assert [function(one) for one in found.passing] == ["queue"]


def test_what_turns_over_slowly_is_not_told_before_what_stays(tmp_path: Path) -> None:
    leak = replace(LEAK, each_window=1000)
    working_set = Source(("slots", "main"), each_window=3000, freed_at_once=0.6, older=0.2)
    found = code(Traced(growing(), [leak, working_set]).all_traced(10, 60), tmp_path)
    assert [function(one) for one in found.suspects] == ["leak_session", "slots"]


def test_what_a_tool_tells_without_ages_is_not_said_to_stay(tmp_path: Path) -> None:
    case = Traced(growing(), [LEAK, CHURN]).all_traced(10, 60)
    case.extra[-1] = replace(
        case.extra[-1], allocations=case.extra[-1].blocks, older_blocks=None, older_bytes=None
    )
    first = code(case, tmp_path).suspects[0]
    assert first.fate == "unclear"
    assert first.confidence <= 0.5
    assert words(first) == "not freed: 1,800 blocks, 176 KiB together"


def test_kinds_of_blocks_with_windows_of_their_own_are_compared_by_their_rates(
    tmp_path: Path,
) -> None:
    # The second kind's windows are a tenth as long: ten times as much stays as they held.
    case = growing()
    Traced(case, [replace(LEAK, each_window=100)], window_starts=(5, 15)).add()
    other = growing()
    object_leak = Source(("remember", "main"), each_window=10)
    Traced(other, [object_leak], window_starts=(8, 18), window_seconds=0.03).add()
    for one in other.extra:
        numbers = {
            name: getattr(one, name) + 100
            for name in ("window", "frame", "stack")
            if isinstance(getattr(one, name, None), int)
        }
        if isinstance(one, kinds.CodeStack):
            numbers["frames"] = [n + 100 for n in one.frames]
        if isinstance(one, kinds.TraceSites | kinds.TraceSurvival):
            numbers["stacks"] = [n + 100 for n in one.stacks]
        if isinstance(one, kinds.TraceWindow):
            numbers["watched"] = "python-objects"
        case.extra.append(replace(one, **numbers))
    shares = {function(one): one.share for one in code(case, tmp_path).suspects}
    assert shares == {
        "leak_session": pytest.approx(0.5, abs=0.001),
        "remember": pytest.approx(0.5, abs=0.001),
    }


def test_the_interpreters_frames_do_not_stand_between_the_functions_that_it_runs(
    tmp_path: Path,
) -> None:
    python = kinds.CodeFrame(9, "python", function=SymbolToken("serve"), file=PathToken("<file:1>"))
    native = {
        n: kinds.CodeFrame(n, "native", PathToken(path), function=SymbolToken(name))
        for n, path, name in (
            (1, "/usr/lib/python3/dist-packages/<file:2>", "parse"),
            (2, "/usr/bin/python3.11", "_PyEval_EvalFrameDefault"),
            (3, "/usr/bin/python3.11", "Py_BytesMain"),
        )
    }
    case = Traced(growing(), [LEAK]).add()
    case.extra = [
        one for one in case.extra if not isinstance(one, kinds.CodeFrame | kinds.CodeStack)
    ]
    outer = replace(python, frame=8, function=SymbolToken("main_loop"))
    case.extra += [python, outer, *native.values(), kinds.CodeStack(0, [1, 2, 9, 2, 8, 3], "root")]
    first = code(case, tmp_path).suspects[0]
    assert function(first) == "parse"
    assert callers_line(first, 80) == "called by serve, main_loop"


def test_full_tracing_of_a_heap_that_does_not_grow_gives_its_own_rate(tmp_path: Path) -> None:
    case = Traced(watched(Capture()), [replace(LEAK, each_window=6000)]).all_traced(10, 60)
    assert code(case, tmp_path).suspects[0].bytes_per_second == pytest.approx(10_000)


# --- collected runtimes ---------------------------------------------------------------------------


def with_runtime(kind: str, sources: list[Source]) -> Capture:
    case = growing(seconds=90)
    case.runtime = kind
    return Traced(case, sources, window_starts=range(5, 55, 6)).add()


def test_native_blocks_that_explain_the_growth_need_no_caution_for_a_collected_heap(
    tmp_path: Path,
) -> None:
    native = replace(LEAK, functions=("native_keep", "Java_acme_run"), module="/usr/lib/libjni.so")
    analysis = answer(with_runtime("jvm", [native, CHURN]), tmp_path)
    assert (analysis.verdict.status, analysis.verdict.kind) == ("leak", "heap")
    assert "native_keep" in render(analysis.verdict.headline)
    assert "it is not the collected heap" in reasons(analysis)


@pytest.mark.parametrize("each_window", [20, 3000])
def test_native_blocks_that_are_less_or_far_more_than_the_growth_explain_nothing(
    each_window: int, tmp_path: Path
) -> None:
    native = replace(LEAK, each_window=each_window)
    assert answer(with_runtime("jvm", [native, CHURN]), tmp_path).verdict.status == "undecided"


# --- whole mappings -------------------------------------------------------------------------------


def mapping_windows(case: Capture, source: Source, seconds: float) -> Capture:
    """All mappings were watched beside the bursts, with numbers of their own."""
    other = Traced(growing(), [source]).all_traced(5, seconds)
    for one in other.extra:
        if isinstance(one, kinds.CodeFrame):
            case.extra.append(replace(one, frame=one.frame + 50))
        elif isinstance(one, kinds.CodeStack):
            frames = [n + 50 for n in one.frames]
            case.extra.append(replace(one, stack=one.stack + 50, frames=frames))
        elif isinstance(one, kinds.TraceWindow):
            case.extra.append(replace(one, window=50, watched="mappings"))
        else:
            stacks = [n + 50 for n in one.stacks]
            case.extra.append(replace(one, window=50, stacks=stacks))
    return case


MAPS = Source(("map_buffer", "main"), each_window=60, size=100_000)


def test_mappings_are_suspects_where_blocks_leave_the_growth_open(tmp_path: Path) -> None:
    few = replace(LEAK, each_window=10)
    case = mapping_windows(Traced(growing(103_000), [few, CHURN]).add(), MAPS, 60)
    found = code(case, tmp_path)
    assert [function(one) for one in found.suspects] == ["map_buffer", "leak_session"]
    first = found.suspects[0]
    assert (first.basis, found.suspects[1].basis) == ("mappings", "survivors")
    assert first.share == pytest.approx(100_000 / 103_333, abs=0.01)
    assert "all of which were watched" in render(found.claim)


def test_an_allocators_mappings_are_not_counted_beside_the_blocks_in_them(tmp_path: Path) -> None:
    arena = Source(("innocent", "main"), each_window=60, size=100_000)
    case = mapping_windows(Traced(growing(), [LEAK, CHURN]).add(), arena, 60)
    found = code(case, tmp_path)
    assert [function(one) for one in found.suspects] == ["leak_session"]
    assert "in 8 windows of 0.3 s" in render(found.claim)


@pytest.mark.parametrize(
    ("innermost", "module", "allocator", "counts"),
    [
        ("_PyMem_ArenaAlloc", "/usr/lib/libpython3.12.so.1.0", "glibc", False),
        ("sysmalloc", "/usr/lib/x86_64-linux-gnu/libc.so.6", "glibc", True),
        ("", "/usr/lib/x86_64-linux-gnu/libc.so.6", "musl", False),
        ("je_extent_alloc", "/usr/bin/server", "jemalloc", False),
        ("", "/usr/bin/server", "jemalloc", False),
        ("new_pool", "/usr/bin/server", "jemalloc", True),
    ],
)
def test_what_an_allocator_maps_for_anybody_is_nobodys(
    innermost: str, module: str, allocator: str, counts: bool, tmp_path: Path
) -> None:
    case = mapping_windows(Traced(growing(103_000), [CHURN]).add(), MAPS, 60)
    case.allocator = allocator
    frame = kinds.CodeFrame(99, "native", PathToken(module), address=64)
    if innermost:
        frame = replace(frame, function=SymbolToken(innermost))
    case.extra = [
        replace(one, frames=[99, *one.frames])
        if isinstance(one, kinds.CodeStack) and one.stack == 50
        else one
        for one in (frame, *case.extra)
    ]
    assert bool(code(case, tmp_path).suspects) == counts


def test_a_vector_that_grows_in_place_is_named_though_its_one_block_is_always_young(
    tmp_path: Path,
) -> None:
    vector = Source(("append", "main"), each_window=3, freed_at_once=2 / 3, size=8 << 20, older=0.0)
    case = mapping_windows(Traced(growing(103_000), [CHURN]).add(), vector, 60)
    first = code(case, tmp_path).suspects[0]
    assert (function(first), first.fate) == ("append", "unclear")
    assert "not freed: 1 block, 8.00 MiB together, of 3 made" in words(first)


# --- names and stacks -----------------------------------------------------------------------------


def test_the_first_own_frame_is_named_not_the_library_that_it_calls(tmp_path: Path) -> None:
    stacks = {
        ("std::vector<int>::_M_realloc_insert<int>", "grow"): "grow",
        ("operator new", "make"): "make",
        ("_ZN4acme7Session4openEv", "main"): "acme::Session::open",
        ("_ZN5alloc7raw_vec19RawVec$LT$T$C$A$GT$7reserve17h0123456789abcdefE", "push"): "push",
        ("runtime.mallocgc", "main.serve"): "main.serve",
    }
    for functions, named in stacks.items():
        found = code(Traced(growing(), [Source(functions)]).add(), tmp_path)
        assert function(found.suspects[0]) == named
        assert len(found.suspects[0].stack.frames) == 2


def test_a_function_that_passes_requests_of_several_callers_on_is_not_blamed(
    tmp_path: Path,
) -> None:
    callers = [Source(("xmalloc", name, "main"), life=1.0) for name in ("one", "two")]
    found = code(
        Traced(growing(), [*callers, Source(("xmalloc", "three", "main"))]).add(), tmp_path
    )
    assert function(found.suspects[0]) == "three"
    alone = code(Traced(growing(), [Source(("my_calloc", "main"))]).add(), tmp_path)
    assert function(alone.suspects[0]) == "my_calloc"


def test_code_without_a_name_is_not_blamed_where_a_caller_has_one(tmp_path: Path) -> None:
    found = code(Traced(growing(), [Source(("", "outer", "main"))]).add(), tmp_path)
    assert function(found.suspects[0]) == "outer"
    alone = code(Traced(growing(), [Source(("", "start_thread"))]).add(), tmp_path)
    assert function(alone.suspects[0]) is None
    assert "worker+0x1000" in render(alone.claim)


def test_python_code_is_named_unless_it_is_pythons_own(tmp_path: Path) -> None:
    own = Source(("handle",), python_file="/home/<dir:1>/<file:2>", line=12)
    library = replace(own, functions=("loads",), python_file="/usr/lib/python3.11/<dir:3>/<file:4>")
    case = Traced(growing(), [own, library]).add()
    stacks = [one for one in case.extra if isinstance(one, kinds.CodeStack)]
    # One stack: the library innermost, called by the program's own function.
    case.extra = [one for one in case.extra if one not in stacks]
    case.extra += [kinds.CodeStack(number, [1, 0], "root") for number in (0, 1)]
    first = code(case, tmp_path).suspects[0]
    assert function(first) == "handle"
    assert first.frame is not None and first.frame.line == 12


@pytest.mark.parametrize(
    ("program", "file", "named"),
    [
        ("/opt/<dir:1>/<dir:2>/python3.12", "/opt/<dir:1>/<dir:4>/<dir:5>/encoder.py", "handle"),
        ("/opt/<dir:1>/<dir:2>/python3.12", "/opt/<dir:1>/service.py", "encode"),
        ("/opt/<dir:1>/<dir:2>/server", "/opt/<dir:1>/<dir:4>/<dir:5>/encoder.py", "encode"),
        ("/usr/bin/python3.11", "/usr/share/<dir:4>/<dir:5>/encoder.py", "encode"),
    ],
)
def test_the_library_of_an_interpreter_is_known_by_where_it_lies(
    program: str, file: str, named: str, tmp_path: Path
) -> None:
    case = Traced(growing(), [Source(("encode",), python_file=file)]).add()
    own = kinds.CodeFrame(7, "python", function=SymbolToken("handle"), file=PathToken("app.py"))
    case.extra = [
        replace(one, frames=[0, 7]) if isinstance(one, kinds.CodeStack) else one
        for one in (own, *case.extra)
    ]
    case.extra.append(
        kinds.Module(index=0, path=PathToken(program), is_program=True, deleted=False)
    )
    assert function(code(case, tmp_path).suspects[0]) == named


def test_what_blocks_are_is_part_of_the_evidence(tmp_path: Path) -> None:
    case = Traced(growing(), [LEAK, CHURN]).add()
    contents = kinds.TraceContents(0, case.at(100), 400, 100, 50, 800, 0)
    case.extra.append(contents)
    assert "80 % of the 400 blocks looked at hold pointers" in words(
        code(case, tmp_path).suspects[0]
    )
    case.extra[-1] = replace(contents, class_name=SymbolToken("acme::Session"), class_permille=990)
    assert "99 % of the 400 blocks looked at are objects of acme::Session" in words(
        code(case, tmp_path).suspects[0]
    )


def test_references_say_what_is_missing_in_the_code_that_is_named(tmp_path: Path) -> None:
    case = Traced(growing(), [LEAK, CHURN]).add()
    leaked(case, chunk_bytes=112, chunks=0)
    said = render(answer(case, tmp_path).actions[0].what)
    assert "kept by something that refers to them" in said


# --- cases that do not fit together ---------------------------------------------------------------


def test_stacks_and_frames_that_are_not_told_are_unknown_code_and_keep_their_share(
    tmp_path: Path,
) -> None:
    case = Traced(growing(), [LEAK, replace(LEAK, functions=("other", "main"))]).add()
    case.extra = [
        replace(one, frames=[999, *one.frames[1:]])
        if isinstance(one, kinds.CodeStack) and one.stack == 0
        else one
        for one in case.extra
        if not (isinstance(one, kinds.CodeStack) and one.stack == 1)
    ]
    found = code(case, tmp_path)
    assert sorted(one.share or 0 for one in found.suspects) == pytest.approx([0.5, 0.5])
    assert {function(one) for one in found.suspects} == {"handle", None}


def test_records_whose_lists_do_not_fit_together_are_left_out_and_counted(tmp_path: Path) -> None:
    case = Traced(growing(), [LEAK, CHURN]).add()
    whole = code(case, tmp_path)
    sites = next(one for one in case.extra if isinstance(one, kinds.TraceSites))
    case.extra += [
        replace(sites, kept=sites.kept[:-1]),
        replace(sites, window=77),
        kinds.TraceSurvival(0, case.at(5), 1, [0], [1 << 62], [0], [0], [0], [0]),
    ]
    analysis = answer(case, tmp_path)
    assert analysis.code is not None
    assert analysis.code.suspects[0].share == whole.suspects[0].share
    assert "3 records of the tracing" in [render(one.claim) for one in analysis.not_seen]


def test_an_older_case_has_no_suspects_and_says_why(tmp_path: Path) -> None:
    case = growing()
    case.header = Capture.header.__get__(case)  # type: ignore[method-assign]
    analysis = answer(case, tmp_path)
    assert analysis.code is None
    assert json.loads(json_text(analysis))["suspects"] == []
    assert any("which code allocates it" in render(one.claim) for one in analysis.not_seen)
    assert any(
        "--trace bursts --allow read-memory,trace" in render(one.what) for one in analysis.actions
    )


# --- what was watched, and by what ----------------------------------------------------------------


def test_the_report_says_how_often_the_allocator_is_called_and_what_watching_all_costs(
    tmp_path: Path,
) -> None:
    case = Traced(growing(), [LEAK, CHURN]).add()
    case.extra.append(
        kinds.TraceRates(
            taken_ns=case.at(4), window_ns=500_000_000, attach="uprobe-session",
            calls_of=["calloc", "malloc", "free"], calls=[0, 10_000, 9_900], net_blocks=-5,
            size_from_bytes=[16], size_calls=[10_000], predicted_slowdown_ppm=270_000,
        )
    )  # fmt: skip
    line = (
        "The allocator is called this often a second: malloc 20,000, free 19,800; watching every "
        "one would cost 27 % more CPU."
    )
    assert line in markdown_text(answer(case, tmp_path))
    case.extra[-1] = replace(case.extra[-1], calls=[0, 0, 0])
    assert "The allocator " not in markdown_text(answer(case, tmp_path)), "it was, in the windows"


def test_a_tool_that_stood_in_is_named_with_what_it_cannot_show(tmp_path: Path) -> None:
    case = Traced(growing(), [LEAK]).all_traced(10, 60)
    case.gap("allocation-trace", "not-supported")
    case.extra.append(kinds.TraceTool(0, "memleak-bpfcc", case.at(10), 60_000_000_000, 7, 3))
    unseen = [render(one.because) for one in answer(case, tmp_path).not_seen]
    assert (
        "the allocations were watched by memleak-bpfcc, which cut off 3 stacks, and lost 7 events"
        in unseen
    )
    effects = [render(one.effect) for one in answer(case, tmp_path).not_seen]
    assert "another tool was used instead" in effects
    assert "no function or line can be named" not in effects


def test_a_heap_that_grows_with_no_allocation_is_said_to_grow_otherwise(tmp_path: Path) -> None:
    case = Traced(growing(), [replace(LEAK, each_window=0)]).add()
    assert "not one allocation was seen: what grows is made otherwise" in reasons(
        answer(case, tmp_path)
    )


# --- where stacks meet ----------------------------------------------------------------------------


def test_what_many_functions_allocate_for_one_is_told_with_that_one(tmp_path: Path) -> None:
    copies = [
        Source((f"copy_{part}", "keep_copy", "handle", "main"), each_window=each)
        for part, each in (("list", 90), ("node", 70), ("text", 40))
    ]
    analysis = answer(Traced(growing(), copies).add(), tmp_path)
    told = "100 % of what stays is asked for by way of keep_copy (worker)"
    assert told in terminal_text(analysis, colour=False, unicode=True)
    assert told.replace("keep_copy (worker)", "`keep_copy (worker)`") in markdown_text(analysis)


def test_where_stacks_meet_is_not_told_where_it_says_nothing(tmp_path: Path) -> None:
    alone = answer(Traced(growing(), [LEAK, CHURN]).add(), tmp_path)
    apart = [Source((name, "main"), each_window=50) for name in ("one", "other")]
    for analysis in (alone, answer(Traced(growing(), apart).add(), tmp_path)):
        assert "by way of" not in terminal_text(analysis, colour=False, unicode=True)
