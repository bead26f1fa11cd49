"""Whether native code's blocks that stay are what the memory of a collected runtime grows by.

A collected heap goes up and down, so that its growth is judged with caution. That caution is not
for malloc's blocks, which nobody collects.
"""

from __future__ import annotations

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Track
from leakcase_analyzer.findings.fates import PlaceFate, fates_of
from leakcase_analyzer.series.census import end_medians

#: Blocks must have stayed for so long, and come in at this part of the growth at least; where they
#: come in far faster than memory grows, most go again at some later age.
LEAST_AGE_SECONDS = 20.0
EXPLAINED, MUST_GO = 0.7, 3.0
#: Less growth is told by nothing.
LEAST_GROWTH_BYTES = 1 << 20


def native_blocks_explain(evidence: Evidence, held: Track | None) -> bool:
    """Whether they do; `held` is the process's anonymous memory. False where nobody watched."""
    if "native growth" not in evidence.judged:
        evidence.judged["native growth"] = _explain(evidence, held)
    found: bool = evidence.judged["native growth"]
    return found


def _explain(evidence: Evidence, held: Track | None) -> bool:
    if held is None or not evidence.tracing.windows or held.window_seconds <= 0:
        return False
    known = held.values[held.values == held.values]
    if known.size < 2:
        return False
    first, last = end_medians(known)
    if last - first < LEAST_GROWTH_BYTES:
        return False
    rate = (last - first) / held.window_seconds
    kept = sum(one.staying_per_second for one in fates_of(evidence) if _is_native(one))
    return EXPLAINED * rate <= kept <= MUST_GO * rate


def _is_native(fate: PlaceFate) -> bool:
    return (
        fate.place[0] == "native"
        and fate.curve.pattern == "stays"
        and fate.curve.last_age_seconds >= LEAST_AGE_SECONDS
    )
