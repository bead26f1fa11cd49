"""Inside the heap of real programs: the real collector looks, the real analyzer answers.

All captures run at once; the whole file takes as long as one of them and a little more.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from samples import runner
from tests.live.collecting import analyze, collect

SAMPLES = (
    "spike-retained", "small-block-leak", "large-block-leak", "mmap-leak", "cpp-object-leak",
    "python-kept-list", "python-native-leak",
)  # fmt: skip
CAPTURE_SECONDS = 60
# By then the spike is over, and the rise before it is not part of the capture.
WARM_UP_SECONDS = 4
STAGGER_SECONDS = 0.5
MARGIN_SECONDS = 60

# One worker has all of them: they share one fixture, which takes more than a minute.
pytestmark = pytest.mark.live

Answer = dict[str, Any]


def _look_into(name: str, delay: float, folder: Path) -> Answer:
    time.sleep(delay)
    case = folder / f"{name}.leakcase"
    with runner.start(name, CAPTURE_SECONDS + MARGIN_SECONDS) as running:
        time.sleep(WARM_UP_SECONDS)
        done = collect(
            "capture", running.pid, "--duration", f"{CAPTURE_SECONDS}s",
            "--allow", "read-memory", "-o", case, timeout=CAPTURE_SECONDS + MARGIN_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        trimmed = running.ask(signal.SIGUSR1) if name == "spike-retained" else None
        assert running.stop()["ended"] == "signal"
    return {**analyze(case), "trimmed": trimmed}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Answer]]]:
    """The answer about each sample, or what kept the analyzer from it."""
    folder = tmp_path_factory.mktemp("heap")
    runner.build()
    with ThreadPoolExecutor(len(SAMPLES)) as pool:
        yield {
            name: pool.submit(_look_into, name, place * STAGGER_SECONDS, folder)
            for place, name in enumerate(SAMPLES)
        }


def between_looks(answer: Answer) -> float:
    """Seconds from the first look into the heap to the last: on a busy host more than asked for."""
    seconds: float = answer["heap"]["change"]["seconds"]
    return seconds


def said(answer: Answer) -> str:
    return "\n".join(answer["verdict"]["reasons"])


def test_a_spike_is_retention_and_trimming_gives_back_what_was_said(
    answers: dict[str, Future[Answer]],
) -> None:
    answer = answers["spike-retained"].result()
    assert (answer["verdict"]["status"], answer["verdict"]["kind"]) == ("retention", "heap")
    given_back = answer["trimmed"]["before_bytes"] - answer["trimmed"]["after_bytes"]
    assert given_back > 50e6
    assert answer["heap"]["returnable_bytes"] == pytest.approx(given_back, rel=0.05)
    assert any("malloc_trim(0)" in action["what"] for action in answer["actions"])


@pytest.mark.parametrize("name", ["small-block-leak", "large-block-leak", "cpp-object-leak"])
def test_a_heap_leak_names_the_size_of_block_that_grows(
    name: str, answers: dict[str, Future[Answer]]
) -> None:
    answer = answers[name].result()
    assert (answer["verdict"]["status"], answer["verdict"]["kind"]) == ("leak", "heap")
    leaked = next(one for one in runner.load_expected() if one.name == name).what_is_leaked
    assert leaked is not None and leaked.block_bytes is not None
    size = answer["heap"]["sizes"][0]
    assert size["least_bytes"] <= leaked.block_bytes <= size["most_bytes"]
    rate = size["count_delta"] / between_looks(answer)
    assert rate == pytest.approx(leaked.blocks_per_second, rel=0.05)
    assert f"blocks of {size['least_bytes']:,} to {size['most_bytes']:,} bytes" in said(answer)


def test_a_leak_of_cpp_objects_names_their_class(answers: dict[str, Future[Answer]]) -> None:
    answer = answers["cpp-object-leak"].result()
    grown = {one["name"]: one["count_delta"] for one in answer["types"]}
    expected = 797 * between_looks(answer)
    assert grown["(anonymous namespace)::Session"] == pytest.approx(expected, rel=0.05)
    held = answer["heap"]["sizes"][0]["holds"]
    assert held["class"] == "(anonymous namespace)::Session" and held["share"] > 0.99
    assert "(anonymous namespace)::Session" in said(answer)


def test_direct_mappings_are_none_of_the_heaps(answers: dict[str, Future[Answer]]) -> None:
    answer = answers["mmap-leak"].result()
    assert (answer["verdict"]["status"], answer["verdict"]["kind"]) == ("leak", "mmap")
    assert "mapped directly" in said(answer)


def test_a_leak_of_python_objects_names_their_type(answers: dict[str, Future[Answer]]) -> None:
    answer = answers["python-kept-list"].result()
    assert (answer["verdict"]["status"], answer["verdict"]["kind"]) == ("leak", "managed-heap")
    grown = {one["name"]: one["count_delta"] for one in answer["types"]}
    # 499 sessions a second, each with its bytes.
    expected = 499 * between_looks(answer)
    assert grown["Session"] == pytest.approx(expected, rel=0.05)
    assert grown["bytes"] == pytest.approx(expected, rel=0.1)
    assert "Session grew by" in said(answer)


def test_a_native_leak_in_a_python_service_is_no_leak_of_its_objects(
    answers: dict[str, Future[Answer]],
) -> None:
    answer = answers["python-native-leak"].result()
    assert (answer["verdict"]["status"], answer["verdict"]["kind"]) == ("leak", "heap")
    size = answer["heap"]["sizes"][0]
    assert size["least_bytes"] <= 1_511 <= size["most_bytes"]
    assert sum(one["bytes_delta"] for one in answer["types"]) < 1 << 20


@pytest.mark.parametrize("name", SAMPLES)
def test_the_parts_of_memory_add_up_and_little_is_unexplained(
    name: str, answers: dict[str, Future[Answer]]
) -> None:
    memory = answers[name].result()["memory"]
    beside = ("resident_bytes", "unreachable_bytes", "swap_bytes")
    parts = {part: size for part, size in memory.items() if part not in beside and size is not None}
    assert sum(parts.values()) == memory["resident_bytes"]
    if name != "mmap-leak":
        # The data of the program and its libraries, which are no heap.
        assert parts["unexplained_bytes"] < 2_500_000
