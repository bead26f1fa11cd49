"""Every probe keeps the same promises: one test that loops over all of them."""

from __future__ import annotations

import inspect

import pytest

from leakcase_bundle.vocabulary import VOCABULARIES
from leakcase_collector.consent import LEVELS, WHAT_IT_DOES
from leakcase_collector.plan import describe, probes_table
from leakcase_collector.probes import PROBES
from leakcase_collector.probes.base import Cadence, Probe
from tests.architecture.sources import PACKAGES

each_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
#: Not a probe: what the session itself says and loses.
_SESSION = {"session"}


@each_probe
def test_a_probe_says_what_it_reads_needs_and_risks(probe: type[Probe]) -> None:
    for sentence in (probe.reads, probe.needs, probe.risk):
        assert len(sentence) >= 12, (probe.name, sentence)
        assert sentence == sentence.strip()
        assert not sentence.endswith("."), "it is a part of a sentence"
    assert isinstance(probe.cadence, Cadence)
    assert probe.level in LEVELS
    assert (inspect.getdoc(probe) or "") != inspect.getdoc(Probe), "its docstring is its own"


@each_probe
def test_a_probe_is_called_by_a_word_of_the_format(probe: type[Probe]) -> None:
    assert probe.name in VOCABULARIES["probe"]


@each_probe
def test_a_probe_lives_in_a_file_of_its_own(probe: type[Probe]) -> None:
    path = inspect.getsourcefile(probe)
    assert path is not None
    others = [p.name for p in PROBES if p is not probe and inspect.getsourcefile(p) == path]
    assert others == []
    assert probe.name.split("-")[0].rstrip("s") in path.rsplit("/", 1)[-1].replace("_", "-")


@each_probe
def test_a_probe_does_something_at_the_cadence_it_names(probe: type[Probe]) -> None:
    if probe.cadence is Cadence.ONCE:
        assert probe.begin is not Probe.begin
        assert probe.sample is Probe.sample
    elif probe.cadence is Cadence.ENDS:
        assert Probe.begin is not probe.begin and Probe.finish is not probe.finish
        assert probe.sample is Probe.sample
    elif probe.cadence is Cadence.END:
        assert probe.finish is not Probe.finish
        assert (probe.begin, probe.sample) == (Probe.begin, Probe.sample)
    else:
        assert probe.sample is not Probe.sample


@each_probe
def test_a_probe_that_only_observes_stops_nothing(probe: type[Probe]) -> None:
    if probe.level in ("observe", "read-memory"):
        assert not probe.stops_target
    if probe.level != "observe":
        assert not probe.risk.startswith("none"), "it must say what could go wrong"


def test_every_probe_of_the_format_is_registered_once_and_no_other() -> None:
    names = [probe.name for probe in PROBES]
    assert sorted(names) == sorted(VOCABULARIES["probe"] - _SESSION)


def test_probes_are_ordered_from_the_safest() -> None:
    order = [LEVELS.index(probe.level) for probe in PROBES]
    assert order == sorted(order)


def test_no_probe_is_left_unregistered() -> None:
    folder = PACKAGES["leakcase_collector"] / "probes"
    registered = {inspect.getsourcefile(probe) for probe in PROBES}
    defining = {
        str(path) for path in folder.rglob("*.py") if "(Probe):" in path.read_text(encoding="utf-8")
    }
    assert defining == registered


def test_levels_are_those_of_the_format_and_each_is_explained() -> None:
    assert set(LEVELS) == VOCABULARIES["level"] == set(WHAT_IT_DOES)


def test_the_list_of_probes_shows_every_one() -> None:
    table = probes_table(PROBES)
    for probe in PROBES:
        assert probe.name in table
        assert probe.reads in table
        assert describe(probe)["probe"] == probe.name
