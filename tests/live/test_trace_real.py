"""Real programs that forget memory in native code, traced all at once: the function is named.

What is not on this machine is skipped with the reason; in CI, which has them all, that fails. Some
run every time, all of them by ``make real``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from leakcase_bundle.records import CodeFrame, Gap, TraceWindow
from tests.collector.system.started import needs_root
from tests.live import keeping, leaking, servers
from tests.live.collecting import analyze, collect, of_kind, read, sentences
from tests.live.processes import CannotServe

pytestmark = [pytest.mark.live, pytest.mark.slow, needs_root]

SECONDS = int(os.environ.get("LEAKCASE_TRACED_SECONDS", "10"))
#: In some seconds on a busy machine the default of 1 % may be one window only.
SLOWDOWN = "1%" if SECONDS >= 30 else "10%"
MARGIN_SECONDS = 60
AT_ONCE = 6

#: The pid, and whether the program still does its work.
Held = AbstractContextManager[tuple[int, Callable[[], bool]]]


@contextmanager
def _serving(start: servers.Start, folder: Path) -> Iterator[tuple[int, Callable[[], bool]]]:
    with start(folder, SECONDS + MARGIN_SECONDS) as one:
        yield one.pid, one.still_serves


@contextmanager
def _working(start: keeping.Start, folder: Path) -> Iterator[tuple[int, Callable[[], bool]]]:
    with start(folder) as one:
        before = one.kept()
        yield one.pid, lambda: one.kept() > before


@dataclass(frozen=True)
class Subject:
    """A program; what is named after the leak, and a function further out on that stack.

    function: None where the program has no symbols: then its module is named.
    """

    name: str
    hold: Callable[[Path], Held]
    function: str | None
    through: str
    is_slow: bool = True
    slowdown: str = SLOWDOWN
    seconds: int = SECONDS


def serving(start: servers.Start) -> Callable[[Path], Held]:
    return partial(_serving, start)


def working(start: Any, **options: Any) -> Callable[[Path], Held]:
    return partial(_working, partial(start, **options))


LEAKING = (
    Subject("node", working(leaking.node), "copy_message", "store", is_slow=False),
    Subject("java", working(leaking.java), "copy_record", "Java_Leak_storeRecord", is_slow=False),
    Subject("go-cgo", working(leaking.go, with_c=True), "keep_packet", "asmcgocall", is_slow=False),
    Subject("rust", working(leaking.rust), "handle_request", "serve", is_slow=False),
    Subject(
        "redis", serving(partial(servers.redis, cap="512mb")), "_sdsnewlen",
        "processMultibulkBuffer", is_slow=False,
    ),
    Subject(
        "postgresql", serving(partial(servers.postgresql, forgets=True)), "copyObjectImpl",
        "PrepareQuery",
    ),
    Subject("memcached", serving(servers.memcached), None, "event_base_loop"),
    Subject("python-extension", working(leaking.python, way="extension"), "keep_one", "take"),
    Subject("python-list", working(leaking.python, way="list"), "keep_session", "<module>"),
    Subject("python-cache", working(leaking.python, way="cache"), "render_page", "<module>"),
)  # fmt: skip
NGINX = Subject(
    "nginx", serving(partial(servers.nginx, pause_seconds=0.5)), None, "",
    slowdown="10%",
)  # fmt: skip
PURE_GO = Subject("go", working(leaking.go, with_c=False), None, "", is_slow=False, seconds=2)


@dataclass(frozen=True)
class Seen:
    """What a traced capture gave, and whether the program was unharmed."""

    answer: dict[str, Any]
    records: list[Any]
    status: int
    said: list[str]
    works: bool

    @property
    def mishaps(self) -> list[Gap]:
        """Gaps that nobody foresaw, of whatever probe."""
        return [gap for gap in of_kind(self.records, Gap) if gap.reason == "malformed"]

    @property
    def gaps(self) -> list[tuple[str, str | None]]:
        gaps = of_kind(self.records, Gap)
        return [(gap.reason, gap.detail) for gap in gaps if gap.probe == "allocation-trace"]


def _look(subject: Subject, folder: Path, case: Path, turn: threading.Lock) -> Seen | str:
    """What was seen, or why the program is not here."""
    try:
        with subject.hold(folder) as (pid, works):
            done = collect(
                "capture", pid, "--duration", f"{subject.seconds}s", "--trace", "bursts",
                "--allow", "read-memory,trace", "--max-slowdown", subject.slowdown, "-o", case,
                timeout=SECONDS + MARGIN_SECONDS,
            )  # fmt: skip
            is_unharmed = works()
    except CannotServe as reason:
        return str(reason)
    with turn:
        answer = analyze(case)
    return Seen(answer, read(case)[0], done.returncode, sentences(done.stderr), is_unharmed)


Looks = dict[str, Callable[[], Seen]]


@pytest.fixture(scope="module")
def looks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Looks]:
    """Of the programs that the chosen tests ask for."""
    asked = {
        item.callspec.params["subject"]
        for item in request.session.items
        if item.path == request.path and isinstance(item, pytest.Function)
    }
    cases = tmp_path_factory.mktemp("traced")
    turn = threading.Lock()
    with (
        TemporaryDirectory(prefix="leakcase-test-", dir="/var/tmp") as name,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        root = Path(name)
        root.chmod(0o755)
        found = {}
        for subject in (*LEAKING, NGINX, PURE_GO):
            if subject not in asked:
                continue
            folder = root / subject.name
            folder.mkdir()
            case = cases / f"{subject.name}.leakcase"
            found[subject.name] = pool.submit(_look, subject, folder, case, turn)
        yield {name: partial(_seen, future) for name, future in found.items()}


def _seen(future: Future[Seen | str]) -> Seen:
    found = future.result()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def each(*subjects: Subject) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "subject",
        [
            pytest.param(one, id=one.name, marks=[pytest.mark.slow] if one.is_slow else [])
            for one in subjects
        ],
    )


def lacked_at_most_time(seen: Seen) -> None:
    """On a busy machine tracing, or another probe's look at so busy a program, may lack it."""
    assert seen.works
    assert set(seen.gaps) <= {("no-time", None)}, "\n".join(seen.said)
    assert seen.status in (0, 3), "\n".join(seen.said)
    assert not seen.mishaps, "\n".join(seen.said)


@each(*LEAKING)
def test_the_function_that_leaks_is_named_first(subject: Subject, looks: Looks) -> None:
    seen = looks[subject.name]()
    lacked_at_most_time(seen)
    if not seen.answer["suspects"]:
        # So busy a machine that next to nothing was watched: then that is what is said.
        print(subject.name, "no time")
        assert seen.gaps == [("no-time", None)], "\n".join(seen.said)
        assert any("no time" in one["because"] for one in seen.answer["not_seen"])
        return
    first = seen.answer["suspects"][0]
    stack = " < ".join(first["stack"])
    print(subject.name, first["function"], first["share"], first["fate"], stack)
    if subject.function is None:
        assert first["function"] is None
        assert Path(first["module"]).name == subject.name
        assert subject.through in stack
    else:
        assert first["function"].rpartition("::")[2] == subject.function
        assert subject.through in stack.partition(subject.function)[2]
    assert first["share"] > 0.5
    assert first["fate"] != "passes"


@each(NGINX)
def test_a_server_that_keeps_nothing_has_no_suspect(subject: Subject, looks: Looks) -> None:
    seen = looks[subject.name]()
    lacked_at_most_time(seen)
    assert of_kind(seen.records, TraceWindow)
    functions = [frame.function or "" for frame in of_kind(seen.records, CodeFrame)]
    assert any(function.startswith("ngx_http_") for function in functions)
    assert seen.answer["suspects"] == []


@each(PURE_GO)
def test_a_program_that_manages_its_memory_itself_is_refused_exactly(
    subject: Subject, looks: Looks
) -> None:
    seen = looks[subject.name]()
    assert seen.works
    assert seen.status == 3
    assert seen.gaps == [("not-supported", "no-entry-point")]
    (said,) = (line for line in seen.said if "memory management of its own as Go has" in line)
    assert said.startswith("not seen: cannot watch the allocations")
