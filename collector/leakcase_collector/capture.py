"""``capture``: from the words on the command line to a case on disk and a summary for people."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Callable, Optional

from leakcase_bundle.records import Consent

from .casefile import CaseFile
from .cli import EXIT_INTERRUPTED, EXIT_PARTIAL
from .consent import Question, levels_given, parse_levels, settle
from .decision import sentence
from .errors import CollectorError
from .header import case_header
from .options import capture_options, interval_ns, names, opted, select_probes
from .outcome import Outcome
from .plan import PlanContext, concerns
from .probes import PROBES
from .probes.base import CaptureOptions, Probe
from .progress import duration, progress_for, size, without_controls, wrapped
from .redact import Redactor
from .session import Session
from .system.door import System
from .system.identity import ProcessIdentity
from .system.priority import yield_to_host
from .system.signals import StopRequest
from .target import Consumer, find_target

#: Probes that most hosts have no use for: a gap in one of them makes a capture partial only when
#: it was asked for with --with.
_MAY_BE_MISSING = frozenset(("kernel-log", "gpu"))
#: Gaps that say something about this host or about what was asked for: nothing failed.
_HARMLESS_REASONS = frozenset(("not-supported", "left-out", "not-consented"))


def capture(arguments: argparse.Namespace) -> int:
    """Run one capture; returns the exit status. Raises CollectorError before there is a case."""
    wanted = names(arguments.with_)
    own_option = opted(arguments)
    probes = select_probes(PROBES, wanted, names(arguments.without), own_option)
    allowed = parse_levels(arguments.allow)
    options = capture_options(arguments)
    every_ns = interval_ns(arguments.interval)
    system = System()
    with (
        StopRequest() as stop,
        find_target(system, arguments.target, choose_on_terminal()) as identity,
    ):
        name = _name_on_host(system, identity)
        options = options._replace(case_path=arguments.output or default_path(name, identity.pid))
        consents, granted, refused = _settle(system, identity, probes, allowed, every_ns, options)
        case = CaseFile(options.case_path or "")
        try:
            redactor = Redactor(case.write_map_line, keep_symbols=not arguments.no_symbols)
            header = case_header(
                system, identity, redactor,
                interval_ns=every_ns, duration_ns=options.duration_ns,
                levels=levels_given(consents),
            )  # fmt: skip
            case.add(header)
            line = progress_for(name, quiet=arguments.json)
            session = Session(
                system, identity, case, redactor, granted,
                interval_ns=every_ns, duration_ns=options.duration_ns,
                max_slowdown=options.max_slowdown,
                max_pause_ns=options.max_pause_ns, show=line.show if line else None,
                settled=yield_to_host,
            )  # fmt: skip
            outcome = session.run(stop, consents, refused)
            if line:
                line.close()
        finally:
            case.close()
    if outcome.end == "disk-full" and case.records == 0 and outcome.error is not None:
        case.discard()
        raise outcome.error
    status = exit_status(outcome, wanted, own_option)
    if arguments.json:
        print(json.dumps(_as_map(case, identity, outcome, status)))
    else:
        print(case.path)
        for text in _summary(case, identity, outcome, granted, refused, own_option):
            print(wrapped(text), file=sys.stderr)
    return status


def _settle(
    system: System,
    identity: ProcessIdentity,
    probes: Sequence[Probe],
    allowed: frozenset[str],
    every_ns: int,
    options: CaptureOptions,
) -> tuple[list[Consent], list[Probe], list[Probe]]:
    context = PlanContext(system, identity, Redactor(), every_ns)
    for probe in probes:
        probe.configure(options)
    questions = (
        Question(probe, partial(probe.predict, context), partial(concerns, probe, context))
        for probe in probes
    )
    consents, granted, refused = settle(questions, allowed, _ask_on_terminal())
    may_read = "read-memory" in allowed or "read-memory" in levels_given(consents)
    for probe in granted:
        probe.configure(options._replace(may_read_memory=may_read))
    if any(probe.level != "observe" for probe in granted):
        # Only here: a capture that only observes does without ctypes and its cost.
        from .system.own_memory import give_back_early

        give_back_early()
    return consents, granted, refused


def exit_status(outcome: Outcome, wanted: Sequence[str], opted: Sequence[str] = ()) -> int:
    """By how it ended, and by the gaps; `wanted`, `opted`: see `is_partial`."""
    if outcome.end == "interrupted":
        return EXIT_INTERRUPTED
    if outcome.end == "target-gone":
        return CollectorError.exit_code
    if outcome.end != "duration":
        return EXIT_PARTIAL
    lacks = any(is_partial(gap, wanted, opted) for gap, _ in outcome.gaps)
    return EXIT_PARTIAL if lacks else 0


def is_partial(gap: Any, wanted: Sequence[str], opted: Sequence[str] = ()) -> bool:
    """Whether something failed, or is missing that was asked for.

    `wanted`: probes that --with names. `opted`: those that an option of their own asks for, as
    --trace does; what these leave undone for want of a level was not asked for.
    """
    if gap.probe in wanted or (gap.probe in opted and gap.reason == "not-supported"):
        return True
    return gap.probe not in _MAY_BE_MISSING and gap.reason not in _HARMLESS_REASONS


# --- what people see ------------------------------------------------------------------------------


def _summary(
    case: CaseFile,
    identity: ProcessIdentity,
    outcome: Outcome,
    granted: Sequence[Probe],
    refused: Sequence[Probe],
    opted: Sequence[str],
) -> list[str]:
    span = duration(outcome.ended_ns - outcome.started_ns)
    lines = [
        f"watched pid {identity.pid} for {span}: {outcome.samples} samples, "
        f"{size(case.written_bytes)}"
    ]
    if outcome.end == "target-gone":
        lines.append("the process ended while it was watched; the case holds all until then")
    elif outcome.end == "interrupted":
        lines.append("interrupted; the case is whole")
    elif outcome.error is not None:
        lines.append(f"cut short: {outcome.error}")
    if outcome.decision is not None:
        lines.append(f"first look: {sentence(outcome.decision)}")
    # One refusal may be met by several probes.
    told = dict.fromkeys(text for gap, text in outcome.gaps if is_partial(gap, (), opted))
    lines.extend(f"not seen: {text}" for text in told)
    lines.extend(
        f"beside the case: {path}; it holds what the process held: keep it here"
        for probe in granted
        if (path := probe.left_behind()) is not None
    )
    lines.extend(_further(granted, refused))
    lines.append(f"next: leakcase analyze {case.path}")
    lines.append(
        f"what left the host: leakcase show --strings {case.path}; "
        f"{case.map_path} says who is who: keep it here"
    )
    return lines


_WHICH_CODE = (
    "--trace bursts --allow read-memory,trace: which code allocates what stays; needs root, and "
    "costs the process no more than --max-slowdown"
)
#: What the levels that were not allowed would add.
_WOULD_TELL = {
    "read-memory": "what piles up, by size, class and type; nothing is stopped",
    "attach": "what its allocator or runtime says itself; stops it for milliseconds",
}


def _further(granted: Sequence[Probe], refused: Sequence[Probe]) -> list[str]:
    """The options that would show more, and what."""
    levels = {probe.level for probe in refused}
    found = [f"--allow {level}: {told}" for level, told in _WOULD_TELL.items() if level in levels]
    if not any(probe.level == "trace" for probe in granted):
        found.insert(1 if "read-memory" in levels else 0, _WHICH_CODE)
    if not found:
        return ["more to see: with a longer --duration slower growth"]
    cost = "what each would cost: leakcase-collect plan, with the same options"
    return ["more to see, with:", *(f"  {text}" for text in [*found, cost])]


def _as_map(
    case: CaseFile, identity: ProcessIdentity, outcome: Outcome, status: int
) -> dict[str, Any]:
    decision = outcome.decision
    return {
        "case": case.path,
        "private_map": case.map_path,
        "pid": identity.pid,
        "end": outcome.end,
        "exit_status": status,
        "samples": outcome.samples,
        "case_bytes": case.written_bytes,
        "watched_seconds": (outcome.ended_ns - outcome.started_ns) / 1e9,
        "decision": decision.decision if decision else None,
        "growth_bytes_per_hour": decision.growth_bytes_per_hour if decision else None,
        "gaps": [
            {"probe": gap.probe, "reason": gap.reason, "detail": gap.detail, "message": text}
            for gap, text in outcome.gaps
        ],
        "error": str(outcome.error) if outcome.error else None,
    }


def consumers_table(consumers: Sequence[Consumer]) -> str:
    """The largest processes for people."""
    lines = [f"{'pid':>8}  {'RSS':>10}  {'PSS':>10}  {'swap':>10}  {'threads':>7}  name"]
    for c in consumers:
        pss = "-" if c.pss_bytes is None else size(c.pss_bytes)
        lines.append(
            f"{c.pid:>8}  {size(c.rss_bytes):>10}  {pss:>10}  {size(c.swap_bytes):>10}  "
            f"{c.threads:>7}  {without_controls(c.name)}"
        )
    return "\n".join(lines)


def choose_on_terminal() -> Optional[Callable[[Sequence[Consumer]], Optional[int]]]:
    """A question to the person at the terminal, or None where there is none."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def choose(consumers: Sequence[Consumer]) -> Optional[int]:
        print(consumers_table(consumers), file=sys.stderr)
        print("which pid? ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline().strip()
        return int(answer) if answer.isdigit() else None

    return choose


def _ask_on_terminal() -> Optional[Callable[[str], bool]]:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask(text: str) -> bool:
        print(f"{wrapped(text)}\nallow it? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return ask


def _name_on_host(system: System, identity: ProcessIdentity) -> str:
    """The program's name for the terminal and the file's name; for the owner's eyes only."""
    try:
        return system.read_link(f"/proc/{identity.pid}/exe").rsplit("/", 1)[-1].split(" (")[0]
    except CollectorError:
        return identity.stat().comm.decode("utf-8", "replace")


def default_path(name: str, pid: int) -> str:
    """The case in the working directory, by what it is of and when."""
    plain = "".join(
        char if char.isascii() and (char.isalnum() or char in "._-") else "_" for char in name
    )
    return f"{plain or 'process'}-{pid}-{time.strftime('%Y%m%d-%H%M%S')}.leakcase"
