"""Real servers' memory split into what it is, and heaps of runtimes told from native ones.

All are looked into at once, for some seconds. None that is missing counts as seen: the test is
skipped with the reason, and in CI, which has them all, fails.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from leakcase_bundle.records import (
    Gap,
    HeapCensus,
    ManagedClasses,
    ManagedHeap,
    ManagedNative,
)
from tests.live import processes, servers, services
from tests.live.collecting import analyze, collect, of_kind, read

WATCHED_SECONDS = 8
MARGIN_SECONDS = 60
MIB = 1 << 20

pytestmark = [pytest.mark.live, pytest.mark.slow]


@dataclass(frozen=True)
class Subject:
    """A server, the levels that it is looked into by, and what its memory consists of.

    heap: glibc's books can be read. managed: the runtime whose heap is told. part: of the split,
    what holds most of its anonymous memory; None: nothing does.
    """

    name: str
    start: servers.Start
    heap: bool = True
    managed: str | None = None
    part: str | None = "live_heap_bytes"
    kind: str | None = None
    levels: str = "read-memory"


JAVA_OBJECTS = Subject(
    "java-objects", partial(services.java, forgets="objects"), managed="jvm",
    part="runtime_bytes", kind="managed-heap", levels="read-memory,attach",
)  # fmt: skip
JAVA_NATIVE = Subject(
    "java-native", partial(services.java, forgets="native"), managed="jvm",
    part="live_heap_bytes", kind="heap", levels="read-memory,attach",
)  # fmt: skip
SUBJECTS = (
    Subject("redis", servers.redis, heap=False, part="allocator_bytes"),
    Subject("nginx", servers.nginx, part=None),
    Subject("postgresql", servers.postgresql),
    Subject("python", servers.python_service, part="runtime_bytes"),
    JAVA_OBJECTS,
    JAVA_NATIVE,
    Subject(
        "node-objects", partial(services.node, forgets="objects"), managed="node",
        part="runtime_bytes", kind="managed-heap",
    ),
    Subject(
        "go-objects", partial(services.go, forgets="objects"), heap=False, managed="go",
        part="runtime_bytes", kind="managed-heap",
    ),
)  # fmt: skip


@dataclass
class Seen:
    """What some seconds within one server gave."""

    answer: dict[str, Any]
    records: list[Any]
    serves: bool
    exit_status: int
    stderr: str

    @property
    def lacked_time(self) -> bool:
        """Whether this machine was too busy for Python's small objects, which has to be said."""
        gaps = {(gap.probe, gap.reason) for gap in of_kind(self.records, Gap)}
        return ("python-types", "no-time") in gaps

    @property
    def memory(self) -> dict[str, float]:
        return {name: size or 0.0 for name, size in self.answer["memory"].items()}


def _look(subject: Subject, folder: Path, case: Path, turn: threading.Lock) -> Seen | str:
    """What was seen, or why the server is not here."""
    try:
        with subject.start(folder, WATCHED_SECONDS + MARGIN_SECONDS) as serving:
            done = collect(
                "capture", serving.pid, "--duration", f"{WATCHED_SECONDS}s", "-o", case,
                "--allow", subject.levels, timeout=WATCHED_SECONDS + MARGIN_SECONDS,
            )  # fmt: skip
            serves = serving.still_serves()
    except processes.CannotServe as reason:
        return str(reason)
    with turn:
        answer = analyze(case)
    return Seen(answer, read(case)[0], serves, done.returncode, done.stderr)


Looks = dict[str, Callable[[], Seen]]


@pytest.fixture(scope="module")
def looks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Looks]:
    """What was seen of each server that the chosen tests ask for: call it to have it, or the
    reason why not."""
    asked = {
        item.callspec.params["subject"]
        for item in request.session.items
        if item.path == request.path and isinstance(item, pytest.Function)
    }
    cases = tmp_path_factory.mktemp("inside")
    turn = threading.Lock()
    with (
        TemporaryDirectory(prefix="leakcase-test-", dir="/var/tmp") as name,
        ThreadPoolExecutor(len(SUBJECTS)) as pool,
    ):
        root = Path(name)
        root.chmod(0o755)
        found = {}
        for subject in asked:
            folder = root / subject.name
            folder.mkdir()
            case = cases / f"{subject.name}.leakcase"
            found[subject.name] = pool.submit(_look, subject, folder, case, turn)
        yield {name: partial(_seen, future) for name, future in found.items()}


def _seen(future: Future[Seen | str]) -> Seen:
    found = future.result()
    if isinstance(found, Seen):
        return found
    if os.environ.get("CI"):
        pytest.fail(found)
    pytest.skip(found)


def each(subjects: tuple[Subject, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("subject", subjects, ids=lambda subject: subject.name)


@each(SUBJECTS)
def test_the_parts_of_memory_are_named_and_add_up(subject: Subject, looks: Looks) -> None:
    seen = looks[subject.name]()
    assert seen.exit_status == (3 if seen.lacked_time else 0), seen.stderr
    assert seen.serves
    memory = seen.memory
    apart = ("resident_bytes", "unreachable_bytes", "swap_bytes")
    parts = sum(size for name, size in memory.items() if name not in apart)
    print(subject.name, {name: round(size / MIB, 1) for name, size in memory.items() if size})
    assert parts == pytest.approx(memory["resident_bytes"], rel=0.03)
    if seen.lacked_time and not memory["runtime_bytes"]:
        assert any("no time" in one["because"] for one in seen.answer["not_seen"])
        return
    assert memory["unexplained_bytes"] <= 0.03 * memory["resident_bytes"] + 2 * MIB
    if subject.part is not None:
        own = {
            name: memory[name]
            for name in ("live_heap_bytes", "kept_free_bytes", "runtime_bytes", "allocator_bytes")
        }
        assert max(own, key=lambda name: own[name]) == subject.part


@each(SUBJECTS)
def test_there_is_a_census_or_an_exact_word_why_not(subject: Subject, looks: Looks) -> None:
    seen = looks[subject.name]()
    gaps = [gap for gap in of_kind(seen.records, Gap) if gap.probe == "heap-census"]
    assert bool(of_kind(seen.records, HeapCensus)) == subject.heap
    if not subject.heap:
        (gap,) = gaps
        assert gap.detail in ("heap-not-glibc", "heap-not-found")
        told = [one["because"] for one in seen.answer["not_seen"]]
        assert any("glibc" in because or "jemalloc" in because for because in told), told


@each(tuple(one for one in SUBJECTS if one.managed))
def test_a_runtimes_heap_is_told_by_its_own_figures(subject: Subject, looks: Looks) -> None:
    heaps = of_kind(looks[subject.name]().records, ManagedHeap)
    assert len(heaps) >= 2
    assert {heap.runtime for heap in heaps} == {subject.managed}
    for heap in heaps:
        assert 0 < (heap.used_bytes or 0) <= (heap.committed_bytes or 0)
        assert 0 < (heap.resident_bytes or 0) <= (heap.committed_bytes or 0) * 1.1


@each(tuple(one for one in SUBJECTS if one.kind))
def test_growth_is_told_to_be_managed_or_native(subject: Subject, looks: Looks) -> None:
    verdict = looks[subject.name]().answer["verdict"]
    print(subject.name, verdict["headline"], verdict["reasons"])
    assert verdict["kind"] == subject.kind
    assert verdict["rate_bytes_per_hour"] is None or verdict["rate_bytes_per_hour"] > 0


@each((JAVA_OBJECTS,))
def test_the_class_that_a_java_service_forgets_is_the_one_that_grows(
    subject: Subject, looks: Looks
) -> None:
    seen = looks[subject.name]()
    first, last = of_kind(seen.records, ManagedClasses)
    grown = {one["name"]: one["count_delta"] for one in seen.answer["types"]}
    own = [name for name in grown if name.startswith("Service")]
    assert own == ["Service$Session"]
    seconds = (last.taken_ns - first.taken_ns) / 1e9
    # Fewer where the machine is too busy for it; each histogram is taken some time after its tick.
    assert 0.3 < grown["Service$Session"] / (16_000 * seconds) < 1.5


@each((JAVA_NATIVE,))
def test_what_a_java_service_forgets_outside_of_its_heap_shows_in_the_jvms_books(
    subject: Subject, looks: Looks
) -> None:
    first, last = of_kind(looks[subject.name]().records, ManagedNative)
    sizes = [dict(zip(one.purposes, one.committed_bytes)) for one in (first, last)]
    # Some 30 MiB where nothing else wants the cores.
    assert sizes[1]["other"] - sizes[0]["other"] > 5 * MIB
