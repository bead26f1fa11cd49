"""Which tool stands in for our own loader, and when none does."""

from __future__ import annotations

import pytest

from leakcase_collector.errors import NotSupported
from leakcase_collector.probes.allocation_trace import AllocationTraceProbe
from leakcase_collector.probes.base import CaptureOptions
from leakcase_collector.trace import bpftrace_tool, memleak_tool
from leakcase_collector.trace.tool_trace import usable_tool


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Why each tool does not work; None: it does."""
    reasons: dict[str, str | None] = {"bpftrace": None, "memleak-bpfcc": None}
    monkeypatch.setattr(bpftrace_tool, "is_usable", lambda: reasons["bpftrace"])
    monkeypatch.setattr(memleak_tool, "is_usable", lambda: reasons["memleak-bpfcc"])
    return reasons


def test_the_first_tool_that_works_is_taken(tools: dict[str, str | None]) -> None:
    assert usable_tool("auto") == "bpftrace"
    tools["bpftrace"] = "there is no bpftrace here"
    assert usable_tool("auto") == "memleak-bpfcc"


def test_a_tool_that_was_named_is_not_replaced(tools: dict[str, str | None]) -> None:
    tools["memleak-bpfcc"] = "there is no memleak-bpfcc here"
    with pytest.raises(NotSupported, match="there is no memleak-bpfcc") as refused:
        usable_tool("memleak-bpfcc")
    assert refused.value.gap_detail == "memleak-bpfcc"


def test_without_any_all_reasons_are_given(tools: dict[str, str | None]) -> None:
    tools.update({"bpftrace": "there is none of the first", "memleak-bpfcc": "nor of the second"})
    with pytest.raises(NotSupported, match="none of the first; nor of the second"):
        usable_tool("auto")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (CaptureOptions(trace="bursts", max_slowdown=0.02), "at most 2 % of the CPU"),
        (CaptureOptions(trace="full", max_slowdown=0.02), "20 % of its own CPU"),
        (CaptureOptions(trace="full", tracer="bpftrace"), "--max-slowdown does not bound"),
    ],
)
def test_what_the_target_loses_is_said_beforehand(options: CaptureOptions, said: str) -> None:
    probe = AllocationTraceProbe()
    probe.configure(options)
    toll = probe.toll()
    assert toll is not None
    assert said in toll
