"""What to do about memory that an allocator keeps, and about sizes and types that grow.

Nothing of this is done by leakcase: it changes the program, and that is its owner's to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leakcase_analyzer.action import Action
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import CppClasses, Finding, HeapState, ObjectTypes
from leakcase_analyzer.findings.cpp_classes import is_telling
from leakcase_analyzer.findings.size_classes import words
from leakcase_analyzer.heap_reasons import growing_sizes
from leakcase_analyzer.kinds import first_of_type
from leakcase_analyzer.own_types import findable_of, own_type
from leakcase_analyzer.sentences import Code, Count, Name, Share, Size, say

#: A gain of less than this share of what is kept is not worth a step.
WORTH_SHARE = 0.2
#: With fewer arenas there is nothing to limit.
FEW_ARENAS = 2
#: A class of size or a type with this much of the growth is where to begin.
LEADING_SHARE = 0.3


def keep_less(
    evidence: Evidence, findings: Sequence[Finding], still_grows: bool
) -> Iterator[Action]:
    """The ways to hold less, each with what it would gain by the figures of the last look."""
    state = first_of_type(findings, HeapState)
    if state is None or not state.kept_bytes:
        return
    yield from _give_back(state)
    yield from _fewer_arenas(evidence, state)
    yield from _other_allocator(state)
    if _worth(state, state.python_kept_bytes):
        yield Action(
            say("do the work of the peak in a child process that ends afterwards"),
            say(
                "pymalloc keeps {size} in arenas of which some objects are still in use",
                size=Size(state.python_kept_bytes),
            ),
        )
    if not still_grows:
        yield Action(
            say("or leave it, and size limits for the peak"),
            say("what is kept free serves the next peak, and nothing grows"),
        )


def _worth(state: HeapState, gain_bytes: float | None) -> bool:
    return gain_bytes is not None and gain_bytes >= WORTH_SHARE * (state.kept_bytes or 0.0)


def _give_back(state: HeapState) -> Iterator[Action]:
    if _worth(state, state.returnable_bytes):
        yield Action(
            say("let the program call {call} after a peak", call=Code("malloc_trim(0)")),
            say("now it would give back {size}", size=Size(state.returnable_bytes or 0.0)),
        )
    if _worth(state, state.top_bytes):
        yield Action(
            say("start it with {setting}", setting=Code("MALLOC_TRIM_THRESHOLD_=131072")),
            say(
                "the end of the main heap, {size}, is then given back as it is freed; malloc "
                "raises that threshold by itself when large blocks are freed",
                size=Size(state.top_bytes or 0.0),
            ),
        )


def _fewer_arenas(evidence: Evidence, state: HeapState) -> Iterator[Action]:
    limited = any(setting.name == "MALLOC_ARENA_MAX" for setting in evidence.settings)
    if not limited and state.arenas > FEW_ARENAS and _worth(state, state.beyond_main_bytes):
        yield Action(
            say("start it with {setting}", setting=Code("MALLOC_ARENA_MAX=2")),
            say(
                "{arenas} keep {size} for threads, none of which can use another's",
                arenas=Count(state.arenas - 1, "arena"),
                size=Size(state.beyond_main_bytes or 0.0),
            ),
        )


def _other_allocator(state: HeapState) -> Iterator[Action]:
    malloc_keeps = (state.kept_bytes or 0.0) - state.python_kept_bytes
    scattered = malloc_keeps - (state.returnable_bytes or 0.0)
    if state.returnable_bytes is not None and _worth(state, scattered):
        yield Action(
            say("try it with {setting}", setting=Code("LD_PRELOAD=libjemalloc.so.2")),
            say(
                "{size} are scattered between blocks in use, where no page can be given back; "
                "jemalloc lays blocks of one size together",
                size=Size(scattered),
            ),
        )


def look_at_types(findings: Sequence[Finding]) -> Iterator[Action]:
    """Where to begin among a runtime's types that grow: with one that its collector can find."""
    types = first_of_type(findings, ObjectTypes)
    findable = [] if types is None else findable_of(types)
    if types is None or not findable:
        return
    own = own_type(types)
    named = own or findable[0]
    ways = {"cpython": "gc.get_referrers", "jvm": "jcmd PID GC.heap_dump FILE"}
    yield Action(
        say(
            "look for what keeps objects of {name}, with {call}",
            name=Name(named.name),
            call=Code(ways.get(types.runtime, "a heap snapshot")),
        ),
        say("of the program's own types it grows most")
        if own
        else say("it grows most")
        if named is types.types[0]
        else say("it grows most of what refers to other objects"),
    )


def look_at_sizes_and_types(findings: Sequence[Finding], kind: str) -> Iterator[Action]:
    """Where to begin in the program, by what grows most."""
    if kind == "managed-heap":
        yield from look_at_types(findings)
    objects = first_of_type(findings, CppClasses)
    if kind == "heap" and objects is not None and is_telling(objects.classes[0]):
        yield Action(
            say(
                "look for where objects of C++ class {name} are made and not deleted",
                name=Name(objects.classes[0].name),
            ),
            say("of all C++ classes with virtual functions it grows most"),
        )
    sizes = growing_sizes(findings)
    if kind == "heap" and sizes and sizes[0].share >= LEADING_SHARE:
        yield Action(
            say("look for what the program allocates in " + words(sizes[0])),
            say("{share} of the growth in use are such blocks", share=Share(sizes[0].share)),
        )
