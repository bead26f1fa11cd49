"""Chained migrations: an old record is read by code that knows the newest version alone."""

from __future__ import annotations

from typing import Any

import pytest

from leakcase_bundle import Damaged, migrate, reader
from leakcase_bundle.migrate import MIGRATIONS
from leakcase_bundle.records import Gap
from leakcase_bundle.schema import record_kinds, to_map
from tests.bundle.shared import read, vector


def first(raw: dict[str, Any]) -> dict[str, Any]:
    raw["count"] = raw.pop("n") * 2
    return {**raw, "record_version": 2}


def second(raw: dict[str, Any]) -> dict[str, Any]:
    raw["total"] = raw.pop("count") + 1
    return {**raw, "record_version": 3}


CHAIN: dict[tuple[str, int], migrate.Migration] = {("old", 1): first, ("old", 2): second}


def test_steps_are_taken_one_after_another_until_none_is_left() -> None:
    raw = {"record": "old", "record_version": 1, "n": 20}
    migrated = migrate.migrate(raw, CHAIN)
    assert migrated == {"record": "old", "record_version": 3, "total": 41}
    assert raw["n"] == 20


def test_other_kinds_and_odd_ones_pass_unchanged() -> None:
    for raw in (
        {"record": "new", "record_version": 1},
        {"record": ["old"], "record_version": 1},
        {"record": "old", "record_version": True},
        {},
    ):
        assert migrate.migrate(dict(raw), CHAIN) == raw


@pytest.mark.parametrize("hostile", [{}, {"n": "x"}, {"n": None}, {"n": [1]}])
def test_a_record_that_does_not_fit_its_version_is_damaged(hostile: dict[str, Any]) -> None:
    steps = {**CHAIN, ("old", 2): lambda raw: {**raw, "count": int(raw["count"])}}
    with pytest.raises(Damaged, match="record"):
        migrate.migrate({"record": "old", "record_version": 1, **hostile}, steps)


def test_a_chain_without_an_end_is_damage_not_a_hang() -> None:
    with pytest.raises(Damaged, match="end"):
        migrate.migrate({"record": "old", "record_version": 1}, {("old", 1): lambda raw: raw})


def test_a_reader_migrates_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(raw: dict[str, Any]) -> dict[str, Any]:
        return {
            **to_map(Gap(taken_ns=7, probe="regions", reason="failed")),
            "errno": raw["blob"][1],
        }

    monkeypatch.setattr(
        reader, "migrate", lambda raw: migrate.migrate(raw, {("later_kind", 3): step})
    )
    records, found = read(vector("unknown-kinds"))
    assert records[0] == Gap(taken_ns=7, probe="regions", reason="failed", errno=255)
    assert found.unknown_records == 0


def test_every_migration_leads_from_a_version_that_was_to_the_next() -> None:
    for kind, version in MIGRATIONS:
        assert 1 <= version < record_kinds()[kind].version
    for kind, spec in record_kinds().items():
        for version in range(1, spec.version):
            assert (kind, version) in MIGRATIONS
