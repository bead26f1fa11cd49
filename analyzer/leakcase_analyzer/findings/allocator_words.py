"""What the allocator said of itself, and whether its books, read from outside, say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen
from leakcase_analyzer.findings.books import SAME_MOMENT_SECONDS
from leakcase_analyzer.heap_looks import HeapLook
from leakcase_analyzer.sentences import Count, Name, Sentence, Share, Size, Span, say
from leakcase_analyzer.told_looks import ToldLook

#: Figures that differ by less were taken of one heap a moment apart.
AGREE_SHARE = 0.02
#: Asking takes a stream and its buffer.
AGREE_BYTES = 64 << 10
#: Less than this is not worth a sentence.
WORTH_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class AllocatorTold(Finding):
    """The last answer. `agrees`: with the census at that moment; None: there was none."""

    allocator: str
    in_use_bytes: int | None
    kept_bytes: int | None
    whole_pages_bytes: int | None
    """Of what is kept, what could be given back: pages without a block in use (jemalloc)."""
    profiler_built: bool | None
    profiler_on: bool | None
    agrees: bool | None


def allocator_words(evidence: Evidence) -> Iterator[Finding]:
    """The last answer, what changed since the first, and how it fits to the census."""
    if not evidence.words:
        return
    first, last = evidence.words[0], evidence.words[-1]
    census = _census_beside(evidence, last)
    difference = None if census is None else _difference(census, last)
    agrees = None if difference is None else difference <= AGREE_SHARE
    total = last.total
    yield AllocatorTold(
        claim=_claim(last),
        evidence_for=(
            *_change(first, last),
            *_parts(last),
            *(() if difference is None or not agrees else (_agreement(difference),)),
        ),
        allocator=total.allocator,
        in_use_bytes=last.in_use_bytes,
        kept_bytes=last.kept_bytes,
        whole_pages_bytes=_whole_pages(last),
        profiler_built=total.profiler_built,
        profiler_on=total.profiler_on,
        agrees=agrees,
    )
    if difference is not None and not agrees:
        yield NotSeen(
            claim=say("one figure of what the heap has free"),
            because=say(
                "the allocator's own words and its books differ by {share}", share=Share(difference)
            ),
            effect=say("the heap changed between the two, or one of them is wrong"),
            weight=0.97,
        )


def _claim(look: ToldLook) -> Sentence:
    total = look.total
    name = Name(total.allocator)
    used, kept = look.in_use_bytes, look.kept_bytes
    if used is None:
        return say(
            "by {name}'s own words it has {size} from the kernel",
            name=name,
            size=Size(total.system_bytes or 0),
        )
    if kept is None:
        return say("by {name}'s own words {used} are in use", name=name, used=Size(used))
    return say(
        "by {name}'s own words {used} are in use, and up to {kept} were freed but are kept",
        name=name,
        used=Size(used),
        kept=Size(kept),
    )


def _change(first: ToldLook, last: ToldLook) -> Iterator[Sentence]:
    used = [look.in_use_bytes for look in (first, last)]
    if first is last or used[0] is None or used[1] is None:
        return
    grown = used[1] - used[0]
    if abs(grown) >= WORTH_BYTES:
        yield say(
            "what it has in use " + ("grew" if grown > 0 else "fell") + " by {size} in {span}",
            size=Size(abs(grown)),
            span=Span(last.seconds - first.seconds),
        )


def _parts(look: ToldLook) -> Iterator[Sentence]:
    total = look.total
    used, active = total.in_use_bytes, total.active_bytes
    if used is not None and active is not None and active - used >= WORTH_BYTES:
        yield say(
            "{size} of its pages in use are the rest of pages that blocks share (fragmentation)",
            size=Size(active - used),
        )
    if total.retained_bytes is not None and total.retained_bytes >= WORTH_BYTES:
        yield say(
            "{size} it gave back to the kernel and keeps as address space, which is no memory",
            size=Size(total.retained_bytes),
        )
    if total.cached_bytes is not None and total.cached_bytes >= WORTH_BYTES:
        yield say(
            "{size} of what is free lie in caches of threads and between them",
            size=Size(total.cached_bytes),
        )
    if total.mapped_bytes is not None and total.mapped_bytes >= WORTH_BYTES:
        yield say(
            "{blocks} with mappings of their own hold {size}",
            blocks=Count(total.mapped_chunks or 0, "large block"),
            size=Size(total.mapped_bytes),
        )


def _whole_pages(look: ToldLook) -> int | None:
    kept, used, active = look.kept_bytes, look.in_use_bytes, look.total.active_bytes
    if kept is None or used is None or active is None:
        return kept
    return max(0, kept - (active - used))


def _agreement(difference: float) -> Sentence:
    return say(
        "its own figures and its books, read from outside, agree"
        + (" within {share}" if difference >= 0.001 else ""),
        **({"share": Share(difference)} if difference >= 0.001 else {}),
    )


def _census_beside(evidence: Evidence, look: ToldLook) -> HeapLook | None:
    """glibc's census of the same moment; figures of a part of the heap are not compared."""
    if look.total.allocator != "glibc":
        return None
    near = [
        one
        for one in evidence.heap
        if abs(one.seconds - look.seconds) <= SAME_MOMENT_SECONDS and one.total.complete
    ]
    return min(near, key=lambda one: abs(one.seconds - look.seconds), default=None)


def _difference(census: HeapLook, look: ToldLook) -> float | None:
    """The larger of two: of what it has from the kernel, and of what is free in its bins."""
    told, read = look.total, census.total
    if told.system_bytes is None or told.free_bytes is None:
        return None
    system = read.system_bytes + read.mapped_bytes
    free = read.free_bytes + read.top_bytes + read.fast_bytes
    apart = max(abs(told.system_bytes - system), abs(told.free_bytes - free))
    return max(0, apart - AGREE_BYTES) / max(1, system)
