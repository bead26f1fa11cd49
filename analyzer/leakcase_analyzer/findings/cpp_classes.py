"""Which classes of C++ objects grow."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.block_looks import BlockLook, ClassAmount
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import ClassGrowth, CppClasses, Finding
from leakcase_analyzer.sentences import Count, Name, Sentence, Size, say

MOST_CLASSES = 32
#: Classes in words: the first, and so many more.
MOST_NAMED = 3
#: Less growth than this is noise; of objects whose size is not known, so many.
LEAST_GROWTH_BYTES = 64 << 10
LEAST_OBJECTS = 1000
#: A class that was not listed at first counts as none then if it had at most this of what it has.
MOST_UNLISTED_SHARE = 0.05


def cpp_classes(evidence: Evidence) -> Iterator[Finding]:
    """Growth by class between the first look and the last."""
    looks = [look for look in evidence.blocks if look.classes is not None]
    if len(looks) < 2 or looks[0].source != looks[-1].source:
        return
    first, last = looks[0], looks[-1]
    grown = _grown(first, last)
    if grown:
        telling = [one for one in grown if is_telling(one)]
        exact = first.exact and last.exact and last.source == "blocks"
        yield CppClasses(
            claim=_sentence(grown[0], exact),
            evidence_for=tuple(_sentence(one, exact) for one in telling[1:MOST_NAMED]),
            classes=grown,
        )


def is_telling(one: ClassGrowth) -> bool:
    """Whether so much growth is worth a word."""
    if one.growth_bytes is None:
        return one.count >= LEAST_OBJECTS
    return one.growth_bytes >= LEAST_GROWTH_BYTES


def _grown(first: BlockLook, last: BlockLook) -> tuple[ClassGrowth, ...]:
    before = first.classes or {}
    grown = []
    for name, now in (last.classes or {}).items():
        unlisted = 0 if name in before else first.least_listed
        if unlisted > MOST_UNLISTED_SHARE * now.count:
            continue
        then = before.get(name, ClassAmount(0, 0))
        if now.count > then.count:
            size = _more(then, now)
            grown.append(ClassGrowth(name=name, count=now.count - then.count, growth_bytes=size))
    grown.sort(key=lambda one: (-(one.growth_bytes or 0), -one.count))
    return tuple(grown[:MOST_CLASSES])


def _more(then: ClassAmount, now: ClassAmount) -> int | None:
    if then.size_bytes is None or now.size_bytes is None:
        return None
    return now.size_bytes - then.size_bytes


def _sentence(one: ClassGrowth, exact: bool) -> Sentence:
    name, count = Name(one.name), Count(one.count, "more object")
    if one.growth_bytes is None or not exact:
        return say("there are about {count} of C++ class {name}", count=count, name=name)
    size = Size(one.growth_bytes)
    return say("C++ class {name} grew by {size}: {count}", name=name, size=size, count=count)
