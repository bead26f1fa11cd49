"""C++ objects counted by class, and blocks labelled by contents, in programs that know theirs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leakcase_bundle.records import HeapClasses, HeapLabels
from leakcase_collector.errors import LeftOut
from leakcase_collector.probes.heap_labels import HeapLabelsProbe
from leakcase_collector.redact import Redactor
from leakcase_collector.system import native
from tests.collector.heap.objects import (
    ADDED,
    BLOCKS,
    CLASSES,
    Running,
    built,
    context_of,
    counts,
    looked,
    running,
)
from tests.collector.system.started import as_nobody, needs_root

BUILDS = {
    "pie": ("g++",),
    "no-pie": ("g++", "-no-pie"),
    "static": ("g++", "-static"),
    "rodata-in-code": ("g++", "-no-pie", "-Wl,-z,noseparate-code"),
    "clang": ("clang++",),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return built(tmp_path_factory.mktemp("objects"))


@pytest.fixture
def target(program: str) -> Iterator[Running]:
    with running(program) as one:
        yield one


@pytest.fixture(params=("native", "python"))
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the twins looks."""
    if request.param == "python":
        monkeypatch.setenv("LEAKCASE_NATIVE", "0")
    elif native.load() is None:
        pytest.skip("the native part is not built")
    return str(request.param)


@pytest.mark.parametrize("build", BUILDS)
def test_objects_of_a_stripped_program_are_counted_exactly(build: str, tmp_path: Path) -> None:
    compiler, *flags = BUILDS[build]
    with running(built(tmp_path, *flags, compiler=compiler)) as one:
        context = looked(one.pid)
    record = context.emitted(HeapClasses)[0]
    assert context.gaps == [] and context.losses == []
    assert record.exact and record.source == "blocks"
    assert counts(record) == CLASSES


def test_between_two_looks_just_those_are_more_that_the_program_added(
    target: Running, twin: str
) -> None:
    with context_of(target.pid) as context:
        probe = HeapLabelsProbe()
        probe.begin(context, 1)
        target.add()
        probe.finish(context, 2)
    first, last = context.emitted(HeapClasses)
    grown = {name: count - CLASSES[name] for name, count in counts(last).items()}
    assert counts(first) == CLASSES
    assert {name: more for name, more in grown.items() if more} == ADDED
    assert (first.look, last.look) == (0, 1)
    sizes = dict(zip(map(str, last.names), last.sizes_bytes or []))
    chunks = dict(zip(map(str, last.names), last.chunk_bytes or []))
    assert chunks["N4acme7SessionE"] == 224
    assert sizes["N4acme7SessionE"] == (2000 + 617) * 224


def test_blocks_are_what_their_contents_are(target: Running, twin: str) -> None:
    record = looked(target.pid).emitted(HeapLabels)[0]
    assert record.method == twin
    for chunk_bytes, what in BLOCKS.items():
        row = of_size(record, chunk_bytes)
        assert row["in_use"] == 500
        assert row["sampled"] >= 200
        labels = {what: row["sampled"]} if what else {}
        assert {name: count for name, count in row["labels"].items() if count} == labels
    sessions = of_size(record, 224)
    assert sessions["in_use"] == 2000
    assert sessions["labels"]["object"] == sessions["sampled"]


def of_size(record: HeapLabels, chunk_bytes: int) -> dict[str, Any]:
    at = record.chunk_bytes.index(chunk_bytes)
    names = ("object", "text", "pointer", "entropy", "zero")
    return {
        "in_use": record.in_use_chunks[at],
        "sampled": record.sampled_chunks[at],
        "labels": {name: getattr(record, f"{name}_chunks")[at] for name in names},
    }


def test_the_twins_tell_the_same(target: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    if native.load() is None:
        pytest.skip("the native part is not built")
    in_c = looked(target.pid)
    monkeypatch.setenv("LEAKCASE_NATIVE", "0")
    in_python = looked(target.pid)
    costs = {"duration_ns", "method"}
    for one, other in zip(in_c.records, in_python.records):
        fields = vars(one).keys() - costs
        assert {name: vars(one)[name] for name in fields} == {
            name: vars(other)[name] for name in fields
        }
    assert len(in_c.records) == len(in_python.records) == 2


def test_objects_that_stay_are_counted_while_other_threads_churn(program: str, twin: str) -> None:
    with running(program, "2") as one:
        context = looked(one.pid)
    record = context.emitted(HeapClasses)[0]
    found = counts(record, tuple(CLASSES))
    for name, count in CLASSES.items():
        assert abs(found[name] - count) <= 0.02 * count + 1
    # Those that come and go: at this moment there may be none.
    assert counts(record).get("N12_GLOBAL__N_17PassingE", 0) <= 1.05 * 2 * 3000


@pytest.mark.parametrize("name", ("jemalloc", "tcmalloc_minimal", "mimalloc"))
def test_under_another_allocator_every_object_is_found(program: str, name: str) -> None:
    folder = Path("/usr/lib/x86_64-linux-gnu")
    libraries = sorted(folder.glob(f"lib{name}.so*"))
    if not libraries:
        pytest.skip(f"{name} is not installed")
    with running(program, env={**os.environ, "LD_PRELOAD": str(libraries[0])}) as one:
        context = looked(one.pid)
    record = context.emitted(HeapClasses)[0]
    assert record.source == "words" and record.exact
    assert record.sizes_bytes is None and context.emitted(HeapLabels) == []
    found = counts(record, tuple(CLASSES))  # tcmalloc has some of its own
    # The 400 freed ones may be there still.
    freed = found.pop("N4acme7SessionE") - CLASSES["N4acme7SessionE"]
    assert 0 <= freed <= 400
    assert found == {name: n for name, n in CLASSES.items() if name != "N4acme7SessionE"}


def test_of_a_sample_of_other_allocators_memory_counts_are_scaled_up(
    program: str, twin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Path("/usr/lib/x86_64-linux-gnu/libmimalloc.so.2")
    if not library.exists():
        pytest.skip("mimalloc is not installed")
    limits = {"native": 1 << 20, "python": 1 << 20}
    monkeypatch.setattr("leakcase_collector.probes.heap_labels._WORDS_LIMIT_BYTES", limits)
    with running(program, env={**os.environ, "LD_PRELOAD": str(library)}) as one:
        record = looked(one.pid).emitted(HeapClasses)[0]
    assert not record.exact and (record.read_bytes or 0) <= 1 << 20
    assert 0.5 * 2000 <= counts(record)["N4acme7SessionE"] <= 2 * 2000


def test_without_symbols_no_class_is_named(target: Running) -> None:
    with context_of(target.pid, Redactor(keep_symbols=False)) as context:
        with pytest.raises(LeftOut):
            HeapLabelsProbe().begin(context, 1)
        assert context.emitted(HeapClasses) == []
        assert len(context.emitted(HeapLabels)) == 1


@needs_root
def test_refused_permission_leaves_a_gap_and_no_record(target: Running) -> None:
    def look() -> Any:
        context = looked(target.pid)
        return context.gaps, len(context.records)

    assert as_nobody(look) == ([("not-permitted", "mem")], 0)


def test_no_page_of_the_target_is_brought_in(target: Running) -> None:
    def faults_and_pages() -> tuple[int, int, int]:
        fields = Path(f"/proc/{target.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[7]), int(fields[9]), int(fields[21])

    before = faults_and_pages()
    looked(target.pid)
    assert faults_and_pages() == before
