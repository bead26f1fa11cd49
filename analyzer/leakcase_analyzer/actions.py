"""What to do next, concrete to what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leakcase_analyzer.action import Action
from leakcase_analyzer.allocator_actions import (
    its_own_profiler,
    look_into_core,
    settings_to_keep_less,
)
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, ObjectTypes, Observation, TimeToLimit
from leakcase_analyzer.findings.suspect import Suspects
from leakcase_analyzer.heap_actions import keep_less, look_at_sizes_and_types, look_at_types
from leakcase_analyzer.kinds import first_of_type, of_type
from leakcase_analyzer.runtime_actions import ask_runtime, collect_first
from leakcase_analyzer.sentences import Code, Name, Sentence, Span, say
from leakcase_analyzer.series.growth import FULL_WINDOW_SECONDS
from leakcase_analyzer.trace_actions import look_at_code, trace_it
from leakcase_analyzer.verdict import Verdict

DAY_SECONDS = 86_400.0
#: A limit that is met so soon comes before everything else.
SOON_SECONDS = 3600.0
#: How long to watch where nothing says how long.
LONGER_SECONDS = 600.0
#: Kinds in which a runtime with a collector has a say.
RUNTIMES_KINDS = frozenset({"heap", "managed-heap", "mmap", "other"})


def actions(
    evidence: Evidence, findings: Sequence[Finding], verdict: Verdict
) -> tuple[Action, ...]:
    """The steps in the order in which to take them."""
    found = list(_urgent(findings))
    deadline = list(_deadline(findings)) if verdict.status == "leak" else []
    if verdict.status == "undecided":
        found += _watch(evidence, verdict)
        if verdict.kind in RUNTIMES_KINDS and verdict.bound is None:
            found += collect_first(evidence)
            found += look_at_types(findings) if verdict.kind == "managed-heap" else ()
            found += ask_runtime(evidence, findings, verdict.kind)
    if verdict.status == "leak":
        found += [action for seconds, action in deadline if seconds < SOON_SECONDS]
        found += look_at_code(findings, verdict.kind)
        found += [action for seconds, action in deadline if seconds >= SOON_SECONDS]
        found += trace_it(evidence, findings, verdict.kind)
        found += look_at_sizes_and_types(findings, verdict.kind)
        found += _by_kind(evidence, findings, verdict)
        found += _by_trigger(verdict)
        found += _report(evidence)
    if verdict.status == "retention":
        main = verdict.main
        grows = main is not None and main.growth.steady_no_bound_seen
        found += settings_to_keep_less(evidence, findings)
        found += keep_less(evidence, findings, grows)
    if verdict.status in ("stable", "bounded"):
        found += _not_a_leak(verdict)
    found += look_into_core(evidence)
    return tuple(found)


def _urgent(findings: Sequence[Finding]) -> Iterator[Action]:
    topics = {observation.topic for observation in of_type(findings, Observation)}
    if "mostly-in-swap" in topics:
        yield Action(
            say("take what evidence you need before anybody restarts the process"),
            say("most of what it holds is in swap, and a restart destroys it"),
        )


def _deadline(findings: Sequence[Finding]) -> Iterator[tuple[float, Action]]:
    """The limit that is met first, where that is within a day, and in how many seconds."""
    soonest = min(of_type(findings, TimeToLimit), key=lambda t: t.seconds, default=None)
    if soonest is not None and soonest.seconds < DAY_SECONDS:
        yield (
            soonest.seconds,
            Action(
                say(
                    "mind " + soonest.limit + ": " + soonest.way_out + ", or restart within {span}",
                    span=Span(soonest.seconds),
                ),
                say("at this rate it is used up by then"),
            ),
        )


def _watch(evidence: Evidence, verdict: Verdict) -> Iterator[Action]:
    longer = verdict.watch_longer_seconds or LONGER_SECONDS
    main = verdict.main
    seen = main.growth.window_seconds if main is not None else 0.0
    yield Action(
        say(
            "capture again for {span}: {command}",
            span=Span(longer + seen),
            command=Code(_same_capture(evidence, verdict.kind, longer + seen)),
        ),
        _why_longer(verdict, seen),
    )


def _same_capture(evidence: Evidence, kind: str, seconds: float) -> str:
    """The command of this capture, for so long; a collected heap's counters are read as well."""
    levels = set(() if evidence.header is None else evidence.header.levels)
    if kind == "managed-heap":
        levels.add("read-memory")
    asked = ["leakcase-collect capture PID"]
    if "trace" in levels:
        asked.append("--trace bursts")
    if evidence.unreachable is not None:
        asked.append("--reachability")
    allowed = [level for level in ("read-memory", "trace", "attach") if level in levels]
    if allowed:
        asked.append("--allow " + ",".join(allowed))
    return " ".join([*asked, f"--duration {_duration(seconds)}"])


def _why_longer(verdict: Verdict, seen_seconds: float) -> Sentence:
    if verdict.bound is not None:
        return say("by then it has come to its bound, or passed it")
    if verdict.main is not None and verdict.main.growth.reason == "managed-runtime":
        return say("what a collected heap keeps shows after several collections")
    if seen_seconds < FULL_WINDOW_SECONDS:
        return say("a window of two minutes is the least that most leaks need to show")
    return say("three times as long settles nearly half of such cases, and then reliably")


def _duration(seconds: float) -> str:
    """As the collector's --duration takes it."""
    if seconds < 300:
        return f"{max(1, round(seconds))}s"
    return f"{round(seconds / 60)}m" if seconds < 48 * 3600 else f"{round(seconds / 3600)}h"


def _by_kind(evidence: Evidence, findings: Sequence[Finding], verdict: Verdict) -> Iterator[Action]:
    runtime = evidence.runtime
    types = first_of_type(findings, ObjectTypes)
    native = types is not None and types.could_hold_all is False
    if verdict.kind in ("heap", "mmap", "other") and runtime is not None and not native:
        yield from ask_runtime(evidence, findings, verdict.kind)
    elif verdict.kind in ("heap", "mmap") and first_of_type(findings, Suspects) is None:
        yield Action(
            say("run it with the same work under a heap profiler, such as {tool}",
                tool=Code("heaptrack")),
            say("it names the code that allocates what is not freed"),
        )  # fmt: skip
    if verdict.kind == "heap":
        yield from its_own_profiler(evidence, findings)
    elif verdict.kind == "managed-heap":
        yield from ask_runtime(evidence, findings, verdict.kind)
    elif verdict.kind == "mmap":
        yield Action(
            say("look for {call} without {undo}", call=Code("mmap"), undo=Code("munmap")),
            say("whole mappings are added and none goes"),
        )
    elif verdict.kind == "threads":
        yield Action(
            say("look at what the added threads wait for, and who should end or join them"),
            say("each keeps its stack, and what it refers to, until it ends"),
        )
    elif verdict.kind == "fds":
        yield Action(
            say("list them on the host: {command}", command=Code("ls -l /proc/PID/fd")),
            say("the case holds pseudonyms only; the owner sees the names"),
        )
    elif verdict.kind == "shared-memory":
        yield Action(
            say(
                "look at {command}, and at memfds in {fds}",
                command=Code("ipcs -m; df /dev/shm"),
                fds=Code("/proc/PID/fd"),
            ),
            say("shared memory outlives the mapping, and with tmpfs even the process"),
        )
    elif verdict.kind == "file-mapping":
        yield Action(
            say("look for files that are mapped and never unmapped, or that only grow"),
            say("the kernel can drop their clean pages, but not the mappings"),
        )
    elif verdict.kind == "gpu":
        yield Action(
            say("compare with the driver's own tool ({command})", command=Code("nvidia-smi")),
            say("buffers on the GPU are freed by the program, not by the kernel's reclaim"),
        )


def _by_trigger(verdict: Verdict) -> Iterator[Action]:
    if verdict.trigger == "unknown":
        yield Action(
            say(
                "capture again with its phases marked: {command}",
                command=Code("leakcase-collect mark PID active"),
            ),
            say("growth in one phase only says which work to look at"),
        )
    elif verdict.trigger == "active":
        yield Action(
            say("look at what it does per request or job, and repeat one kind at a time"),
            say("it grows only while it works"),
        )
    elif verdict.trigger == "idle":
        yield Action(
            say("look at timers, polling and background tasks"),
            say("it grows while it has nothing else to do"),
        )


def _report(evidence: Evidence) -> Iterator[Action]:
    program = evidence.program
    if program is None or program.package is None or evidence.runtime is not None:
        return  # What an interpreter runs is not its package's.
    version = str(program.package_version or "")
    yield Action(
        say(
            "search the bug tracker of {package} for {words}",
            package=Name(str(program.package)),
            words=Name(f"{program.package} {version} memory leak".replace("  ", " ")),
        ),
        say(
            "the program belongs to that package"
            + ("; name its build-id {build} in a report" if program.build_id else ""),
            **({"build": Name(str(program.build_id))} if program.build_id else {}),
        ),
    )


def _not_a_leak(verdict: Verdict) -> Iterator[Action]:
    main = verdict.main
    stopped = main is not None and not main.bounded_by and main.growth.reason != "falls-back"
    if verdict.status == "bounded" and stopped:
        yield Action(
            say("if it is more than you want it to hold, look for a cache's size setting"),
            say("it stops growing by itself"),
        )
    yield Action(
        say(
            "if you still suspect a slow leak: {command}",
            command=Code("leakcase-collect capture PID --duration 24h"),
        ),
        say("the longer the window, the slower the growth that it shows"),
    )
