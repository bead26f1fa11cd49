"""What is unreachable in programs at work: in leaking samples what they leaked, in servers nothing.

In a real server no more than a handful of blocks is, and those were forgotten: PostgreSQL's backend
has lost, since its start, an old array of its environment and a copy of its data folder's name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from leakcase_bundle.records import Gap, HeapUnreachable
from samples import runner
from tests.live import processes, servers
from tests.live.collecting import analyze, collect, of_kind, read

pytestmark = pytest.mark.live
LOAD_SECONDS, WARM_UP_SECONDS = 40, 3
TOLERATED_BLOCKS, TOLERATED_BYTES = 6, 4096

Look = Callable[[], tuple[list[Any], dict[str, Any]]]
LEAKING = ("small-block-leak", "cpp-object-leak", "large-block-leak")
KEEPING = ("filling-cache", "cpp-container-growth", "spike-retained", "stable")
SAMPLES = (*LEAKING, *KEEPING)
SERVERS = {
    "memcached": servers.memcached,
    "nginx": servers.nginx,
    "postgresql": servers.postgresql,
    "python": servers.python_service,
    "redis": servers.redis,
}


def _look(pid: int, case: Path, seconds: str = "3s") -> tuple[list[Any], dict[str, Any]]:
    time.sleep(WARM_UP_SECONDS)
    done = collect(
        "capture", pid, "--duration", seconds, "--allow", "read-memory", "--reachability",
        "-o", case,
    )  # fmt: skip
    # 3: it was asked for what there is not, as under another allocator.
    assert done.returncode in (0, 3), done.stderr
    return read(case)[0], analyze(case)


def _missing(reason: str) -> Look:
    def tell() -> tuple[list[Any], dict[str, Any]]:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return tell


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    cases = tmp_path_factory.mktemp("unreachable")
    with ExitStack() as stack:
        # Not below pytest's own folder, which other users cannot reach.
        root = Path(
            stack.enter_context(TemporaryDirectory(prefix="leakcase-test-", dir="/var/tmp"))
        )
        root.chmod(0o755)
        pool = stack.enter_context(ThreadPoolExecutor(len(SERVERS)))
        found: dict[str, Look] = {}
        for name, start in SERVERS.items():
            (root / name).mkdir()
            try:
                serving = stack.enter_context(start(root / name, LOAD_SECONDS))
            except processes.CannotServe as reason:
                found[name] = _missing(str(reason))
                continue
            found[name] = pool.submit(_look, serving.pid, cases / f"{name}.leakcase").result
        yield found


@pytest.mark.parametrize("name", [name for name in SERVERS if name != "redis"])
def test_a_server_at_work_has_no_unreachable_memory(name: str, looks: dict[str, Look]) -> None:
    records, answer = looks[name]()
    (found,) = of_kind(records, HeapUnreachable)
    print(f"{name}: {found.unreachable_chunks} blocks, {found.unreachable_bytes} bytes")
    assert found.looked_at_chunks > 50
    assert found.unreachable_chunks <= TOLERATED_BLOCKS
    assert found.unreachable_bytes <= TOLERATED_BYTES
    assert "leaked for certain" not in " ".join(answer["verdict"]["reasons"])


def _sample(name: str, case: Path) -> tuple[HeapUnreachable, dict[str, Any], Any, float]:
    with runner.start(name, LOAD_SECONDS) as running:
        time.sleep(2)  # what leaks meanwhile leaked before the capture
        record, answer = _look(running.pid, case, "8s")
        truth = running.stop()
        return of_kind(record, HeapUnreachable)[0], answer, truth, time.monotonic()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    runner.build()
    folder = tmp_path_factory.mktemp("samples")
    with ThreadPoolExecutor(len(SAMPLES)) as pool:
        yield {n: pool.submit(_sample, n, folder / f"{n}.leakcase").result for n in SAMPLES}


@pytest.mark.parametrize("name", LEAKING)
def test_of_a_leaking_sample_what_it_leaked_is_unreachable(
    name: str, samples: dict[str, Any]
) -> None:
    found, answer, truth, stopped = samples[name]()
    leaked = next(one.what_is_leaked for one in runner.load_expected() if one.name == name)
    assert leaked is not None
    since = stopped - found.taken_ns / 1e9
    blocks = found.unreachable_chunks
    # It went on after the first look, whose blocks alone can be in all of them.
    assert blocks <= truth["leaked_count"]
    assert blocks >= truth["leaked_count"] - 1.2 * leaked.blocks_per_second * since
    assert found.unreachable_bytes == pytest.approx(blocks * leaked.resident_bytes, rel=0.05)
    assert "are leaked for certain" in " ".join(answer["verdict"]["reasons"])


@pytest.mark.parametrize("name", KEEPING)
def test_of_a_sample_that_refers_to_all_it_has_nothing_is_unreachable(
    name: str, samples: dict[str, Any]
) -> None:
    found, answer, _, _ = samples[name]()
    assert (found.unreachable_chunks, answer["memory"]["unreachable_bytes"]) == (0, 0)
    assert "something still refers to each of" in " ".join(answer["verdict"]["reasons"])


def test_of_redis_that_brings_its_own_allocator_nothing_is_claimed(looks: dict[str, Look]) -> None:
    records, answer = looks["redis"]()
    gaps = [gap for gap in of_kind(records, Gap) if gap.probe == "reachability"]
    if of_kind(records, HeapUnreachable):
        assert answer["memory"]["unreachable_bytes"] == 0  # built for glibc's malloc
    else:
        assert [gap.reason for gap in gaps] == ["not-supported"]
        assert answer["memory"]["unreachable_bytes"] is None
