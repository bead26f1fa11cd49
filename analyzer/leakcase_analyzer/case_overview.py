"""What a case holds, in one pass: its facts, how many records of which kind, what is not in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from leakcase_analyzer.report.units import count, date_and_time, shortened, size, span
from leakcase_bundle import Reader
from leakcase_bundle import records as kinds
from leakcase_bundle.plain import rows
from leakcase_bundle.schema import KIND_KEY, TIME_COLUMN, spec_of

#: How many different gaps, losses, costs or consents are kept; a real case has fewer.
MOST_GROUPS = 200
NS_PER_SECOND = 1e9


@dataclass
class Overview:
    """One pass over a case. Groups are counted by what they have in common."""

    header: kinds.CaseHeader | None = None
    target: kinds.Target | None = None
    decision: kinds.Decision | None = None
    end: kinds.CaseEnd | None = None
    records: Counter[str] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)
    gaps: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    losses: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    costs: list[kinds.Cost] = field(default_factory=list)
    consents: list[kinds.Consent] = field(default_factory=list)
    first_ns: int | None = None
    last_ns: int | None = None

    @property
    def watched_seconds(self) -> float | None:
        """From the first sample to the last."""
        if self.first_ns is None or self.last_ns is None:
            return None
        return (self.last_ns - self.first_ns) / NS_PER_SECOND

    def add(self, record: Any) -> None:
        """Take one record into account."""
        spec = spec_of(record)
        self.records[spec.kind] += 1
        if spec.is_series:
            times = getattr(record, TIME_COLUMN)
            self.samples[spec.kind] += len(times)
            first, last = min(times), max(times)
            self.first_ns = first if self.first_ns is None else min(self.first_ns, first)
            self.last_ns = last if self.last_ns is None else max(self.last_ns, last)
        elif isinstance(record, kinds.Gap):
            _count(self.gaps, (record.probe, record.reason, record.detail, record.errno), 1)
        elif isinstance(record, kinds.Loss):
            _count(self.losses, (record.probe, record.what), record.count)
        elif isinstance(record, kinds.Cost) and len(self.costs) < MOST_GROUPS:
            self.costs.append(record)
        elif isinstance(record, kinds.Consent) and len(self.consents) < MOST_GROUPS:
            self.consents.append(record)
        elif isinstance(record, kinds.CaseHeader):
            self.header = self.header or record
        elif isinstance(record, kinds.Target):
            self.target = record
        elif isinstance(record, kinds.Decision):
            self.decision = record
        elif isinstance(record, kinds.CaseEnd):
            self.end = record


def _count(groups: Counter[tuple[Any, ...]], group: tuple[Any, ...], number: int) -> None:
    if group in groups or len(groups) < MOST_GROUPS:
        groups[group] += number


def take_overview(reader: Reader) -> Overview:
    """Read a case through. Raises what `Reader` raises."""
    overview = Overview()
    for record in reader:
        overview.add(record)
    return overview


def condition(reader: Reader) -> str:
    """What state a case that was read through is in: one word."""
    if reader.complete:
        return "whole"
    if not reader.intact_records:
        return "unreadable"
    return "damaged" if reader.problem_count else "truncated"


def reading_document(reader: Reader) -> dict[str, Any]:
    """What the reading itself found, for JSON."""
    return {
        "condition": condition(reader),
        "complete": reader.complete,
        "truncated": reader.truncated,
        "file_bytes": reader.file_bytes,
        "content_bytes": reader.content_bytes,
        "skipped_bytes": reader.skipped_bytes,
        "frames": reader.frames,
        "missing_frames": reader.missing_frames,
        "records": reader.records,
        "unknown_records": reader.unknown_records,
        "damaged_records": reader.damaged_records,
        "problem_count": reader.problem_count,
        "problems": [{"offset": p.offset, "message": p.message} for p in reader.problems],
    }


def overview_document(overview: Overview, reader: Reader) -> dict[str, Any]:
    """The overview for JSON."""
    return {
        "format_minor": reader.minor,
        **reading_document(reader),
        "case": _row(overview.header),
        "target": _row(overview.target),
        "decision": _row(overview.decision),
        "end": _row(overview.end),
        "watched_seconds": overview.watched_seconds,
        "kinds": {
            kind: {"records": number, "samples": overview.samples.get(kind)}
            for kind, number in sorted(overview.records.items())
        },
        "gaps": [
            {"probe": probe, "reason": reason, "detail": detail, "errno": errno, "times": times}
            for (probe, reason, detail, errno), times in overview.gaps.items()
        ],
        "losses": [
            {"probe": probe, "what": what, "count": number}
            for (probe, what), number in overview.losses.items()
        ],
        "costs": [_row(cost) for cost in overview.costs],
        "consents": [_row(consent) for consent in overview.consents],
    }


def _row(record: Any) -> dict[str, Any] | None:
    if record is None:
        return None
    row = next(rows(record))
    del row[KIND_KEY]
    return row


# --- for people ---------------------------------------------------------------------------------


def overview_text(overview: Overview, reader: Reader) -> str:
    """The overview as lines for a terminal."""
    lines = [*_facts(overview, reader), "", "records"]
    for kind, number in sorted(overview.records.items()):
        samples = overview.samples.get(kind)
        text = count(number, "record") if samples is None else count(samples, "sample")
        lines.append(f"  {kind:<20} {text}")
    if reader.unknown_records:
        lines.append(f"  {count(reader.unknown_records, 'record')} of kinds that came later")
    lines += _section("not seen", map(_gap, overview.gaps.items()))
    lines += _section(
        "lost",
        (f"{probe:<20} {number:,} {what}" for (probe, what), number in overview.losses.items()),
    )
    lines += _section("asked", map(_consent, overview.consents))
    lines += _section("cost", map(_cost, overview.costs))
    lines += _section("problems", problem_lines(reader))
    return "\n".join(lines) + "\n"


def _facts(overview: Overview, reader: Reader) -> list[str]:
    facts = [
        ("case", _condition_text(reader)),
        (
            "file",
            f"{size(reader.file_bytes)} in {count(reader.frames, 'frame')}, "
            f"{size(reader.content_bytes)} unpacked, format 1.{reader.minor}",
        ),
    ]
    header, target = overview.header, overview.target
    if header is not None:
        levels = ", ".join(map(shortened, header.levels)) or "none"
        build = f"leakcase {shortened(header.collector_version)} ({header.collector_build})"
        host = shortened(header.host) if header.host else "a host"
        facts += [
            ("captured", f"{date_and_time(header.wall_ns)}, by {build}, levels: {levels}"),
            (
                "on",
                f"{host}: Linux {shortened(header.kernel_release)}, {header.machine}, "
                f"{count(header.cpu_count, 'CPU')}",
            ),
        ]
    if target is not None:
        program = f", {shortened(target.executable)}" if target.executable else ""
        age = "" if target.age_ns is None else f", up for {span(target.age_ns / NS_PER_SECOND)}"
        facts.append(("target", f"{shortened(target.name)}, pid {target.pid}{program}{age}"))
    facts.append(("watched", span(overview.watched_seconds)))
    facts.append(("ended", overview.end.reason if overview.end else "not known: cut off"))
    return [f"{name:<10}{text}" for name, text in facts]


def _condition_text(reader: Reader) -> str:
    word = condition(reader)
    if word == "truncated":
        return "truncated: it ends before its last frame, as after a kill"
    if word == "damaged":
        return f"damaged: {count(reader.problem_count, 'problem')}"
    return word


def _gap(group: tuple[tuple[Any, ...], int]) -> str:
    (probe, reason, detail, errno), times = group
    text = f"{probe:<20} {reason}"
    if detail is not None:
        text += f": {detail}"
    if errno is not None:
        text += f" (errno {errno})"
    return text if times == 1 else f"{text}, {times:,} times"


def _consent(consent: kinds.Consent) -> str:
    return f"{consent.probe or consent.level:<20} {consent.level}: {consent.answer} ({consent.how})"


def _cost(cost: kinds.Cost) -> str:
    text = (
        f"{cost.probe:<20} {count(cost.runs, 'run')}, CPU {_milliseconds(cost.cpu_ns)}, "
        f"longest {_milliseconds(cost.longest_wall_ns)}"
    )
    if cost.target_stopped_ns:
        text += f", target stopped for {_milliseconds(cost.target_stopped_ns)}"
    return text


def _milliseconds(time_ns: int) -> str:
    return f"{time_ns // 1_000_000:,} ms"


def problem_lines(reader: Reader) -> list[str]:
    """The problems of a case, one line each."""
    lines = [f"at byte {problem.offset:,}: {problem.message}" for problem in reader.problems]
    more = reader.problem_count - len(lines)
    return [*lines, f"and {more:,} more"] if more else lines


def _section(title: str, texts: Iterable[str]) -> list[str]:
    lines = [f"  {text}" for text in texts]
    return ["", title, *lines] if lines else []
