"""How much of files and of shared memory is mapped, which bounds how much can become resident.

Reading through a mapping makes its pages resident one after the other, and looks like a leak
until the mapping is used up. It is one only where more and more is mapped.
"""

from __future__ import annotations

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Subject, Trend
from leakcase_analyzer.findings.tracks import ADDRESS_SPACE, Quantity, growth_of
from leakcase_analyzer.findings.trends import Knowledge, trend
from leakcase_analyzer.sentences import Size, say

FILE_KINDS = frozenset(
    "file-data library-code library-data program-code program-data deleted-file shared-file".split()
)
SHARED_KINDS = frozenset("shared-anonymous sysv-shared-memory memfd tmpfs-file".split())

KINDS_OF: dict[Subject, frozenset[str]] = {"file": FILE_KINDS, "shared": SHARED_KINDS}


def extent_bytes(evidence: Evidence, kinds: frozenset[str]) -> tuple[float, float] | None:
    """Mapped bytes of these kinds at the first and at the last snapshot, of two or more."""
    if len(evidence.snapshots) < 2:
        return None
    first, last = (
        float(sum(size.size_bytes for key, size in shot.groups().items() if key[0] in kinds))
        for shot in (evidence.snapshots[0], evidence.snapshots[-1])
    )
    return first, last


def capped_trend(evidence: Evidence, quantity: Quantity) -> Trend | None:
    """The finding about a quantity, "bounded" where it only uses up what was mapped before."""
    found = trend(evidence, quantity)
    kinds = KINDS_OF.get(quantity.subject)
    known = None if found is None or kinds is None else _cap(evidence, found, kinds)
    return found if known is None else trend(evidence, quantity, known)


def _cap(evidence: Evidence, found: Trend, kinds: frozenset[str]) -> Knowledge | None:
    grown = found.last - found.first
    if found.status in ("stable", "bounded") or grown <= 0:
        return None
    extents = extent_bytes(evidence, kinds)
    if extents is not None and extents[1] >= found.last / 2:
        if extents[1] - extents[0] >= grown / 2:
            return None
        bound = say(
            "no more was mapped meanwhile: {mapped} are mapped, of which {resident} are resident",
            mapped=Size(extents[1]),
            resident=Size(found.last),
        )
        return Knowledge(status="bounded", bounded_by=bound)
    space = growth_of(evidence, ADDRESS_SPACE)
    if space is None or (space[1].total_growth or 0.0) >= grown / 2:
        return None
    bound = say("the address space did not grow with it, so no more was mapped meanwhile")
    return Knowledge(status="bounded", bounded_by=bound)
