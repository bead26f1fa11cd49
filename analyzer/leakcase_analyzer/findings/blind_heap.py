"""What could not be seen inside the heap, why, and what that does to the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, NotSeen
from leakcase_analyzer.findings.tracks import ANONYMOUS, books_of
from leakcase_analyzer.findings.trends import trend
from leakcase_analyzer.sentences import Code, Count, Sentence, Share, say

#: What each probe of the memory would have shown, and what its absence does.
HEAP_PROBES = {
    "heap-census": (
        "what malloc has in use and what it keeps free",
        "memory in use cannot be told from memory that was freed and kept by the allocator",
    ),
    "heap-labels": ("what its blocks are", "C++ classes and contents are not named"),
    "python-types": ("its Python objects by type", "the types that grow are not known"),
    "java-classes": ("Java's objects by class", "the classes that grow are not known"),
    "managed-heap": (
        "how full the heap of its runtime is",
        "growth of its collected heap cannot be told from native memory",
    ),
    "allocator-statistics": (
        "what its allocator says of itself",
        "its own figures cannot be set beside what was read from outside",
    ),
    "core-dump": ("a core file beside the case", "its memory cannot be looked into later"),
    "reachability": (
        "whether anything still refers to what is in use",
        "a leak cannot be told from a cache that still fills",
    ),
}
#: What is missing where the detail says that the probe's main thing is not.
OTHER_THINGS = {
    "native-memory-tracking": (
        "what its JVM allocated natively for itself",
        "growth outside of the Java heap is not told by purpose",
    ),
}
#: Why not, where the collector said more than a reason.
DETAILS = {
    "heap-not-glibc": "its allocator is not glibc's malloc, whose books alone can be read",
    "heap-not-found": "no heap of glibc's malloc was found in its memory",
    "heap-layout": "its glibc keeps its books in a way that this version does not know",
    "heap-inconsistent": "the heap's blocks did not fit together: damaged, or changing too fast",
    "no-safe-point": "at no moment was every thread proven to be outside the allocator",
    "not-askable": "the allocator has no function that could be called safely in this process",
    "mem": "the kernel refused to open its memory",
    "pagemap": "the kernel does not tell which of its pages are in RAM",
    "jvm-attach": "its JVM could not be asked",
    "native-memory-tracking": "its JVM was started without -XX:NativeMemoryTracking=summary",
    "hsperfdata": "its JVM keeps no counters in memory (-XX:-UsePerfData)",
    "go-heap-stats": "the counters of Go's runtime were not found; they are known from 1.19 on",
    "v8-pages": "the pages of V8's heap are not of the form that Node 20 has",
}
#: Details that another allocator explains.
NO_GLIBC = frozenset({"heap-not-glibc", "heap-not-found"})
REASONS = {
    "not-permitted": "the collector was not permitted to read its memory",
    "target-gone": "the process had ended by then",
    "over-limit": "there was more of it than is read",
    "over-budget": "it would have cost more than was allowed",
    "left-out": "it was left out on request",
    "no-time": "there was no time for it",
}
OTHER_REASON = "reading it failed"
#: Nobody allowed it: then the level as a whole is named as missing.
NOT_ASKED = "not-consented"
#: From this share of the heap on, what is not accounted for is worth a word.
SKIPPED_SHARE = 0.01


def blind_heap(evidence: Evidence) -> Iterator[Finding]:
    """Gaps of the probes that read memory, what they had to skip, and what they do not look at."""
    yield from _gaps(evidence)
    yield from _skipped(evidence)
    yield from _estimated(evidence)
    last = books_of(evidence).last
    lacks_pools = last is not None and last.heap is not None and last.python is None
    if lacks_pools and any(look.has_pools for look in evidence.python):
        yield NotSeen(
            claim=say("which part of its memory at the end is Python's objects"),
            because=say("they were counted at another time than the rest, and it has changed"),
            effect=say("they are part of what is not explained"),
        )
    looks = len(evidence.heap) + len(evidence.python)
    if looks and books_of(evidence).ends is None and len(evidence.python) < 2:
        yield NotSeen(
            claim=say("what changed in the heap"),
            because=say("there is but one look into it that can be used"),
            effect=say("the sizes and types that grow are not known"),
        )
    memory = trend(evidence, ANONYMOUS)
    asked = evidence.unreachable is not None or any(
        gap.probe == "reachability" for gap in evidence.gaps
    )
    if looks and not asked and memory is not None and memory.rises:
        what, effect = HEAP_PROBES["reachability"]
        yield NotSeen(
            claim=say(what),
            because=say(
                "it was not looked for ({option} was not part of this case)",
                option=Code("--reachability"),
            ),
            effect=say(effect),
        )


def _gaps(evidence: Evidence) -> Iterator[Finding]:
    found = {
        (gap.probe, gap.reason, gap.detail or "")
        for gap in evidence.gaps
        if gap.probe in HEAP_PROBES and gap.reason != NOT_ASKED
    }
    looks_of: dict[str, Sequence[object]] = {
        "heap-census": evidence.heap,
        "heap-labels": evidence.blocks,
        "python-types": evidence.python,
        "allocator-statistics": evidence.words,
    }
    for probe, reason, detail in sorted(found):
        what, effect = HEAP_PROBES[probe]
        what, effect = OTHER_THINGS.get(detail, (what, effect))
        if looks_of.get(probe):
            what, effect = "at some looks, " + what, "the other looks were used"
        if detail in NO_GLIBC and any(one.in_use_bytes is not None for one in evidence.words):
            continue  # It said itself what is in use.
        because = _other_allocator(evidence) if detail in NO_GLIBC else None
        because = because or _why(reason, detail)
        yield NotSeen(claim=say(what), because=because, effect=say(effect))


def _other_allocator(evidence: Evidence) -> Sentence | None:
    allocator = evidence.allocator
    if allocator is None or allocator.kind == "glibc":
        return None
    name = Code(str(allocator.kind))
    return say("its allocator is {name}, and only glibc's books can be read", name=name)


def _why(reason: str, detail: str) -> Sentence:
    if reason == "not-permitted":
        return say(
            REASONS[reason] + " (it takes root, or its user where {setting} is 0)",
            setting=Code("kernel.yama.ptrace_scope"),
        )
    return say(DETAILS.get(detail) or REASONS.get(reason, OTHER_REASON))


def _skipped(evidence: Evidence) -> Iterator[Finding]:
    """Partial looks that are good enough to be used."""
    used = [entry.heap.total for entry in books_of(evidence).entries if entry.heap is not None]
    shares = [one.skipped_bytes / max(1, one.system_bytes) for one in used]
    partial = [share for share in shares if share >= SKIPPED_SHARE]
    if partial:
        yield NotSeen(
            claim=say("up to {share} of the heap", share=Share(max(partial))),
            because=say(
                "in {looks} some of it was swapped out, or changed while it was read",
                looks=Count(len(partial), "look"),
            ),
            effect=say("figures of what is in use are that much too low"),
            weight=1 - max(partial),
        )


def _estimated(evidence: Evidence) -> Iterator[Finding]:
    """Looks at heaps too large to be walked as a whole."""
    used = [entry.heap for entry in books_of(evidence).entries if entry.heap is not None]
    parts = [look for look in used if look.total.sampled_permille is not None]
    if parts:
        worst = max(parts, key=lambda look: look.error_bytes / max(1, look.in_use_bytes))
        error = min(1.0, worst.error_bytes / max(1, worst.in_use_bytes))
        yield NotSeen(
            claim=say("all of the heap's blocks"),
            because=say(
                "it is too large to be walked as a whole: {share} of it was looked at",
                share=Share((worst.total.sampled_permille or 0) / 1000),
            ),
            effect=say(
                "what is in use, and how it is made up, is an estimate, right to within {error}",
                error=Share(error),
            ),
            weight=max(0.7, 1 - error),
        )
