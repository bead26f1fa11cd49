"""What watching the allocator could not show, in the case at hand."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.findings.base import Finding, NotSeen
from leakcase_analyzer.findings.suspect import Suspects
from leakcase_analyzer.findings.suspect_words import named
from leakcase_analyzer.sentences import Code, Count, Share, Size, Span, say
from leakcase_analyzer.trace_looks import LARGEST_SIZE, Tracing

#: A loss of less than this is not worth a word.
WORTH_SHARE = 0.005
SHORT_SHARE = 0.05
#: A leak of which not one block was caught is less sure than one that is only not named.
NOTHING_STAYED = 0.85
#: Suspects that account for less of the growth leave it open who does the rest.
EXPLAINS = 0.5


def trace_limits(tracing: Tracing, found: Suspects) -> Iterator[Finding]:
    """Later ages, rare large blocks, other sizes, and what was lost."""
    if found.basis == "survivors" and found.suspects:
        yield NotSeen(
            claim=say("that what stays is never freed"),
            because=say("blocks were followed for {age} at most", age=Span(found.followed_seconds)),
            effect=say("a cache whose entries live longer than that looks the same"),
        )
        yield NotSeen(
            claim=say("what is allocated seldom, as a table that doubles"),
            because=say("only {span} were traced in all", span=Span(found.window_seconds)),
            effect=say("growth by rare large blocks is not ascribed to code"),
        )
    if found.basis == "survivors" and not found.suspects and found.growth_per_second:
        yield NotSeen(
            claim=say("who allocates what grows"),
            because=say(
                "all blocks that were followed were freed within {age}",
                age=Span(found.followed_seconds),
            ),
            effect=say("it grows by what is allocated seldom, or is a cache that fills"),
            weight=NOTHING_STAYED,
        )
    if found.in_work:
        first = found.in_work[0]
        what, names = named(first.frame)
        yield NotSeen(
            claim=say("whether what is allocated in " + what + " is kept", **names),
            because=say(
                "its blocks were followed for {age} at most, and memory does not rise",
                age=Span(first.curve.last_age_seconds),
            ),
            effect=say("it is no suspect: what is in work is alive for so long as well"),
        )
    yield from _pooled(tracing, found)
    yield from _tools(tracing)
    yield from _sizes(tracing)
    yield from _losses(tracing)
    if tracing.dropped:
        yield NotSeen(
            claim=say("{count} of the tracing", count=Count(tracing.dropped, "record")),
            because=say("they do not fit together, or are more than the analyzer keeps"),
            effect=say("what they say is missing here"),
        )


def _pooled(tracing: Tracing, found: Suspects) -> Iterator[Finding]:
    """Of Python's objects of up to 512 bytes (Objects/obmalloc.c) only those are watched that its
    garbage collector tracks: what makes the others is copied into its callers by the compiler."""
    explained = found.kept_per_second if found.suspects else 0.0
    is_open = not explained or explained < EXPLAINS * (found.growth_per_second or 0.0)
    if is_open and any(one.total.watched == "python-objects" for one in tracing.windows):
        yield NotSeen(
            claim=say("who makes strings, bytes and numbers of up to {size}", size=Size(512)),
            because=say(
                "Python takes them from pools of its own, by code that each caller has a copy of"
            ),
            effect=say("where they pile up, their type is told and no line"),
        )


def _tools(tracing: Tracing) -> Iterator[Finding]:
    for tool in sorted({str(one.tool) for one in tracing.tools}):
        cut = sum(one.truncated_stacks or 0 for one in tracing.tools if one.tool == tool)
        lost = sum(one.lost_events or 0 for one in tracing.tools if one.tool == tool)
        because = "the allocations were watched by {tool}"
        if cut:
            because += ", which cut off {cut}"
        if lost:
            because += ", and lost {lost}"
        yield NotSeen(
            claim=say("all callers, and how long blocks live"),
            because=say(
                because, tool=Code(tool), cut=Count(cut, "stack"), lost=Count(lost, "event")
            ),
            effect=say("stacks may end early, and a cache looks like a leak"),
        )


def _sizes(tracing: Tracing) -> Iterator[Finding]:
    windows = [one for one in tracing.windows if one.total.watched in (None, "allocator")]
    narrow = [one for one in windows if one.is_narrow]
    if not narrow:
        return
    least, most = min(one.sizes[0] for one in narrow), max(one.sizes[1] for one in narrow)
    sizes = "sizes from {least} on" if most == LARGEST_SIZE else "sizes from {least} to {most}"
    limits = {"least": Size(least), **({} if most == LARGEST_SIZE else {"most": Size(most)})}
    others = len(windows) - len(narrow)
    if not others:
        yield NotSeen(
            claim=say("who allocates blocks of other sizes"),
            because=say(f"only {sizes} were watched", **limits),
            effect=say("they were left out because others grow, or to keep the cost low"),
        )
        return
    yield NotSeen(
        claim=say("blocks of other sizes as often"),
        because=say(
            f"in {{narrow}} of {{windows}} only {sizes} were watched, by which the heap grew",
            **limits,
            narrow=Count(len(narrow), ""),
            windows=Count(len(windows), "window"),
        ),
        effect=say(
            "code that allocates others is judged by the other {others} alone",
            others=Count(others, "window"),
        ),
    )


def _losses(tracing: Tracing) -> Iterator[Finding]:
    totals = [one.total for one in tracing.windows]
    seen = sum(one.allocations for one in totals)
    for column, noun, because in (
        ("lost_blocks", "allocation", "the kernel's table of blocks was full"),
        ("lost_stacks", "allocation", "their stacks could not be kept"),
        ("missed_calls", "call", "the kernel could not hand them over"),
    ):
        lost = sum(getattr(one, column) or 0 for one in totals)
        if lost and lost >= WORTH_SHARE * seen:
            share = Share(min(1.0, lost / (seen + lost)))
            yield NotSeen(
                claim=say("{lost} ({share})", lost=Count(lost, noun), share=share),
                because=say(because),
                effect=say("shares of the suspects are that much less sure"),
            )
    ends = [stack.end for stack in tracing.stacks.values()]
    short = sum(end not in ("root", "jit") for end in ends)
    if ends and short >= SHORT_SHARE * len(ends):
        yield NotSeen(
            claim=say("the outer callers of {stacks}", stacks=Count(short, "stack")),
            because=say("they could not be followed to their root"),
            effect=say("the code at their inner end is right, who called it may be missing"),
        )
