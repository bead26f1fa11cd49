"""The answer on a terminal: its first line is the answer, and it fits on a screen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from leakcase_analyzer.action import Action
from leakcase_analyzer.analysis import Analysis, Growing
from leakcase_analyzer.findings.base import NotSeen, RuledOut
from leakcase_analyzer.heap_reasons import TELLING_SHARE
from leakcase_analyzer.report.chart import bar, share_line, sparkline
from leakcase_analyzer.report.code_tables import (
    callers_line,
    meeting_line,
    rate_of,
    survival_end,
    suspect_name,
)
from leakcase_analyzer.report.facts import (
    amount_text,
    memory_parts,
    process_facts,
    rate_text,
    watched,
)
from leakcase_analyzer.report.heap_tables import heap_line, types_line
from leakcase_analyzer.report.units import as_sentence, confidence, render, share, size_interval
from leakcase_analyzer.sentences import Sentence

WIDTH = 80
MOST_LINES = 40
_CHART_WIDTH = 40
_LABEL_WIDTH = 11
_BAR_WIDTH = 10
#: Sections of this worth are never left out.
_ALWAYS = 0.8
_INDENT = "     "
_SHOWN_FACTS = frozenset({"process", "package", "allocator", "runtime"})

_RED, _YELLOW, _GREEN, _BOLD, _OFF = "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;32m", "\x1b[1m", "\x1b[0m"
#: Answers after which one asks what it is that grows.
_OPEN = frozenset({"leak", "undecided"})
_COLOURS = {"leak": _RED, "retention": _YELLOW, "undecided": _YELLOW}


@dataclass
class _Section:
    """A title and entries, each wrapped already; entries go from the end where room is short."""

    title: str
    #: How dear a line of it is: a section with dear lines keeps more of them.
    worth: float
    entries: list[list[str]] = field(default_factory=list)
    hidden: int = 0

    def lines(self) -> list[str]:
        shown = [line for entry in self.entries for line in entry]
        return ["", self.heading, *shown] if shown else []

    @property
    def heading(self) -> str:
        """The title, and how much more there is."""
        more = f" ({self.hidden} more in leakcase report)" if self.hidden else ""
        return self.title + more


def terminal_text(analysis: Analysis, *, colour: bool, unicode: bool) -> str:
    """At most MOST_LINES lines of WIDTH columns, with a line end."""
    answer = _wrapped(render(analysis.verdict.headline), "", "")
    facts = _facts(analysis, unicode)
    sections = [
        _code(analysis, unicode),
        _section("Why", 2.0, map(render, _reasons(analysis))),
        _section("What grows", 0.4, map(_grows, _worth_telling(analysis))),
        _section("Ruled out", 1.0, _ruled_out(analysis.ruled_out)),
        _section("Not seen", 0.8, map(_not_seen, analysis.not_seen)),
        _section("What to do", 2.0, map(_action, analysis.actions)),
    ]
    _fit(sections, MOST_LINES - len(answer) - len(facts))
    body = [line for section in sections for line in section.lines()]
    if colour:
        paint = _COLOURS.get(analysis.verdict.status, _GREEN)
        answer = [f"{paint}{line}{_OFF}" for line in answer]
        titles = {section.heading for section in sections}
        body = [f"{_BOLD}{line}{_OFF}" if line in titles else line for line in body]
    return "\n".join([*answer, *facts, *body]) + "\n"


def _reasons(analysis: Analysis) -> list[Sentence]:
    """The reasons but those that the lines above them say already."""
    main, code, said = analysis.verdict.main, analysis.code, list(analysis.verdict.reasons)
    told = [] if main is None or not main.rises else [main.claim]
    if code is not None and _tells_code(analysis):
        told += [code.claim, *code.evidence_for[:1]]
    return [reason for reason in said if reason not in told] or said


def _worth_telling(analysis: Analysis) -> list[Growing]:
    """What grows but that which decided: where it is all that grows, its rate stands above."""
    main = analysis.verdict.main
    return [
        one
        for one in analysis.growing
        if main is None or one.what != main.what or share(one.share or 0.0) != share(1.0)
    ]


def _tells_code(analysis: Analysis) -> bool:
    """Whether suspects belong on the screen: not where nothing leaks or may, nor where what grows
    is a heap that they do not fill."""
    code = analysis.code
    return code is not None and not code.aside and analysis.verdict.status in _OPEN


def _facts(analysis: Analysis, unicode: bool) -> list[str]:
    evidence, verdict = analysis.evidence, analysis.verdict
    about = [text for label, text in process_facts(evidence) if label in _SHOWN_FACTS]
    rows = [("process", ", ".join(about)), ("watched", watched(evidence))]
    answer = [verdict.status, f"kind {verdict.kind}"]
    if verdict.confidence:
        answer.append(f"confidence {confidence(verdict.confidence)}")
    if verdict.status == "leak":
        answer.append(f"trigger {verdict.trigger}")
    rows.append(("answer", ", ".join(answer)))
    if verdict.rate_bytes_per_hour is not None and verdict.status in _OPEN:
        rate = rate_text("bytes", verdict.rate_bytes_per_hour)
        between = size_interval(verdict.rate_interval_bytes_per_hour)
        rows.append(("rate", f"{rate} ({between})"))
    rows.append(("memory", ", ".join(f"{label} {text}" for label, text in memory_parts(analysis))))
    heap = analysis.heap
    telling = heap is not None and (heap.kept_share >= TELLING_SHARE or bool(heap.error_bytes))
    if telling or verdict.status == "retention" or analysis.memory.live_heap_bytes is None:
        rows.append(("heap", heap_line(analysis) or ""))
    if verdict.status in _OPEN:
        rows.append(("objects", types_line(analysis)))
    main = verdict.main
    if main is not None:
        ends = f"{amount_text(main.unit, main.first)} to {amount_text(main.unit, main.last)}"
        line = sparkline(main.track.values, _CHART_WIDTH) if unicode else ""
        rows.append(("trend", f"{line} {ends}".strip()))
    lines = [""]
    for label, text in rows:
        if text:
            lines += _wrapped(text, f"  {label:<{_LABEL_WIDTH}} ", " " * (_LABEL_WIDTH + 3))
    return lines


def _code(analysis: Analysis, unicode: bool) -> _Section:
    """The suspects: how much, who; then how many of its blocks are alive, and who calls it."""
    found = analysis.code
    section = _Section("Who allocates what stays", 4.0)
    if found is None or not _tells_code(analysis):
        return section
    for rank, one in enumerate(found.suspects, start=1):
        drawn = bar(one.share or 0.0, _BAR_WIDTH, unicode=unicode)
        rate = rate_of(one)
        figures = f"{drawn} {share(one.share or 0.0)}" + (f", {rate}" if rate else "")
        lines = _wrapped(f"{figures}: {suspect_name(one)}", f"  {rank}. ", _INDENT)
        alive = ""
        if one.curve.ages_seconds:
            falls = len(set(one.curve.alive_shares)) > 1
            drawn = share_line(one.curve.alive_shares) + " " if unicode and falls else ""
            alive = f"{drawn}{survival_end(one.curve)}; "
        callers = callers_line(one, WIDTH - len(_INDENT) - len(alive))
        lines += [(_INDENT + alive + callers).rstrip("; ")] if alive or callers else []
        section.entries.append(lines)
    meeting = meeting_line(found.suspects)
    if meeting is not None:
        section.entries[0] = [*_wrapped(meeting, "  ", "  "), *section.entries[0]]
    return section


def _grows(one: Growing) -> str:
    part = "of that, " if one.part_of is not None else ""
    what = one.what.removeprefix("descriptors: ")
    text = f"{part}{what}: {rate_text(one.unit, one.rate_per_hour)}"
    return text if one.share is None else f"{text}, {share(one.share)} of the growth"


def _ruled_out(excluded: Sequence[RuledOut]) -> Iterator[str]:
    """What is simply steady in one entry, the rest one by one."""
    for one in excluded:
        if one.brief is None:
            yield f"{render(one.claim)}: {render(one.because)}"
    brief = [render(one.brief) for one in excluded if one.brief is not None]
    if brief:
        yield "steady or not there: " + ", ".join(brief)


def _not_seen(one: NotSeen) -> str:
    return f"{render(one.claim)}: {render(one.because)}; {render(one.effect)}"


def _action(one: Action) -> str:
    return f"{as_sentence(render(one.what))} {as_sentence(render(one.why))}"


def _section(title: str, worth: float, texts: Iterable[str]) -> _Section:
    return _Section(title, worth, [_wrapped(text, "  - ", "    ") for text in texts])


def _wrapped(text: str, first: str, following: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=following, break_on_hyphens=False
    )


def _fit(sections: list[_Section], room: int) -> None:
    """Show of each section what fits: its first entry, then always the next one of the section
    that has taken the least lines for its worth."""
    left = {id(section): section.entries for section in sections}
    for section in sections:
        section.entries, section.hidden = [], len(section.entries)
    for section in sorted(sections, key=lambda one: -one.worth):
        if section.worth >= _ALWAYS:
            _show_next(section, left[id(section)], room - _height(sections))
    growing = [section for section in sections if section.hidden]
    while growing:
        least = min(growing, key=lambda one: _height_with(one, left[id(one)]) / one.worth)
        if not _show_next(least, left[id(least)], room - _height(sections)) or not least.hidden:
            growing.remove(least)


def _height_with(section: _Section, entries: list[list[str]]) -> int:
    """Its lines with one entry more; a title takes two."""
    return (len(section.lines()) or 2) + len(entries[len(section.entries)])


def _height(sections: list[_Section]) -> int:
    return sum(len(section.lines()) for section in sections)


def _show_next(section: _Section, entries: list[list[str]], room: int) -> bool:
    """Show one entry more, if it fits."""
    if not section.hidden:
        return False
    entry = entries[len(section.entries)]
    if len(entry) + (0 if section.entries else 2) > room:
        return False
    section.entries.append(entry)
    section.hidden -= 1
    return True
