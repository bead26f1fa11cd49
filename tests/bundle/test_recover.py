"""Recovery: all that is intact, in a whole case, and a word on what is not."""

from __future__ import annotations

import io
import json
import os

import pytest

from leakcase_bundle import Reader
from leakcase_bundle.records import CaseEnd, Gap, Loss
from leakcase_bundle.recover import Recovery, recover
from tests.bundle.shared import NAMES, VECTORS, read, vector


def recovered(case: bytes) -> tuple[Recovery, bytes]:
    descriptor = os.memfd_create("recovered")
    with open(descriptor, "rb") as file:
        recovery = recover(Reader(io.BytesIO(case), salvage=True), descriptor)
        file.seek(0)
        return recovery, file.read()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "newer-major"])
def test_of_every_vector_what_is_intact_becomes_a_whole_case(name: str) -> None:
    said = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
    found = said.get("salvage") or said
    recovery, case = recovered(vector(name))
    assert recovery.records == len(found["records"]) + len(found["unknown"])
    assert recovery.is_lossy == (not found["complete"])
    if not recovery.records:
        assert case == b""
        return
    records, reader = read(case)
    assert reader.complete
    assert reader.minor == found["minor"]
    losses = [r for r in records if isinstance(r, Loss) and r.probe == "session"]
    assert sum(loss.count for loss in losses if loss.what == "frames") == found["missing_frames"]
    assert sum(loss.count for loss in losses if loss.what == "records") == found["damaged_records"]
    assert len(records) - len(losses) == len(found["records"])


def test_unknown_kinds_and_fields_are_kept_to_the_letter() -> None:
    for name in ("unknown-kinds", "unknown-fields", "newer-record-version", "unknown-words"):
        before = [raw for _, raw in Reader(io.BytesIO(vector(name))).maps()]
        after = [raw for _, raw in Reader(io.BytesIO(recovered(vector(name))[1])).maps()]
        assert before == after


def test_a_loss_is_dated_by_the_newest_sample_before_it() -> None:
    records, _ = read(recovered(vector("bit-in-a-body"))[1])
    assert records[-1] == Loss(taken_ns=4_000_000_000, probe="session", what="frames", count=1)
    assert records[-2] == CaseEnd(taken_ns=4_000_000_000, reason="duration")


def test_a_torn_case_stays_one_without_an_end() -> None:
    recovery, case = recovered(vector("torn-in-a-body"))
    assert recovery.was_truncated
    assert recovery.is_lossy
    records, reader = read(case)
    assert reader.complete
    assert isinstance(records[0], Gap)
    assert not any(isinstance(record, CaseEnd) for record in records)


def test_recovering_twice_changes_nothing_more() -> None:
    _, once = recovered(vector("missing-frame"))
    recovery, twice = recovered(once)
    assert not recovery.is_lossy
    assert read(twice)[0] == read(once)[0]
