"""Blocks that were alive when last looked at, so early that what is in work is alive as well.

Requests, connections and batches hold memory for seconds, on a busy host for longer. So where
memory does not rise, what is only as old as that is nobody's leak yet.
"""

from __future__ import annotations

import numpy as np

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.retention import heap_change
from leakcase_analyzer.findings.tracks import anonymous_and_swap

#: What was followed for less long may be in work.
EARLY_SECONDS = 25.0
#: Memory takes in what stays where it rises by this share of it, and by more than the least that
#: growth is told by (`series.growth`): blocks also fill what the allocator had free.
TAKES_SHARE = 1 / 3
LEAST_RISE_BYTES = 128 << 10


def takes_in(evidence: Evidence, staying_per_second: float) -> bool:
    """Whether memory rose as it would if what stays so far was kept, as far as can be told.

    By what the process holds or what its heap has in use, whichever rose by more.
    """
    held = anonymous_and_swap(evidence)
    known = np.flatnonzero(np.isfinite(held.values)) if held is not None else np.empty(0, int)
    if held is None or known.size < 2:
        return True
    first, last = known[0], known[-1]
    rise = float(held.values[last] - held.values[first])
    change = heap_change(evidence)
    if change is not None:
        rise = max(rise, change.in_use_bytes)
    seconds = float(held.seconds[last] - held.seconds[first])
    return rise >= max(LEAST_RISE_BYTES, TAKES_SHARE * staying_per_second * seconds)
