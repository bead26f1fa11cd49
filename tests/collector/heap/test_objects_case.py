"""A whole capture of a program with secrets in its heap: exact counts, and nothing of the contents.

Five seconds, so that a paced probe has its pause as well.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from leakcase_bundle.reader import Reader
from leakcase_bundle.records import Consent, Cost, Gap, HeapClasses, HeapLabels
from tests.collector.heap.objects import ADDED, CLASSES, Running, built, counts, running
from tests.live.collecting import analyze, collect, of_kind, read

pytestmark = pytest.mark.live

SECONDS = 5
#: In text, in blocks of no one kind.
PLANTED = (b"Zqhidden", "Grüße".encode())
PROBES = ("heap-census", "heap-labels")


def _capture(one: Running, case: Path, *options: str) -> str:
    done = collect("capture", one.pid, "--duration", f"{SECONDS}s", "-o", case, *options)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three captures at once: memory may be read, it may not, and names are to be left out."""
    folder = tmp_path_factory.mktemp("cases")
    program = built(folder)
    allow = ("--allow", "read-memory")
    options = {"allowed": allow, "refused": (), "nameless": (*allow, "--no-symbols")}
    with running(program) as one, ThreadPoolExecutor(len(options)) as pool:
        paths = {name: folder / f"{name}.leakcase" for name in options}
        done: list[Future[str]] = [
            pool.submit(_capture, one, paths[name], *chosen) for name, chosen in options.items()
        ]
        time.sleep(SECONDS / 2)
        one.add()
        for future in done:
            future.result()
    return paths


def records(case: Path) -> list[Any]:
    found, reader = read(case)
    assert reader.complete
    return found


def test_what_was_added_between_the_looks_is_in_the_case_to_the_object(
    cases: dict[str, Path],
) -> None:
    first, last = of_kind(records(cases["allowed"]), HeapClasses)
    assert counts(first) == CLASSES
    assert counts(last) == {name: count + ADDED.get(name, 0) for name, count in CLASSES.items()}
    assert first.exact and last.exact
    assert last.taken_ns - first.taken_ns >= (SECONDS - 1) * 1_000_000_000


def test_the_analyzer_names_the_classes_as_their_source_does(cases: dict[str, Path]) -> None:
    types = {one["name"]: one["count_delta"] for one in analyze(cases["allowed"])["types"]}
    assert types == {"acme::Session": 617, "(anonymous namespace)::Hidden": 13}


@pytest.mark.parametrize("name", ("allowed", "nameless"))
def test_no_content_of_a_block_is_in_the_decompressed_case(
    name: str, cases: dict[str, Path]
) -> None:
    with cases[name].open("rb") as file:
        frames = {frame.offset: frame.content for frame, _ in Reader(file).maps()}
    content = b"".join(frames.values())
    assert len(of_kind(records(cases[name]), HeapLabels)) == 2
    assert [planted for planted in PLANTED if planted in content] == []
    assert (b"acme" in content) is (name == "allowed")


def test_without_names_the_labels_are_told_and_a_gap_says_why_no_classes(
    cases: dict[str, Path],
) -> None:
    found = records(cases["nameless"])
    assert of_kind(found, HeapClasses) == []
    gaps = {(gap.probe, gap.reason) for gap in of_kind(found, Gap)}
    assert ("heap-labels", "left-out") in gaps


def test_without_consent_nothing_is_read_and_a_gap_says_so(cases: dict[str, Path]) -> None:
    found = records(cases["refused"])
    assert of_kind(found, HeapClasses) == of_kind(found, HeapLabels) == []
    gaps = {(gap.probe, gap.reason) for gap in of_kind(found, Gap)}
    assert {(probe, "not-consented") for probe in PROBES} <= gaps


def test_what_it_cost_is_told_beside_what_was_predicted(cases: dict[str, Path]) -> None:
    found = records(cases["allowed"])
    assert any(one.probe == "heap-labels" for one in of_kind(found, Consent))
    (cost,) = [one for one in of_kind(found, Cost) if one.probe == "heap-labels"]
    assert cost.runs == 2 and cost.target_stopped_ns == 0
    assert 0 < cost.cpu_ns < 2 * 1_000_000_000
    assert cost.predicted_cpu_ns > 0
