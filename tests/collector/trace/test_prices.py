"""What a watched call costs: expected by kind of instruction, tried out on ourselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from leakcase_collector.system.door import System
from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.trace.prices import RETURN_NS, measured_factor, prices
from tests.collector.system.started import needs_root


def point(call: str, *, hit_ns: int = 1000, emulated: bool = True) -> EntryPoint:
    returns = call not in ("free", "munmap")
    return EntryPoint(call, "/proc/self/fd/9", 4096, returns, emulated, hit_ns, call, (7, 6, 2))


def test_a_call_that_yields_a_block_costs_its_return_as_well() -> None:
    found = prices([point("malloc"), point("free")])
    assert found.call_ns == {"malloc": 1000 + RETURN_NS, "free": 1000}
    assert found.pair_ns == 2000 + RETURN_NS
    assert found.of({"malloc": 2, "free": 3}) == 2 * (1000 + RETURN_NS) + 3000


def test_the_dearest_of_several_places_counts() -> None:
    assert prices([point("free"), point("free", hit_ns=25_000)]).call_ns == {"free": 25_000}


def test_calls_that_cost_more_here_cost_more() -> None:
    found = prices([point("malloc"), point("free")]).times(1.5)
    assert found.call_ns == {"malloc": 3600, "free": 1500}
    assert found.dearest == "malloc"


@needs_root
def test_malloc_and_free_of_our_own_are_tried_and_left_as_they_were() -> None:
    links = len(list(Path("/proc/self/fd").iterdir()))
    factor = measured_factor(System(), None)
    assert factor is not None
    assert 0.2 <= factor <= 10
    assert len(list(Path("/proc/self/fd").iterdir())) == links


@needs_root
def test_a_way_that_is_not_there_leaves_what_is_expected() -> None:
    assert measured_factor(System(proc="/nonexistent"), None) is None


@pytest.mark.parametrize("calls", [{}, {"other": 7}])
def test_calls_without_a_price_cost_nothing(calls: dict[str, int]) -> None:
    assert prices([point("malloc")]).of(calls) == 0
