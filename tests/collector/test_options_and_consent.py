"""Words of the command line, and who may do what to the target."""

from __future__ import annotations

import pytest

from leakcase_collector.cli import build_parser
from leakcase_collector.consent import LEVELS, Question, levels_given, parse_levels, settle
from leakcase_collector.errors import UsageError
from leakcase_collector.options import (
    duration_ns,
    interval_ns,
    names,
    opted,
    select_probes,
    share,
)
from leakcase_collector.probes import PROBES
from leakcase_collector.probes.base import Cadence, Prediction, Probe


class PeekProbe(Probe):
    """A probe that needs to be asked for."""

    name = "peek"
    level = "read-memory"
    cadence = Cadence.ONCE
    reads = "the heap"
    risk = "swapped pages come back"


class StopProbe(PeekProbe):
    """One that stops the target."""

    name = "stop"
    level = "attach"
    stops_target = True


def _question(probe: Probe) -> Question:
    return Question(probe, lambda: Prediction(cpu_ns=5_000_000, stop_ns=200_000_000))


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("2m", 120), ("24h", 86400), ("500ms", 0.5), ("7", 7)]
)
def test_durations_are_written_as_people_write_them(text: str, seconds: float) -> None:
    assert duration_ns(text, "--duration") == int(seconds * 1e9)


@pytest.mark.parametrize("text", ["", "0", "-1s", "2 weeks", "1e9s", "9999999h", "nan", "٣s"])
def test_an_absurd_duration_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--duration .*30s, 2m or 24h\.$"):
        duration_ns(text, "--duration")


def test_an_interval_that_would_cost_more_than_it_shows_is_refused() -> None:
    with pytest.raises(UsageError, match="100ms"):
        interval_ns("1ms")


@pytest.mark.parametrize("text", ["0%", "101%", "x", "1", "-1%"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-slowdown"):
        share(text)
    assert share("0.5%") == 0.005


def test_probes_are_chosen_by_name_in_the_registered_order() -> None:
    chosen = [p.name for p in select_probes(PROBES, None, ["regions", "gpu"])]
    left_out = ("regions", "gpu", "reachability", "allocation-trace", "core-dump")
    assert chosen == [p.name for p in PROBES if p.name not in left_out]
    with pytest.raises(UsageError, match="no probe 'regoins'"):
        select_probes(PROBES, ["regoins"], [])
    assert names(["a,b", "c"]) == ["a", "b", "c"]


def test_a_probe_with_an_option_of_its_own_runs_only_where_that_is_given() -> None:
    def chosen(*arguments: str) -> bool:
        given = build_parser().parse_args(["capture", *arguments])
        wanted, unwanted = names(given.with_), names(given.without)
        probes = select_probes(PROBES, wanted, unwanted, opted(given))
        return "reachability" in [probe.name for probe in probes]

    assert not chosen("4711")
    assert chosen("4711", "--reachability")
    assert chosen("4711", "--with", "reachability")
    assert not chosen("4711", "--reachability", "--without", "reachability")


def test_all_levels_never_include_a_dump() -> None:
    assert parse_levels("all") == frozenset(LEVELS) - {"dump"}
    assert parse_levels("trace,dump") == {"trace", "dump"}
    with pytest.raises(UsageError, match="no such level"):
        parse_levels("everything")


def test_without_a_terminal_the_answer_is_no_and_says_so() -> None:
    consents, granted, refused = settle([_question(PeekProbe())], frozenset(), None)
    assert not granted
    assert [p.name for p in refused] == ["peek"]
    assert [(c.level, c.answer, c.how) for c in consents] == [
        ("observe", "yes", "default"),
        ("read-memory", "no", "no-terminal"),
    ]
    assert levels_given(consents) == ["observe"]


def test_an_option_answers_beforehand_and_nobody_is_asked() -> None:
    def never(text: str) -> bool:
        raise AssertionError(text)

    consents, granted, _ = settle([_question(PeekProbe())], frozenset({"read-memory"}), never)
    assert [p.name for p in granted] == ["peek"]
    assert levels_given(consents) == ["observe", "read-memory"]


def test_a_terminal_is_asked_once_a_probe_with_what_it_costs_and_risks() -> None:
    asked: list[str] = []

    def ask(text: str) -> bool:
        asked.append(text)
        return len(asked) == 1

    questions = [_question(PeekProbe()), _question(StopProbe())]
    _, granted, refused = settle(questions, frozenset(), ask)
    assert ([p.name for p in granted], [p.name for p in refused]) == (["peek"], ["stop"])
    assert "stops the target for about 0.2 s" in asked[1]
    assert "swapped pages come back" in asked[1]
    assert "5 ms of CPU" in asked[1]


class PeekMoreProbe(PeekProbe):
    """A second one of that level."""

    name = "peek-more"
    reads = "the objects"


def test_probes_that_only_read_are_asked_for_together() -> None:
    asked: list[str] = []

    def ask(text: str) -> bool:
        asked.append(text)
        return True

    questions = [_question(PeekProbe()), _question(StopProbe()), _question(PeekMoreProbe())]
    consents, granted, refused = settle(questions, frozenset(), ask)
    assert [text.split()[0] for text in asked] == ["read-memory:", "stop"]
    assert "peek: the heap" in asked[0] and "peek-more: the objects" in asked[0]
    assert asked[0].count("swapped pages come back") == 1
    assert len(granted) == 3 and not refused
    assert [consent.probe for consent in consents[1:]] == ["peek", "stop", "peek-more"]


def test_nobody_is_asked_about_what_the_process_does_not_have() -> None:
    asked: list[str] = []
    none = Question(StopProbe(), lambda: Prediction(), lambda: False)

    def ask(text: str) -> bool:
        asked.append(text)
        return True

    consents, granted, refused = settle([none, _question(PeekProbe())], frozenset(), ask)
    assert len(asked) == 1 and "peek" in asked[0]
    assert ([p.name for p in granted], refused, len(consents)) == (["peek"], [], 2)
