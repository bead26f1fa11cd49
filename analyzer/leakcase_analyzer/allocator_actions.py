"""What an allocator itself offers: its profiler, its settings; and what a core file is good for.

jemalloc(3), "MALLOC_CONF" and "prof"; gperftools' docs/heapprofile.html and tcmalloc.html;
mimalloc's readme, "Environment Options".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leakcase_analyzer.action import Action
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.allocator_words import AllocatorTold
from leakcase_analyzer.findings.base import Finding
from leakcase_analyzer.kinds import first_of_type
from leakcase_analyzer.sentences import Code, say

#: A gain of less is not worth a restart.
WORTH_BYTES = 16 << 20


def its_own_profiler(evidence: Evidence, findings: Sequence[Finding]) -> Iterator[Action]:
    """How the allocator itself tells who allocates what is not freed."""
    allocator = evidence.allocator
    kind = "" if allocator is None else allocator.kind
    if kind == "jemalloc":
        yield _jemalloc(first_of_type(findings, AllocatorTold))
    elif kind == "tcmalloc":
        yield Action(
            say("restart with {setting}", setting=Code("HEAPPROFILE=/tmp/heap")),
            say(
                "tcmalloc (gperftools) then writes profiles of what is in use; its minimal build "
                "({library}) cannot",
                library=Code("libtcmalloc_minimal"),
            ),
        )
    elif kind == "mimalloc":
        yield Action(
            say("restart with {setting}", setting=Code("MIMALLOC_SHOW_STATS=1")),
            say("mimalloc has no profiler; it then prints at the end what is still in use by size"),
        )
    elif kind == "glibc":
        yield Action(
            say(
                "to tell freed memory that glibc keeps from a leak, try {setting} at a restart",
                setting=Code("MALLOC_ARENA_MAX=2"),
            ),
            say("if growth stops, it was many arenas, not forgotten blocks"),
        )
        yield Action(
            say("or call {call} in the program and look at RSS", call=Code("malloc_trim(0)")),
            say("what it gives back was free already; that it gives nothing proves nothing"),
        )


def _jemalloc(told: AllocatorTold | None) -> Action:
    setting = Code("MALLOC_CONF=prof:true,prof_leak:true")
    if told is not None and told.profiler_on:
        return Action(
            say("have it write a profile: {call}", call=Code('mallctl("prof.dump", ...)')),
            say("jemalloc's profiler is on already (opt.prof)"),
        )
    if told is not None and told.profiler_built is False:
        return Action(
            say("preload a jemalloc with its profiler, and {setting}", setting=setting),
            say("this one was built without it (config.prof is false)"),
        )
    known = told is not None and told.profiler_built
    return Action(
        say("restart with {setting}", setting=setting),
        say(
            "jemalloc then tells who allocates what is not freed"
            + ("; this one was built with it (config.prof)" if known else ", if built with prof")
        ),
    )


def settings_to_keep_less(evidence: Evidence, findings: Sequence[Finding]) -> Iterator[Action]:
    """Where an allocator other than glibc's keeps much, by its own words."""
    told = first_of_type(findings, AllocatorTold)
    if told is None or (told.whole_pages_bytes or 0) < WORTH_BYTES:
        return
    if told.allocator == "jemalloc":
        yield Action(
            say(
                "start it with {setting}",
                setting=Code("MALLOC_CONF=background_thread:true,dirty_decay_ms:1000"),
            ),
            say("jemalloc then gives free pages back within a second, idle threads' too"),
        )
    elif told.allocator == "tcmalloc":
        yield Action(
            say("start it with {setting}", setting=Code("TCMALLOC_RELEASE_RATE=10")),
            say("tcmalloc then gives free pages back sooner, at some cost of time"),
        )


def look_into_core(evidence: Evidence) -> Iterator[Action]:
    """A core file that was written is still to be looked into."""
    if evidence.cores:
        yield Action(
            say(
                "look into the core file beside the case, on its host: {command}",
                command=Code("leakcase-collect capture --core FILE"),
            ),
            say("sizes, types and unreachable blocks at that moment; and any debugger reads it"),
        )
