"""Who allocates what stays, asked of real programs by the real command."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from leakcase_analyzer.analysis import analyze
from leakcase_analyzer.symbols.debug_files import DebugFiles
from leakcase_bundle.records import (
    CodeFrame,
    CodeStack,
    Consent,
    Gap,
    TraceContents,
    TraceOutstanding,
    TraceRates,
    TraceSurvival,
    TraceWindow,
)
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.trace.entry_points import find_entry_points
from samples import runner
from tests.collector.system.started import needs_root
from tests.live.collecting import COLLECT, collect, of_kind, read, sentences

pytestmark = [pytest.mark.live, needs_root]

SECONDS = 11
#: A sample does little but allocate: one per cent of that is no window.
OFTEN = ("--trace", "bursts", "--allow", "read-memory,trace", "--max-slowdown", "20%")
FULL = ("--trace", "full", "--allow", "read-memory,trace", "--max-slowdown", "100%")
WITHOUT_MEMORY = ("--trace", "bursts", "--allow", "trace", "--max-slowdown", "20%")
CAPTURES = {
    "small": ("small-block-leak", OFTEN),
    "objects": ("cpp-object-leak", OFTEN),
    "full": ("small-block-leak", FULL),
    "blind": ("small-block-leak", WITHOUT_MEMORY),
}

Records = list[Any]
Answers = dict[str, "Future[Records]"]
#: By signal and mode: the command's status, and the case that it left.
Ended = dict[tuple[signal.Signals, str], tuple["Future[int]", Path]]


def _capture(sample: str, arguments: tuple[str, ...], case: Path) -> Records:
    with runner.start(sample, SECONDS + 60) as running:
        time.sleep(1)
        done = collect(
            "capture", running.pid, "--duration", f"{SECONDS}s", *arguments, "-o", case,
            timeout=SECONDS + 60,
        )  # fmt: skip
        assert running.stop()["ended"] == "signal"
    records, reader = read(case)
    assert reader.complete
    # On a busy machine there may be little time for who maps memory: then that is said.
    lacks = {(gap.probe, gap.reason) for gap in of_kind(records, Gap) if gap.reason == "no-time"}
    assert lacks <= {("allocation-trace", "no-time")}, done.stderr
    assert done.returncode == (3 if lacks else 0), done.stderr
    return records


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    """For all of this file's captures, which wait more than they work."""
    runner.build()
    with ThreadPoolExecutor(len(CAPTURES) + 4) as pool:
        yield pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cases of `answers` are, by their names."""
    return tmp_path_factory.mktemp("traced")


@pytest.fixture(scope="module", autouse=True)
def answers(pool: ThreadPoolExecutor, folder: Path) -> Answers:
    return {
        name: pool.submit(_capture, sample, arguments, folder / f"{name}.leakcase")
        for name, (sample, arguments) in CAPTURES.items()
    }


@pytest.fixture(scope="module", autouse=True)
def short(pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> Future[Records]:
    """All of a program's allocations until its end, which comes before the capture's."""
    case = tmp_path_factory.mktemp("short") / "x.leakcase"

    def capture() -> Records:
        with runner.start("small-block-leak", 12) as running:
            done = collect("capture", running.pid, "--duration", "60s", *FULL, "-o", case)
        assert done.returncode == 4, done.stderr
        sentences(done.stderr)
        records, reader = read(case)
        assert reader.complete
        return records

    return pool.submit(capture)


@pytest.fixture(scope="module", autouse=True)
def ended(pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("ended")
    found = {}
    for number in (signal.SIGINT, signal.SIGKILL):
        for mode, arguments in (("bursts", OFTEN), ("full", FULL)):
            case = folder / f"{number}-{mode}.leakcase"
            found[number, mode] = pool.submit(_end_while_traced, number, arguments, case), case
    return found


def functions_of(records: Records) -> dict[int, list[str]]:
    """By stack, the names of its functions from the innermost."""
    names = {frame.frame: frame.function or "?" for frame in of_kind(records, CodeFrame)}
    return {s.stack: [names[frame] for frame in s.frames] for s in of_kind(records, CodeStack)}


def alive_by_function(records: Records) -> Counter[str]:
    """Blocks that each innermost function's windows left, at the last look at each window."""
    last = {look.window: look for look in of_kind(records, TraceSurvival) if look.age_ns > 4e9}
    stacks = functions_of(records)
    alive: Counter[str] = Counter()
    for look in last.values():
        for stack, count in zip(look.stacks, look.alive, strict=True):
            alive[caller(stacks[stack])] += count
    return alive


def caller(functions: list[str]) -> str:
    """The innermost function that is the program's own, not operator new."""
    return next(function for function in functions if not function.startswith("_Zn"))


@pytest.mark.parametrize(
    ("name", "function"), [("small", "remember_request"), ("objects", "open_session")]
)
def test_the_function_that_leaks_has_most_of_what_stayed(
    answers: Answers, name: str, function: str
) -> None:
    records = answers[name].result()
    alive = alive_by_function(records)
    assert function in alive.most_common(1)[0][0]
    windows = [w for w in of_kind(records, TraceWindow) if w.watched == "allocator"]
    assert len(windows) >= 2
    assert {window.mode for window in windows} == {"bursts"}
    assert all(window.short_stacks == window.lost_stacks == 0 for window in windows)


@pytest.mark.parametrize("name", ["small", "objects"])
def test_the_line_that_leaks_is_named_where_the_binary_is_at_hand(
    answers: Answers, folder: Path, name: str
) -> None:
    answers[name].result()
    expected = next(one for one in runner.load_expected() if one.name == CAPTURES[name][0])
    with (folder / f"{name}.leakcase").open("rb") as file:
        code = analyze(file, DebugFiles([runner.BUILD_DIR])).code
    assert code is not None
    frame = code.suspects[0].frame
    assert frame is not None and frame.file is not None
    leaked = expected.what_is_leaked
    assert leaked is not None
    assert (frame.function, frame.line) == (leaked.symbol, leaked.line)
    assert frame.file.endswith(leaked.file)


def test_what_a_function_leaked_is_alive_to_the_last_block(answers: Answers) -> None:
    records = answers["small"].result()
    stacks = functions_of(records)
    for look in of_kind(records, TraceSurvival):
        at = [stacks[stack][0] for stack in look.stacks].index("remember_request")
        assert (look.dead[at], look.unknown[at]) == (0, 0)
        assert look.alive[at] > 10


def test_the_class_of_the_objects_that_stayed_is_named(answers: Answers) -> None:
    records = answers["objects"].result()
    stacks = functions_of(records)
    (told,) = (
        one
        for one in of_kind(records, TraceContents)
        if "open_session" in caller(stacks[one.stack])
    )
    assert "Session" in told.class_name
    assert told.class_permille == 1000


def test_the_rates_are_told_with_what_watching_costs(answers: Answers) -> None:
    (rates,) = of_kind(answers["small"].result(), TraceRates)
    calls = dict(zip(rates.calls_of, rates.calls, strict=True))
    per_second = calls["malloc"] * 1e9 / rates.window_ns
    assert 2000 < per_second < 8000, "1,999 leaked and 2,050 replaced, in turns of 20 ms"
    assert 200 < rates.call_cost_ns < 100_000
    assert rates.predicted_slowdown_ppm > 0


def test_tracing_everything_counts_every_block(answers: Answers) -> None:
    records = answers["full"].result()
    windows = {window.watched: window for window in of_kind(records, TraceWindow)}
    assert set(windows) <= {"allocator", "mappings"}
    window = windows["allocator"]
    (told,) = (o for o in of_kind(records, TraceOutstanding) if o.window == window.window)
    assert (window.mode, window.lost_blocks, window.lost_stacks) == ("full", 0, 0)
    stacks = functions_of(records)
    at = [stacks[stack][0] for stack in told.stacks].index("remember_request")
    expected = 1999 * window.duration_ns / 1e9
    assert told.blocks[at] == told.allocations[at] == pytest.approx(expected, rel=0.02)
    assert told.bytes_held[at] == 211 * told.blocks[at]
    assert told.older_blocks[at] == pytest.approx(told.blocks[at] / 2, rel=0.05)
    assert sum(told.blocks) == window.kept_blocks


def test_what_a_short_program_has_not_freed_at_its_end_is_told(short: Future[Records]) -> None:
    records = short.result()
    (window,) = (w for w in of_kind(records, TraceWindow) if w.watched == "allocator")
    (told,) = (o for o in of_kind(records, TraceOutstanding) if o.window == window.window)
    stacks = functions_of(records)
    at = [stacks[stack][0] for stack in told.stacks].index("remember_request")
    assert told.blocks[at] == told.allocations[at] > 199


def test_without_leave_to_read_memory_nothing_is_looked_at_again(answers: Answers) -> None:
    records = answers["blind"].result()
    assert of_kind(records, TraceWindow)
    assert not of_kind(records, TraceSurvival) + of_kind(records, TraceContents)
    gaps = {(gap.probe, gap.reason) for gap in of_kind(records, Gap)}
    assert ("allocation-trace", "not-consented") in gaps
    assert {c.level for c in of_kind(records, Consent) if c.answer == "yes"} == {"observe", "trace"}


def _code_is_untouched(pid: int) -> bool:
    """Whether the instructions of the allocator in memory are those of its file."""
    system = System()
    with ProcessIdentity(system, pid) as identity, find_entry_points(system, identity) as points:
        mappings = system.read_text(f"/proc/{pid}/maps").splitlines()
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for point in points.points:
                wanted = Path(point.path).stat().st_ino
                for line in mappings:
                    span, flags, offset, _, inode, *_ = line.split()
                    start, end = (int(part, 16) for part in span.split("-"))
                    at = point.file_offset - int(offset, 16)
                    if int(inode) == wanted and "x" in flags and 0 <= at < end - start:
                        with open(point.path, "rb") as file:
                            file.seek(point.file_offset)
                            memory.seek(start + at)
                            if memory.read(4) != file.read(4):
                                return False
    return True


def _end_while_traced(number: signal.Signals, mode: tuple[str, ...], case: Path) -> int:
    """Send a capture a signal while its probes are in place; returns the command's status. The
    program must live on, its code as it was."""
    with runner.start("small-block-leak", 60) as running:
        command = [*COLLECT, "capture", str(running.pid), "--duration", "60s", "-o", str(case)]
        capture = subprocess.Popen(
            [*command, *mode], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            until = time.monotonic() + 30
            while _code_is_untouched(running.pid):
                assert time.monotonic() < until, "nothing was ever armed"
                assert capture.poll() is None
            capture.send_signal(number)
            capture.wait(timeout=30)
        finally:
            capture.kill()
            _, said = capture.communicate()
        sentences(said)
        until = time.monotonic() + 5
        while not _code_is_untouched(running.pid):
            assert time.monotonic() < until, "something of ours stayed in the program"
            time.sleep(0.05)
        assert running.stop()["ended"] == "signal"
    return capture.returncode


@pytest.mark.parametrize("mode", ["bursts", "full"])
def test_an_interrupt_takes_everything_out_and_leaves_a_whole_case(ended: Ended, mode: str) -> None:
    status, case = ended[signal.SIGINT, mode]
    assert status.result() == 130
    records, reader = read(case)
    assert reader.complete
    assert of_kind(records, TraceWindow)


@pytest.mark.parametrize("mode", ["bursts", "full"])
def test_a_kill_takes_everything_out_as_well(ended: Ended, mode: str) -> None:
    status, case = ended[signal.SIGKILL, mode]
    assert status.result() == -signal.SIGKILL
    read(case)  # Perhaps nothing was written yet; what was can be read.
