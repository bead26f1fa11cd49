"""The records of a window: what it saw, stack by stack, and how often the allocator is called."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Optional

from leakcase_bundle.records import (
    TraceOutstanding,
    TraceRates,
    TraceSites,
    TraceSurvival,
    TraceWindow,
)

from .schedule import FREES, Prices
from .stacks import StackTable, sums
from .survivors import Cohort, LiveBlock, StackLook
from .window import Window

if TYPE_CHECKING:
    from leakcase_collector.system.tracer_layout import LiveBlock as TracedBlock
    from leakcase_collector.system.tracer_layout import SiteCounts

#: Told of one window: those with most kept bytes, then those with most allocations.
SITES_MAX = 400
OUTSTANDING_MAX = 2000
#: Of a tracer that never attached.
UNKNOWN = "uprobe-multi"


def sites_record(window: Window, table: StackTable) -> tuple[TraceSites, int, int]:
    """What each true stack did; how many stacks were left out; allocations without a stack."""
    keyed = {
        key: _since(window.sites_before.get(key), now) for key, now in window.sites_after.items()
    }
    stacks, lost = sums({key: figures for key, figures in keyed.items() if figures[0]}, table)
    kept_blocks, kept_bytes = kept_by_stack(window.kept)
    for stack in kept_blocks:
        stacks.setdefault(stack, [0, 0, 0])
    most = sorted(stacks, key=lambda stack: (-kept_bytes[stack], -stacks[stack][0], stack))
    told = sorted(most[:SITES_MAX])
    sizes = sizes_by_stack(window.kept)
    record = TraceSites(
        window.number,
        told,
        [stacks[stack][0] for stack in told],
        [stacks[stack][1] for stack in told],
        [stacks[stack][2] for stack in told],
        [kept_blocks[stack] for stack in told],
        [kept_bytes[stack] for stack in told],
        [min(sizes[stack], default=0) for stack in told],
        [max(sizes[stack], default=0) for stack in told],
    )
    return record, len(most) - len(told), lost


def sizes_by_stack(blocks: Iterable[LiveBlock]) -> defaultdict[int, set[int]]:
    """The sizes of each stack's blocks."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    for block in blocks:
        found[block.stack].add(block.size_bytes)
    return found


def _since(before: Optional[SiteCounts], now: SiteCounts) -> Sequence[int]:
    if before is None:
        return (now.allocations, now.allocated_bytes, now.freed)
    return (
        now.allocations - before.allocations,
        now.allocated_bytes - before.allocated_bytes,
        now.freed - before.freed,
    )


def kept_by_stack(blocks: Iterable[LiveBlock]) -> tuple[Counter[int], Counter[int]]:
    """Number and bytes of blocks, by stack."""
    number: Counter[int] = Counter()
    held: Counter[int] = Counter()
    for block in blocks:
        number[block.stack] += 1
        held[block.stack] += block.size_bytes
    return number, held


def window_record(
    window: Window,
    attach: Optional[str],
    mode: str,
    lost_stacks: int,
    short_stacks: int,
    watched: str = "allocator",
) -> TraceWindow:
    """The window as a whole."""
    before, after = window.before, window.after
    assert after is not None
    return TraceWindow(
        window.number,
        window.started_ns,
        window.watched_ns,
        window.linger_ns,
        mode,
        attach or UNKNOWN,
        after.allocations - before.allocations,
        after.allocated_bytes - before.allocated_bytes,
        sum(count for call, count in window.calls().items() if call in FREES),
        after.is_capped,
        len(window.kept) + window.keyless_blocks,
        sum(block.size_bytes for block in window.kept) + window.keyless_bytes,
        smallest_bytes=None if window.band is None else window.band.smallest_bytes,
        largest_bytes=None if window.band is None else window.band.largest_bytes,
        attach_ns=window.attach_ns,
        detach_ns=window.detach_ns,
        target_cpu_ns=window.target_cpu_ns,
        lost_blocks=after.lost_live - before.lost_live,
        # Beside those whose copy was lost, those for which there was no room among the sites.
        lost_stacks=lost_stacks + after.lost_sites - before.lost_sites,
        short_stacks=short_stacks,
        missed_calls=after.missed - before.missed,
        watched=watched,
    )


def rates_record(
    window: Window, attach: Optional[str], prices: Prices, busy: Optional[float]
) -> TraceRates:
    """How often the allocator is called. `busy`: the target's CPU, of one core, in the capture."""
    before, after = window.before, window.after
    assert after is not None
    calls = window.calls()
    made = sum(count for call, count in calls.items() if call not in FREES)
    freed = sum(count for call, count in calls.items() if call in FREES)
    sizes = [
        (0 if power == 0 else 1 << power, now - then)
        for power, (then, now) in enumerate(zip(before.size_log2, after.size_log2))
        if now > then
    ]
    cost_ns = prices.of(calls)
    slowdown = None
    if busy:
        slowdown = int(1e6 * cost_ns / window.watched_ns / busy)
    return TraceRates(
        window.started_ns,
        window.watched_ns,
        attach or UNKNOWN,
        list(calls),
        list(calls.values()),
        made - freed,
        [smallest for smallest, _ in sizes],
        [count for _, count in sizes],
        net_bytes=after.allocated_bytes - before.allocated_bytes
        - (after.freed_bytes - before.freed_bytes),
        call_cost_ns=int(cost_ns / sum(calls.values())) if calls else None,
        predicted_slowdown_ppm=slowdown,
        target_cpu_ns=window.target_cpu_ns,
    )  # fmt: skip


def outstanding_by_key(
    blocks: Iterable[TracedBlock], sites: Mapping[int, SiteCounts], middle_ns: int
) -> dict[int, list[int]]:
    """By the kernel's key: allocations, blocks and bytes that are outstanding, and of these the
    blocks and bytes from before `middle_ns`."""
    keyed = {key: [counts.allocations, 0, 0, 0, 0] for key, counts in sites.items()}
    for block in blocks:
        figures = keyed.setdefault(block.key, [0, 0, 0, 0, 0])
        figures[1] += 1
        figures[2] += block.size
        if block.time_ns < middle_ns:
            figures[3] += 1
            figures[4] += block.size
    return keyed


def outstanding_record(
    window: Window, keyed: Mapping[int, Sequence[int]], table: StackTable
) -> tuple[TraceOutstanding, int, int]:
    """By true stack, most bytes first cut; how many stacks were left out, allocations without."""
    stacks, lost = sums(keyed, table)
    most = sorted(stacks, key=lambda stack: (-stacks[stack][2], -stacks[stack][0], stack))
    told = sorted(most[:OUTSTANDING_MAX])
    allocations, blocks, held, older, older_held = (
        [stacks[stack][place] for stack in told] for place in range(5)
    )
    record = TraceOutstanding(
        window.number,
        window.ended_ns,
        told,
        blocks,
        held,
        allocations=allocations,
        older_blocks=older,
        older_bytes=older_held,
    )
    return record, len(most) - len(told), lost


def survival_record(cohort: Cohort, taken_ns: int, looks: Sequence[StackLook]) -> TraceSurvival:
    """What a look found."""
    return TraceSurvival(
        cohort.window,
        taken_ns,
        max(taken_ns - cohort.ended_ns, 0),
        [look.stack for look in looks],
        [look.alive for look in looks],
        [look.alive_bytes for look in looks],
        [look.dead for look in looks],
        [look.unknown for look in looks],
        [look.weak for look in looks],
    )
