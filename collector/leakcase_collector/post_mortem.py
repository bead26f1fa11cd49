"""``capture --core``: a look at a core file, into a case without any series.

No process is needed, and none is touched: only the probes of the level read-memory run, each once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, Optional

from leakcase_bundle.records import CaseEnd, Consent, Gap, Target

from .capture import default_path, exit_status, is_partial
from .casefile import CaseFile
from .errors import OutputError, UsageError
from .header import case_header
from .options import names, select_probes
from .outcome import Outcome
from .probe_run import ProbeRun
from .probes import PROBES
from .probes.base import Cadence, Probe
from .probes.core_subject import CoreSubject
from .progress import size
from .redact import Redactor
from .system.clock import monotonic_ns
from .system.core_file import CoreFile
from .system.door import System
from .system.identity import ProcessIdentity
from .system.priority import yield_to_host
from .system.signals import StopRequest

#: What NT_PRPSINFO has room for, less the NUL: arguments of that length may be cut off.
_ARGUMENTS_LIMIT_BYTES = 79
LEVEL = "read-memory"


def capture_core(arguments: argparse.Namespace) -> int:
    """One look at a core file; returns the exit status. Raises CollectorError before a case is."""
    if arguments.target is not None:
        raise UsageError(
            f"capture {arguments.target} --core: a process or a core file, not both. "
            "Leave one of them out."
        )
    wanted = names(arguments.with_)
    chosen = select_probes(PROBES, wanted, names(arguments.without), ["reachability"])
    probes = [probe for probe in chosen if probe.level == LEVEL]
    system = System()
    with (
        StopRequest() as stop,
        CoreFile(arguments.core) as core,
        CoreSubject(system, core) as subject,
    ):
        case = CaseFile(arguments.output or _default_path(core))
        try:
            redactor = Redactor(case.write_map_line, keep_symbols=not arguments.no_symbols)
            case.add(
                case_header(system, None, redactor, interval_ns=0, duration_ns=None, levels=[LEVEL])
            )
            outcome = PostMortem(system, subject, case, redactor, probes).run(stop)
        finally:
            case.close()
    if outcome.error is not None and case.records == 0:
        case.discard()
        raise outcome.error
    status = exit_status(outcome, wanted)
    if arguments.json:
        print(json.dumps(_as_map(case, core, outcome, status)))
    else:
        print(case.path)
        for text in _summary(case, core, subject, outcome):
            print(text, file=sys.stderr)
    return status


class PostMortem:
    """One core file into one case: what a `Session` is to a process."""

    interval_ns = started_ns = 0

    def __init__(
        self,
        system: System,
        subject: CoreSubject,
        case: CaseFile,
        redactor: Redactor,
        probes: Sequence[Probe],
    ) -> None:
        self.system = system
        self.subject = subject
        self.case = case
        self.redactor = redactor
        self.gaps: list[tuple[Gap, str]] = []
        self._runs = [ProbeRun(probe, self) for probe in probes]

    @property
    def identity(self) -> ProcessIdentity:
        raise AssertionError("a core file has no process")

    def take_sample(
        self, series: type[Any], taken_ns: int, values: dict[str, Optional[int]]
    ) -> None:
        raise AssertionError("a core file has no series")

    def run(self, stop: StopRequest) -> Outcome:
        """Every probe once; never raises for a full disk or a signal."""
        started_ns = monotonic_ns()
        end, error = "duration", None
        try:
            self._say_who(started_ns)
            self.case.flush()
            yield_to_host()
            for run in self._runs:
                if stop.is_requested:
                    end = "interrupted"
                    break
                self._run(run)
            self._close(end)
        except OutputError as failure:
            end, error = "disk-full", failure
        return Outcome(
            end, stop.signal_number, 0, None, self.gaps, started_ns, monotonic_ns(), error
        )

    def _run(self, run: ProbeRun) -> None:
        run.predict()
        self.case.add(Consent(LEVEL, "yes", "option", run.probe.name))
        is_at_end = run.probe.cadence is Cadence.END
        run.call(run.probe.finish if is_at_end else run.probe.begin, monotonic_ns())
        self.case.flush()

    def _say_who(self, now_ns: int) -> None:
        process, path = self.subject.core.process, self.subject.program_path
        if process is None:
            return
        if path is not None:
            self.redactor.know_module(path)
        words = [word for word in _text(process.arguments).split(" ") if word]
        is_whole = len(process.arguments) < _ARGUMENTS_LIMIT_BYTES
        self.case.add(
            Target(
                taken_ns=now_ns,
                pid=process.pid,
                start_ticks=None,
                age_ns=None,
                name=self.redactor.name(_text(process.name)),
                state="other",
                parent_pid=process.parent_pid,
                threads=len(self.subject.core.threads),
                executable=None if path is None else self.redactor.path(path, is_module=True),
                arguments=self.redactor.arguments(words, path),
                argument_count=len(words) if is_whole else None,
            )
        )

    def _close(self, end: str) -> None:
        now_ns = monotonic_ns()
        for run in self._runs:
            for loss in run.losses(now_ns):
                self.case.add(loss)
            self.case.add(run.cost())
        self.case.add(CaseEnd(now_ns, end))
        self.case.finish()


def _summary(case: CaseFile, core: CoreFile, subject: CoreSubject, outcome: Outcome) -> list[str]:
    lines = [f"read a core file of {size(core.size_bytes)}: {size(case.written_bytes)}"]
    left_out = subject.unread_bytes()
    if left_out:
        lines.append(
            f"not in the core file: {size(left_out)} of memory that the process could write; "
            "a wider /proc/PID/coredump_filter keeps it"
        )
    if outcome.end == "interrupted":
        lines.append("interrupted; the case is whole")
    elif outcome.error is not None:
        lines.append(f"cut short: {outcome.error}")
    lines.extend(f"not seen: {text}" for gap, text in outcome.gaps if is_partial(gap, ()))
    lines.append(f"next: leakcase analyze {case.path}")
    lines.append(
        f"what leaves the host: leakcase show --strings {case.path}; "
        f"{case.map_path} says who is who: keep it here, and the core file as well"
    )
    return lines


def _as_map(case: CaseFile, core: CoreFile, outcome: Outcome, status: int) -> dict[str, Any]:
    return {
        "case": case.path,
        "private_map": case.map_path,
        "core_bytes": core.size_bytes,
        "pid": None if core.process is None else core.process.pid,
        "end": outcome.end,
        "exit_status": status,
        "case_bytes": case.written_bytes,
        "gaps": [
            {"probe": gap.probe, "reason": gap.reason, "detail": gap.detail, "message": text}
            for gap, text in outcome.gaps
        ],
        "error": str(outcome.error) if outcome.error else None,
    }


def _default_path(core: CoreFile) -> str:
    process = core.process
    return default_path(
        "core" if process is None else _text(process.name), 0 if process is None else process.pid
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
