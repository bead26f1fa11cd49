"""Which mappings the growth lies in, from the snapshots of smaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from leakcase_analyzer.evidence import Evidence, RegionKey, RegionSize, Snapshot
from leakcase_analyzer.findings.base import Attribution, Finding, RegionGrowth
from leakcase_analyzer.findings.mapped_extent import FILE_KINDS, SHARED_KINDS
from leakcase_analyzer.findings.tracks import ANONYMOUS, FILE, SHARED, Quantity
from leakcase_analyzer.findings.trends import trend
from leakcase_analyzer.sentences import Name, Sentence, Share, Size, say
from leakcase_analyzer.series.attribution import attribute

#: What a kind of mapping is called.
KIND_WORDS = {
    "main-heap": "the main heap",
    "arena-heap": "heaps of thread arenas",
    "anonymous": "plain anonymous mappings",
    "reserved": "reserved address space",
    "thread-stack": "thread stacks",
    "main-stack": "the main stack",
    "file-data": "mapped data files",
    "library-code": "libraries' code",
    "library-data": "libraries' data",
    "program-code": "the program's code",
    "program-data": "the program's data",
    "shared-anonymous": "anonymous memory shared with children",
    "shared-file": "shared file mappings",
    "sysv-shared-memory": "System V shared memory",
    "memfd": "memfds",
    "tmpfs-file": "files in tmpfs",
    "deleted-file": "deleted files",
    "jit-code": "generated code",
    "gpu-device": "GPU devices",
    "huge-pages": "huge pages",
}
#: Kinds and mappings with less of the growth than this are not named.
LEAST_SHARE = 0.05
MOST_PARTS = 6


def regions(evidence: Evidence) -> Iterator[Finding]:
    """Shares out each growing subject among the kinds of mappings that grew."""
    for quantity, held in ((ANONYMOUS, _anonymous), (FILE, _file), (SHARED, _shared)):
        found = trend(evidence, quantity)
        if found is not None and (found.rises or found.last > found.first):
            share = _attribution(evidence, quantity, held, found.last - found.first)
            if share is not None:
                yield share


Held = Callable[[RegionKey, RegionSize], float]


def _anonymous(key: RegionKey, size: RegionSize) -> float:
    if size.anonymous_bytes is None or key[0] in SHARED_KINDS:
        own = key[0] not in FILE_KINDS | SHARED_KINDS
        return float(size.held_bytes or 0) if own else 0.0
    return float(size.anonymous_bytes + (size.swap_bytes or 0))


def _file(key: RegionKey, size: RegionSize) -> float:
    if key[0] not in FILE_KINDS:
        return 0.0
    return float(max(0, (size.rss_bytes or 0) - (size.anonymous_bytes or 0)))


def _shared(key: RegionKey, size: RegionSize) -> float:
    return float(size.rss_bytes or 0) if key[0] in SHARED_KINDS else 0.0


def _attribution(
    evidence: Evidence, quantity: Quantity, held: Held, growth_bytes: float
) -> Attribution | None:
    shots = [shot for shot in evidence.snapshots if shot.has_resident_sizes]
    if len(shots) < 2 or growth_bytes <= 0:
        return None
    span = shots[-1].seconds - shots[0].seconds
    if span <= 0:
        return None
    by_kind = attribute([(shot.seconds, _sums(shot, held)) for shot in shots], growth_bytes)
    parts = tuple(
        RegionGrowth(
            kind=part.region,
            path=place[0],
            name=place[1],
            growth_bytes=part.growth,
            rate_per_second=part.growth / span,
            share=part.share,
        )
        for part in by_kind.regions[:MOST_PARTS]
        if part.share >= LEAST_SHARE
        for place in (_place(shots[0], shots[-1], part.region, held),)
    )
    if not parts:
        return None
    return Attribution(
        claim=_claim(parts[0]),
        evidence_for=tuple(_sentence(part) for part in parts),
        evidence_against=_unexplained(by_kind.unexplained_share),
        subject=quantity.subject,
        regions=parts,
        unexplained_share=by_kind.unexplained_share,
    )


def words(kind: str) -> str:
    """A kind of mapping in words; a kind of a newer format is called by its own word."""
    known = KIND_WORDS.get(kind)
    return known if known is not None else "other mappings"


def _sums(shot: Snapshot, held: Held) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for key, size in shot.groups().items():
        sums[key[0]] += held(key, size)  # type: ignore[assignment]  # floats add as integers do
    return dict(sums)


def _place(first: Snapshot, last: Snapshot, kind: str, held: Held) -> tuple[str | None, str | None]:
    """The file or name that makes up at least half of a kind's growth, if one does.

    Compared between the two ends only: the snapshots between them list fewer groups.
    """
    before, after = first.groups(), last.groups()
    grown = {
        key: held(key, size) - (held(key, before[key]) if key in before else 0.0)
        for key, size in after.items()
        if key[0] == kind
    }
    total = sum(growth for growth in grown.values() if growth > 0)
    if total <= 0:
        return None, None
    most = max(grown, key=lambda key: grown[key])
    return (most[1], most[2]) if grown[most] >= total / 2 else (None, None)


def _claim(part: RegionGrowth) -> Sentence:
    lies = "{share} of the growth lies in " + words(part.kind)
    place = _own_place(part)
    if place is None:
        return say(lies, share=Share(part.share))
    return say(lies + ", most of that in {place}", share=Share(part.share), place=place)


def _own_place(part: RegionGrowth) -> Name | None:
    """The file or name, unless the kernel's own in brackets, which the kind says already."""
    place = part.path or part.name
    return None if place is None or place.startswith("[") else Name(place)


def _sentence(part: RegionGrowth) -> Sentence:
    place, size = _own_place(part), Size(part.growth_bytes)
    if place is None:
        return say(words(part.kind) + " grew by {size}", size=size)
    return say(words(part.kind) + " grew by {size}, most of it {place}", size=size, place=place)


def _unexplained(share: float) -> tuple[Sentence, ...]:
    if share < 0.2:
        return ()
    return (say("{share} of the growth lies in no mapping that was seen", share=Share(share)),)
