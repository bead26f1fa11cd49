"""What to do in the process of a runtime with a collector: its own tools, as commands.

They look into the running process, most of them without a restart; what that costs is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leakcase_analyzer.action import Action
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, ObjectTypes
from leakcase_analyzer.findings.suspect import Suspects
from leakcase_analyzer.kinds import first_of_type
from leakcase_analyzer.own_types import UNTRACKED
from leakcase_analyzer.sentences import Code, Name, say

DIRECT_BUFFER = "java.nio.DirectByteBuffer"


def collect_first(evidence: Evidence) -> Iterator[Action]:
    """How to know sooner than by watching whether what grows is only not collected yet."""
    if evidence.runtime is not None and evidence.runtime.kind == "jvm":
        yield Action(
            say(
                "or let it collect, and capture again: {command}",
                command=Code("jcmd PID GC.run"),
            ),
            say("what a full collection leaves is kept; the program stands still meanwhile"),
        )


def ask_runtime(evidence: Evidence, findings: Sequence[Finding], kind: str) -> Iterator[Action]:
    """The steps with the runtime's own tools; `kind` is the verdict's."""
    runtime = None if evidence.runtime is None else evidence.runtime.kind
    types = first_of_type(findings, ObjectTypes)
    if runtime == "cpython":
        yield from _cpython(types, first_of_type(findings, Suspects) is not None)
    elif runtime == "jvm":
        yield from _jvm(evidence, types, kind)
    elif runtime == "node":
        yield from _node()
    elif runtime == "go":
        yield from _go()
    elif runtime == "dotnet":
        yield Action(
            say("compare two dumps of {tool}", tool=Code("dotnet-gcdump collect -p PID")),
            say("it collects first, so what is left is held"),
        )


def _cpython(types: ObjectTypes | None, traced: bool) -> Iterator[Action]:
    first = types.types[0].name if types is not None and types.types else None
    tool = Code("tracemalloc")
    if first in UNTRACKED:
        yield Action(
            say("compare two snapshots of {tool} in the program", tool=tool),
            say("it names the lines that make objects of {name}", name=Name(first)),
        )
    elif first is None and not traced:
        yield Action(
            say("compare two snapshots of {tool} in the program", tool=tool),
            say("if its sum grows as memory does, Python objects leak; if not, native code does"),
        )


def _jvm(evidence: Evidence, types: ObjectTypes | None, kind: str) -> Iterator[Action]:
    if not evidence.managed_classes:
        yield Action(
            say("capture again with {option}", option=Code("--allow read-memory,attach")),
            say("the JVM is then asked for its objects by class, at the start and at the end"),
        )
    if types is not None and any(one.name == DIRECT_BUFFER for one in types.types):
        yield Action(
            say(
                "look for what keeps objects of {name}, and bound them with {option}",
                name=Code(DIRECT_BUFFER),
                option=Code("-XX:MaxDirectMemorySize=SIZE"),
            ),
            say("each holds native memory, which goes when the object is collected"),
        )
    if kind != "managed-heap" and not evidence.managed_native:
        yield Action(
            say(
                "restart it with {option}, then compare with {command}",
                option=Code("-XX:NativeMemoryTracking=summary"),
                command=Code("jcmd PID VM.native_memory baseline, and later summary.diff"),
            ),
            say("it tells what the JVM allocates for itself; what is missing there is others'"),
        )


def _node() -> Iterator[Action]:
    yield Action(
        say(
            "open its inspector ({command}, on this host only), take two heap snapshots at {page} "
            "and compare them",
            command=Code("kill -USR1 PID"),
            page=Code("chrome://inspect"),
        ),
        say("V8 collects before a snapshot, so what is left is held, and by whom is shown"),
    )


def _go() -> Iterator[Action]:
    yield Action(
        say(
            "see whether goroutines pile up, and where they wait: {command}",
            command=Code("curl 'http://HOST:PORT/debug/pprof/goroutine?debug=1'"),
        ),
        say(
            "one that never ends keeps its stack and all that it refers to; the program must "
            "import {package}",
            package=Code("net/http/pprof"),
        ),
    )
    yield Action(
        say(
            "compare two heap profiles: {command}",
            command=Code(
                "go tool pprof -sample_index=inuse_space 'http://HOST:PORT/debug/pprof/heap?gc=1'"
            ),
        ),
        say("it collects first, so what is left is held, and names the lines that allocated it"),
    )
