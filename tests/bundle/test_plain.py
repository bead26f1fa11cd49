"""Records as rows for JSON, and every string that is in them."""

from __future__ import annotations

import json

from leakcase_bundle.plain import FoundString, plain, rows, strings
from leakcase_bundle.records import Gap, StatusSeries
from leakcase_bundle.schema import record_kinds, to_map
from leakcase_bundle.strings import TOKENS_BY_FIELD_CLASS


def test_a_series_becomes_a_row_for_every_sample_and_unknown_figures_stay_out() -> None:
    series = StatusSeries(taken_ns=[1, 2], rss_bytes=[4096, None], swap_bytes=[0, 0])
    assert list(rows(series)) == [
        {"record": "series.status", "taken_ns": 1, "rss_bytes": 4096, "swap_bytes": 0},
        {"record": "series.status", "taken_ns": 2, "swap_bytes": 0},
    ]


def test_another_record_becomes_one_row() -> None:
    gap = Gap(taken_ns=1, probe="regions", reason="failed")
    assert list(rows(gap)) == [
        {"record": "gap", "taken_ns": 1, "probe": "regions", "reason": "failed"}
    ]


def test_binaries_become_hexadecimal() -> None:
    raw = {"record": "x", "a": b"\x00\xff", "b": [b"\x01", None, 2]}
    assert plain(raw) == {"record": "x", "a": "00ff", "b": ["01", None, 2]}
    assert json.dumps(plain(raw))


def test_every_string_of_every_kind_is_listed_with_its_class_and_place() -> None:
    from vector_parts import TOKEN_EXAMPLES, filled

    for spec in record_kinds().values():
        found = set(strings(to_map(filled(spec))))
        for field in spec.fields:
            mine = {f for f in found if f.place == f"{spec.kind}.{field.name}"}
            if field.token is not None:
                text = TOKEN_EXAMPLES[field.scalar]
                assert mine == {FoundString(field.scalar, text, f"{spec.kind}.{field.name}")}
            else:
                assert {f.field_class for f in mine} == ({"word"} if field.vocabulary else set())
        assert {f.field_class for f in found} <= {*TOKENS_BY_FIELD_CLASS, "word"}


def test_what_this_version_does_not_know_is_listed_too() -> None:
    found = list(strings({
        "record": "later", "record_version": "odd", "n": 5, "s": ["a", b"\xff"], "t": "c",
    }))  # fmt: skip
    assert found == [
        FoundString("unknown", "later", "later.record"),
        FoundString("unknown", "odd", "later.record_version"),
        FoundString("unknown", "n", "later (a field's name)"),
        FoundString("unknown", "s", "later (a field's name)"),
        FoundString("unknown", "a", "later.s"),
        FoundString("bytes", "ff", "later.s"),
        FoundString("unknown", "t", "later (a field's name)"),
        FoundString("unknown", "c", "later.t"),
    ]
    gap = to_map(Gap(taken_ns=1, probe="regions", reason="failed"))
    assert FoundString("unknown", "smuggled", "gap.later") in set(
        strings({**gap, "later": "smuggled"})
    )
    assert list(strings({"record": ["a"]})) == [FoundString("unknown", "a", "['a'].record")]
