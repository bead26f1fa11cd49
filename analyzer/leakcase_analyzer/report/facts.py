"""The facts that more than one report shows, as text: the process, the capture, the figures."""

from __future__ import annotations

import re

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Trend
from leakcase_analyzer.findings.trends import NOUNS
from leakcase_analyzer.report.units import (
    PLAIN,
    Style,
    count,
    count_rate,
    date,
    date_and_time,
    signed_size,
    size,
    size_rate,
    span,
)

#: Less of the heap than this that nothing refers to may be in use by registers alone.
WORTH_TELLING_SHARE = 0.001
STATUS_WORDS = {
    "leak": "grows for good",
    "retention": "freed and kept",
    "bounded": "rises and stops",
    "stable": "steady",
    "undecided": "undecided",
}


def process_name(evidence: Evidence, style: Style = PLAIN) -> str:
    """The process's redacted name."""
    target = evidence.target
    return "a process" if target is None else style.name(str(target.name))


def process_facts(evidence: Evidence, style: Style = PLAIN) -> list[tuple[str, str]]:
    """What is known of the process and its host: label and text."""
    target, header, program = evidence.target, evidence.header, evidence.program
    facts: list[tuple[str, str]] = []
    if target is not None:
        text = f"{process_name(evidence, style)}, pid {target.pid}"
        file = _other_name(str(target.name), str(target.executable or ""))
        facts.append(("process", f"{text}, run from {style.name(file)}" if file else text))
        if target.executable is not None:
            facts.append(("executable", style.name(str(target.executable))))
        if target.age_ns is not None:
            facts.append(("age", span(target.age_ns / 1e9)))
        if target.in_container:
            facts.append(("container", "yes"))
    if program is not None and program.package is not None:
        version = "" if program.package_version is None else f" {program.package_version}"
        facts.append(("package", style.name(f"{program.package}{version}")))
    if program is not None and program.build_id is not None:
        facts.append(("build-id", style.name(str(program.build_id))))
    facts += _parts(evidence, style)
    if header is not None:
        system = " ".join(str(t) for t in (header.os_id, header.os_version) if t is not None)
        facts.append(("system", style.name(f"{system} Linux {header.kernel_release}".strip())))
        facts.append(("machine", f"{style.name(header.machine)}, {header.cpu_count} CPUs"))
    return facts


def _other_name(name: str, executable: str) -> str:
    """The program file's name, where the process goes by another, as by a link; else empty.

    Code is told by the file's name: of Debian's redis-server that is redis-check-rdb.
    """
    file = executable.rpartition("/")[2]
    pseudonym = "<" in file + name
    same = file.startswith(name) or name.startswith(file)
    return "" if same or pseudonym else file


def _parts(evidence: Evidence, style: Style) -> list[tuple[str, str]]:
    found = []
    for label, part in (("allocator", evidence.allocator), ("runtime", evidence.runtime)):
        if part is not None:
            version = "" if part.version is None else f" {part.version}"
            found.append((label, style.name(f"{part.kind}{version}")))
    return found


def watched(evidence: Evidence) -> str:
    """How long, when, how often."""
    header, status = evidence.header, evidence.columns("status")
    is_core = header is not None and header.core
    parts = ["a core file" if is_core else span(evidence.window_seconds)]
    if status is not None:
        parts.append(count(len(status), "sample"))
    if header is not None and status is not None:
        parts.append(f"one every {span(header.interval_ns / 1e9)}")
    if header is not None:
        parts.append(date_and_time(header.wall_ns))
    return ", ".join(parts)


def memory_parts(analysis: Analysis) -> list[tuple[str, str]]:
    """The parts of memory that are known and not nothing, label and size."""
    memory = analysis.memory
    other = "heap and other" if memory.live_heap_bytes is None else "other"
    leaked = memory.unreachable_bytes or 0.0
    in_use = "heap in use"
    if leaked >= WORTH_TELLING_SHARE * (memory.live_heap_bytes or 0.0) > 0:
        in_use = f"heap in use, {size(leaked)} of it unreachable:"
    labelled = (
        ("resident", memory.resident_bytes),
        (in_use, memory.live_heap_bytes),
        ("freed and kept", memory.kept_free_bytes),
        ("files", memory.mapped_file_bytes),
        ("stacks", memory.stack_bytes),
        ("shared", memory.shared_bytes),
        ("runtime", memory.runtime_bytes),
        ("allocator, in use or kept", memory.allocator_bytes),
        (other, memory.unexplained_bytes),
        ("in swap", memory.swap_bytes),
    )
    return [(label, size(value)) for label, value in labelled if value]


def amount_text(unit: str, value: float) -> str:
    """A quantity's value in its unit."""
    return size(value) if unit == "bytes" else count(value, "")


def change_text(unit: str, value: float) -> str:
    """A quantity's change in its unit, with its sign."""
    return signed_size(value) if unit == "bytes" else f"{value:+,.0f}"


def rate_text(unit: str, per_hour: float | None) -> str:
    """A quantity's rate in its unit."""
    if per_hour is None:
        return "not known"
    if unit == "bytes":
        return size_rate(per_hour / 3600)
    return count_rate(per_hour / 3600, NOUNS.get(unit, unit))


def trend_row(trend: Trend) -> tuple[str, str, str, str, str, str]:
    """A quantity for a table: what, first, last, change, rate, answer."""
    steady = trend.status == "stable"
    rate = None if steady else trend.growth.rate_per_second
    falls = trend.status == "bounded" and trend.last < trend.first
    return (
        trend.what,
        amount_text(trend.unit, trend.first),
        amount_text(trend.unit, trend.last),
        change_text(trend.unit, trend.last - trend.first),
        "" if rate is None else rate_text(trend.unit, rate * 3600),
        "falls" if falls else STATUS_WORDS[trend.status],
    )


def report_name(evidence: Evidence, extension: str) -> str:
    """The default file name: process and date of the capture, safe on every file system."""
    target, header = evidence.target, evidence.header
    raw = "process" if target is None else str(target.name)
    process = re.sub(r"[^A-Za-z0-9.-]+", "-", raw).strip(".-")[:40] or "process"
    day = None if header is None else date(header.wall_ns)
    return f"memleak-report-{process}-{day or 'undated'}.{extension}"
