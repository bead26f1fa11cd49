"""When the target is traced, and for how long, so that it loses no more than it may.

What a watched call costs is known (`Prices`), and how often the target makes such calls is measured
in the first short window and in every one since. All windows together may cost ``--max-slowdown``
of the CPU that the target uses in the whole capture; the windows are made shorter, then fewer, and
where not even one fits there is none.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple, Optional

from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND

FREES = ("free", "operator-delete", "munmap", "python-free")
#: What programs call often. The kernel's own calls are rare, as nobody calls them in a loop.
COMMON = ("malloc", "calloc", "realloc", "operator-new", "python-new")

WINDOW_NS = 300 * NS_PER_MS
#: Of a window that watches the sizes alone that grow.
NARROW_NS = 400 * NS_PER_MS
#: The first window measures the rates: nothing is known before it.
CALIBRATION_NS = 50 * NS_PER_MS
CALIBRATION_CALLS = 2000
CALLS_PER_WINDOW = 5000
FEWEST_CALLS = 100
#: Shorter windows see a part only of what a program does in turn; but for one that allocates so
#: often that this many calls are seen in them.
SHORT_NS = 25 * NS_PER_MS
MANY_CALLS = 1000
#: A window may cost so many times what it is expected to.
_SURPRISE = 2
WINDOWS_MAX = 48
#: A window's blocks are looked at again after ten seconds at the earliest.
LAST_WINDOW_SHARE = 0.75
LATEST_WINDOW_SHARE = 0.85
_WINDOW_EVERY_NS = 4 * NS_PER_SECOND
_NARROW_EVERY_NS = NS_PER_SECOND + NS_PER_SECOND // 2
NARROW_MAX = 96
#: Once it is known which sizes grow, each so many-th window watches all sizes.
WHOLE_EVERY = 4
_START_NS = NS_PER_SECOND
#: A target that uses less of a core may be charged as if it used this share: its loss is a delay
#: then, at 1 % of this one of a four-hundredth of the time.
IDLE_SHARE = 0.25
#: Of the whole budget, so much may be spent before the rates are known.
_CREDIT = 0.34
#: Of a core, what tracing may cost the collector itself, on average.
OWN_CPU_SHARE = 0.02


class Prices(NamedTuple):
    """What watching costs the target, in ns of its CPU: each call by its word, a window, and what
    an allocation costs less whose size is not watched."""

    call_ns: Mapping[str, int]
    window_ns: int
    saved_ns: int = 0

    def of(self, calls: Mapping[str, float], passed_over: float = 0) -> float:
        """So many calls of each word, and allocations of sizes that are not watched."""
        passed_ns = max(self.call_ns.get(self.dearest, 0) - self.saved_ns, 0)
        return (
            sum(self.call_ns.get(call, 0) * count for call, count in calls.items())
            + passed_ns * passed_over
        )

    def times(self, factor: float) -> Prices:
        """Where calls cost so many times as much."""
        return self._replace(
            call_ns={c: int(factor * ns) for c, ns in self.call_ns.items()},
            saved_ns=int(factor * self.saved_ns),
        )

    @property
    def dearest(self) -> str:
        """The dearest of the calls that programs make often."""
        return max(COMMON, key=lambda call: self.call_ns.get(call, 0))

    @property
    def pair_ns(self) -> int:
        """A block's whole life: the dearest allocation, and its free."""
        frees = (self.call_ns.get(call, 0) for call in FREES)
        return self.call_ns.get(self.dearest, 0) + max(frees)


class WindowPlan(NamedTuple):
    """A window that fits: its time, and what ends it earlier: the number of allocations, or what
    the calls of all kinds have cost the target. `is_narrow`: of the sizes alone that grow."""

    duration_ns: int
    allocations: int
    cost_ns: int
    is_narrow: bool = False


class Schedule:
    """The windows of one capture. All times are of CLOCK_MONOTONIC."""

    def __init__(
        self, started_ns: int, duration_ns: int, share: float, prices: Prices, longest_ns: int
    ) -> None:
        self.prices = prices
        self.spent_ns = 0
        #: Whether a window was due, and left out for what it would have cost.
        self.is_too_dear = False
        self._windows = 0
        self._calls: Counter[str] = Counter()
        self._watched_ns = 0
        self._share = share
        self._started_ns = started_ns
        self._duration_ns = duration_ns
        self._longest_ns = min(WINDOW_NS, longest_ns)
        self._longest_narrow_ns = min(NARROW_NS, longest_ns)
        #: Of the allocations, those of the sizes that grow; None where these are not known.
        self._narrow_share: Optional[float] = None
        self._narrow_windows = self._narrow_since_ns = 0
        self._rested_ns = 0
        #: What the last windows cost after their time was up; most do not linger.
        self._closing_ns: deque[int] = deque(maxlen=4)
        self._due = window_times(started_ns, duration_ns, random.Random())

    @property
    def next_ns(self) -> Optional[int]:
        """When the next window is due; None where there is none any more."""
        return self._due[0] if self._due else None

    def give_up(self) -> None:
        """No further window."""
        self._due = []

    def narrow(self, now_ns: int, share: Optional[float]) -> None:
        """From now on most windows are of some sizes alone, of which `share` of the allocations
        are; None: of all sizes again. Narrow windows cost less, so that more of them fit."""
        if self._narrow_share is None and share is not None and not self._narrow_windows:
            end_ns = self._started_ns + int(LAST_WINDOW_SHARE * self._duration_ns)
            count = min((end_ns - now_ns) // _NARROW_EVERY_NS, NARROW_MAX)
            if count > len(self._due) > 0:
                times = spread(now_ns, end_ns - now_ns, count, random.Random())
                self._due = [max(due, self._rested_ns) for due in times]
            self._narrow_since_ns = now_ns
        self._narrow_share = share

    @property
    def _is_narrow_next(self) -> bool:
        turn = self._narrow_windows % WHOLE_EVERY
        return self._narrow_share is not None and turn != WHOLE_EVERY - 1

    def budget_ns(self, now_ns: int, target_cpu_ns: int) -> int:
        """What tracing may cost in the whole capture, if the target goes on as it did."""
        elapsed_ns = max(now_ns - self._started_ns, 1)
        busy = max(target_cpu_ns / elapsed_ns, IDLE_SHARE)
        return int(self._share * busy * self._duration_ns)

    def plan(self, now_ns: int, target_cpu_ns: int) -> Optional[WindowPlan]:
        """The window that may be opened now; None where it is too early or does not fit.

        `target_cpu_ns`: what the target used since the capture began.
        """
        if now_ns > self._started_ns + int(LATEST_WINDOW_SHARE * self._duration_ns):
            # Too late to look again, but for who has seen nothing yet than what the rates took.
            self._due = [now_ns] * (2 - self._windows) if self._due else []
        if not self._due or now_ns < self._due[0]:
            return None
        left_ns = self.budget_ns(now_ns, target_cpu_ns) - self.spent_ns
        if not self._watched_ns:
            return self._first(left_ns)
        likely = self._likely(now_ns)
        wanted = min(likely, self._most_at_length(now_ns, left_ns))
        for windows in range(wanted, 0, -1):
            plan = self._affordable(left_ns // windows, windows == 1)
            if plan is not None:
                if windows < likely:
                    self._thin_out(windows)
                return plan
        self.is_too_dear = True
        self._due = self._due[1:]  # Perhaps the target will have become busier by the next.
        return None

    def _first(self, left_ns: int) -> WindowPlan:
        pair_ns = max(self.prices.pair_ns, 1)
        allowed_ns = max(int(_CREDIT * left_ns) - self.prices.window_ns, FEWEST_CALLS * pair_ns)
        calls = min(CALIBRATION_CALLS, allowed_ns // pair_ns)
        return WindowPlan(min(CALIBRATION_NS, self._longest_ns), calls, allowed_ns)

    def _likely(self, now_ns: int) -> int:
        """Of the windows that are due, as many as come to be at the pace so far: our own CPU time,
        and a busy host, may let fewer."""
        if self._narrow_windows < WHOLE_EVERY:
            return len(self._due)
        left_ns = self._started_ns + int(LAST_WINDOW_SHARE * self._duration_ns) - now_ns
        pace_ns = max((now_ns - self._narrow_since_ns) // self._narrow_windows, 1)
        return min(len(self._due), 1 + max(left_ns, 0) // pace_ns)

    def _most_at_length(self, now_ns: int, left_ns: int) -> int:
        """As many narrow windows as the budget lets be of full length, or as there would be of
        whole ones: each costs something beside its time, so that more of them see less."""
        if self._narrow_share is None:
            return len(self._due)
        end_ns = self._started_ns + int(LAST_WINDOW_SHARE * self._duration_ns)
        usual = max(end_ns - now_ns, 0) // _WINDOW_EVERY_NS + 1
        length_ns = self._cost_per_second(True) * self._longest_narrow_ns / NS_PER_SECOND
        return max(usual, int(left_ns / (length_ns + self._fixed_ns)))

    @property
    def _fixed_ns(self) -> int:
        """What a window costs beside its time: it is opened and closed, and meanwhile frees are
        watched."""
        return self.prices.window_ns + min(self._closing_ns, default=0)

    def _cost_per_second(self, is_narrow: bool) -> float:
        cost_ns = self.prices.of(self.rates_per_second())
        if not is_narrow:
            return cost_ns
        return cost_ns - self.prices.saved_ns * self._passed_over_per_second()

    def _passed_over_per_second(self) -> float:
        share = 1.0 if self._narrow_share is None else self._narrow_share
        return (1 - share) * self._allocations_per_second()

    def _affordable(self, cost_ns: int, is_last: bool) -> Optional[WindowPlan]:
        """By its time rather than by its calls: those that come first are not like all others."""
        left_ns = cost_ns - self._fixed_ns
        if left_ns <= 0:
            return None
        per_second, longest_ns = self._allocations_per_second(), self._longest_ns
        is_narrow = self._is_narrow_next
        if is_narrow:
            per_second -= self._passed_over_per_second()
            longest_ns = self._longest_narrow_ns
        cost_per_second = max(self._cost_per_second(is_narrow), 1e-9)
        duration_ns = int(min(NS_PER_SECOND * left_ns / cost_per_second, longest_ns))
        calls = per_second * duration_ns / NS_PER_SECOND
        enough = FEWEST_CALLS if is_last else MANY_CALLS
        if duration_ns < min(SHORT_NS, longest_ns) and calls < enough:
            return None
        most = min(max(int(_SURPRISE * calls), FEWEST_CALLS), CALLS_PER_WINDOW)
        return WindowPlan(duration_ns, most, _SURPRISE * left_ns, is_narrow)

    def _allocations_per_second(self) -> float:
        return sum(rate for call, rate in self.rates_per_second().items() if call not in FREES)

    def _thin_out(self, windows: int) -> None:
        """Keep so many of the times, evenly, the one that is due among them."""
        due = self._due
        self._due = [due[place * len(due) // windows] for place in range(windows)]

    def account(
        self,
        now_ns: int,
        watched_ns: int,
        calls: Mapping[str, int],
        all_calls: Mapping[str, int],
        own_cpu_ns: int,
        passed_over: int = 0,
    ) -> int:
        """Take down what a window did; returns what it cost the target, in ns.

        `watched_ns`: for how long `calls` were watched, 0 where they tell nothing of the rates;
        `all_calls` came until all was undone.
        `own_cpu_ns`: what it cost the collector. `passed_over`: allocations of other sizes than
        those watched.
        """
        self._windows += 1
        self._due = self._due[1:]
        self._rested_ns = now_ns + int(own_cpu_ns / OWN_CPU_SHARE)
        self._due = [max(due, self._rested_ns) for due in self._due]
        cost_ns = int(self.prices.window_ns + self.prices.of(all_calls, passed_over))
        self.spent_ns += cost_ns
        self._closing_ns.append(int(self.prices.of(all_calls) - self.prices.of(calls)))
        if watched_ns:
            self._calls.update(calls)
            self._calls[self.prices.dearest] += passed_over
        if self._narrow_share is not None:
            self._narrow_windows += 1
        self._watched_ns += watched_ns
        return cost_ns

    def rates_per_second(self) -> dict[str, float]:
        """Calls of each word, over all windows so far."""
        seconds = max(self._watched_ns, 1) / NS_PER_SECOND
        return {call: count / seconds for call, count in self._calls.items()}

    def lingers(
        self, now_ns: int, target_cpu_ns: int, per_second: Mapping[str, float], linger_ns: int
    ) -> bool:
        """Whether frees may be watched for so long after a window; `per_second`: calls as seen."""
        frees = {call: rate for call, rate in per_second.items() if call in FREES}
        cost_ns = self.prices.of(frees) * linger_ns / NS_PER_SECOND
        left_ns = self.budget_ns(now_ns, target_cpu_ns) - self.spent_ns
        return cost_ns <= left_ns / max(self._likely(now_ns), 1)


def window_times(started_ns: int, duration_ns: int, chance: random.Random) -> list[int]:
    """One time at random in each of equal stretches of the capture: what the target does
    regularly neither meets all windows nor none."""
    span_ns = max(int(LAST_WINDOW_SHARE * duration_ns) - _START_NS, 0)
    count = min(max(span_ns // _WINDOW_EVERY_NS, 3), WINDOWS_MAX)
    # The first measures the rates.
    return [started_ns, *spread(started_ns + _START_NS, span_ns, count, chance)]


def spread(started_ns: int, span_ns: int, count: int, chance: random.Random) -> list[int]:
    """One time at random in each of `count` equal stretches."""
    stretch_ns = span_ns // count
    starts = (started_ns + number * stretch_ns for number in range(count))
    return [start_ns + chance.randrange(max(stretch_ns, 1)) for start_ns in starts]
