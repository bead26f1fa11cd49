"""What the collector says after its first look, in one line.

This is triage for the person at the terminal, from two figures and with no claim to more: whether
to go on, and how soon. The analyzer judges the series (blocks, intervals, saturation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from leakcase_bundle.records import CgroupSeries, Decision, HostSeries, StatusSeries

from .progress import size
from .system.clock import NS_PER_SECOND

NS_PER_HOUR = 3600 * NS_PER_SECOND
_LEAST_SAMPLES = 12
_MOST_FOOTPRINTS = 4096
_LEAST_GROWTH_BYTES = 128 << 10
_LEAST_GROWTH_SHARE = 0.002
#: Fast: at this rate the memory in use would double, or the limit be reached, so soon. (A look of
#: two minutes sees no growth that needs more than half a day to double a process.)
_FAST_NS = 4 * NS_PER_HOUR

_SENTENCES = {
    "not-growing": "not growing: high but steady use, or the growth is slower than this look sees",
    "growing-slowly": "it grows by {rate}: a leak, or a cache that still fills",
    "growing-fast": "it grows by {rate}: at this rate it doubles, or meets its limit, within four "
    "hours",
    "mostly-in-swap": "mostly in swap: capture what you need before anybody restarts it",
    "too-short": "too short a look to say whether it grows",
}


@dataclass(frozen=True)
class Footprint:
    """Anonymous memory and swap at one instant, bytes."""

    taken_ns: int
    anonymous_bytes: int
    swap_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.anonymous_bytes + self.swap_bytes


class FirstLook:
    """The few figures that the live line and the decision need, kept as they are sampled."""

    def __init__(self) -> None:
        self.footprints: list[Footprint] = []
        self.rss_bytes: list[int] = []
        self._headroom_bytes: Optional[int] = None

    def note(self, series: type[Any], taken_ns: int, values: dict[str, Optional[int]]) -> None:
        """Take what is of use from one row of a series."""
        if series is StatusSeries:
            self._note_footprint(taken_ns, values)
        elif series is CgroupSeries or series is HostSeries:
            limit, current = values.get("limit_bytes"), values.get("current_bytes")
            room = values.get("available_bytes")
            if limit is not None and current is not None:
                room = max(limit - current, 0)
            if room is not None:
                self._headroom_bytes = room

    def _note_footprint(self, taken_ns: int, values: dict[str, Optional[int]]) -> None:
        rss = values.get("rss_bytes")
        if rss is None:
            return
        anonymous = values.get("rss_anon_bytes")  # None before Linux 4.5
        self.rss_bytes.append(rss)
        self.footprints.append(
            Footprint(
                taken_ns, rss if anonymous is None else anonymous, values.get("swap_bytes") or 0
            )
        )
        if len(self.footprints) > _MOST_FOOTPRINTS:  # Halve the resolution, keep the span.
            del self.footprints[1::2], self.rss_bytes[1::2]

    def decide(self, now_ns: int) -> Decision:
        """The decision on all that was noted."""
        return decide(self.footprints, self._headroom_bytes, now_ns)


def decide(footprints: Sequence[Footprint], headroom_bytes: Optional[int], now_ns: int) -> Decision:
    """Compare the least footprint of the first quarter with that of the last one.

    Minima, because what a process always comes back to is what it keeps. `headroom_bytes` is what
    is left below the tightest limit; None: not known.
    """
    if len(footprints) < _LEAST_SAMPLES:
        return Decision(now_ns, "too-short", _span_ns(footprints))
    last = footprints[-1]
    quarter = len(footprints) // 4
    first_floor = min(f.total_bytes for f in footprints[:quarter])
    last_floor = min(f.total_bytes for f in footprints[-quarter:])
    growth = last_floor - first_floor
    span_ns = footprints[-quarter].taken_ns - footprints[0].taken_ns
    rate_per_hour = growth * NS_PER_HOUR // max(span_ns, 1)
    half = footprints[-quarter].taken_ns - footprints[2 * quarter].taken_ns
    late = last_floor - min(f.total_bytes for f in footprints[2 * quarter : 3 * quarter])
    # What has slowed down is told as it grows now.
    rate_per_hour = max(0, min(rate_per_hour, late * NS_PER_HOUR // max(half, 1)))
    if last.swap_bytes > last.anonymous_bytes:
        word = "mostly-in-swap"
    elif growth < max(_LEAST_GROWTH_BYTES, _LEAST_GROWTH_SHARE * last.total_bytes):
        word = "not-growing"
    else:
        room = last.total_bytes if headroom_bytes is None else min(last.total_bytes, headroom_bytes)
        fast = room * NS_PER_HOUR < rate_per_hour * _FAST_NS
        word = "growing-fast" if fast else "growing-slowly"
    return Decision(now_ns, word, _span_ns(footprints), rate_per_hour)


def sentence(decision: Decision) -> str:
    """The decision in words, with its rate."""
    rate = decision.growth_bytes_per_hour or 0
    if decision.decision == "growing-slowly" and not rate:
        return "it grew, and hardly does any more: a cache that is full, or a pause"
    return _SENTENCES[decision.decision].format(rate=f"{size(rate)}/h")


def _span_ns(footprints: Sequence[Footprint]) -> int:
    return footprints[-1].taken_ns - footprints[0].taken_ns if footprints else 0
