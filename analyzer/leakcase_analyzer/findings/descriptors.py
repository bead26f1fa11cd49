"""Open descriptors: their number, and which kind of them grows."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, Trend
from leakcase_analyzer.findings.tracks import DESCRIPTORS, Quantity, column
from leakcase_analyzer.findings.trends import Knowledge, ruled_out, trend
from leakcase_analyzer.sentences import Count, Name, Sentence, Share, say

#: Column of the series: what its descriptors are.
KINDS = {
    "files": "files",
    "deleted_files": "deleted files",
    "directories": "directories",
    "sockets": "sockets",
    "pipes": "pipes",
    "devices": "devices",
    "epolls": "epoll instances",
    "eventfds": "eventfds",
    "timerfds": "timerfds",
    "inotifies": "inotify instances",
    "memfds": "memfds",
    "others": "others",
}
PREFIX = "descriptors: "
#: A kind with less of the growth than this is not listed.
LEAST_SHARE = 0.1


def descriptors(evidence: Evidence) -> Iterator[Finding]:
    """A descriptor that is never closed keeps its file, socket or pipe, and its buffers."""
    found = trend(evidence, DESCRIPTORS)
    if found is None:
        return
    if not found.rises:
        yield found
        excluded = ruled_out("a descriptor leak", found)
        if excluded is not None:
            yield excluded
        return
    kinds = _kinds(evidence, found)
    shares = tuple(
        say(
            kind.what.removeprefix(PREFIX) + " make up {share} of the growth",
            share=Share((kind.last - kind.first) / (found.last - found.first)),
        )
        for kind in kinds
    )
    known = Knowledge(evidence_for=shares + _places(evidence))
    final = trend(evidence, DESCRIPTORS, known)
    yield from (f for f in (final, *kinds) if f is not None)


def _kinds(evidence: Evidence, total: Trend) -> list[Trend]:
    """The kinds that make up the growth, the largest first."""
    grown = total.last - total.first
    found = []
    for name, words in KINDS.items():
        quantity = Quantity(PREFIX + words, "descriptors", "fds", column("descriptors", name))
        kind = trend(evidence, quantity, Knowledge(counts=False))
        if kind is not None and grown > 0 and kind.last - kind.first >= LEAST_SHARE * grown:
            found.append(kind)
    return sorted(found, key=lambda kind: kind.first - kind.last)


def _places(evidence: Evidence) -> tuple[Sentence, ...]:
    """Where most of the new ones lead to."""
    before = _by_path(evidence.descriptor_groups.first)
    after = _by_path(evidence.descriptor_groups.last)
    grown = {path: count - before.get(path, 0) for path, count in after.items()}
    if not grown or max(grown.values()) < 2:
        return ()
    path = max(grown, key=lambda p: grown[p])
    return (
        say(
            "{count} more lead to {path} than at first",
            count=Count(grown[path], "descriptor"),
            path=Name(path),
        ),
    )


def _by_path(groups: tuple[object, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for group in groups:
        path = getattr(group, "path", None)
        if path is not None:
            found[path] = found.get(path, 0) + getattr(group, "count", 0)
    return found
