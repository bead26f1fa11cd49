"""Cases that no collector wrote: any value in any field, in any order; each gets an answer."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from leakcase_analyzer.analysis import analyze
from leakcase_analyzer.report.json_report import json_text
from leakcase_analyzer.report.markdown import markdown_text
from leakcase_analyzer.report.terminal import MOST_LINES, terminal_text
from leakcase_bundle.encoding import encode_map
from leakcase_bundle.schema import KIND_KEY, VERSION_KEY, FieldSpec, RecordSpec, record_kinds
from leakcase_bundle.vocabulary import VOCABULARIES
from leakcase_bundle.writer import Writer
from tests.analyzer.cases import START_NS
from tests.analyzer.hostile import HOSTILE_NAMES
from tests.analyzer.report.test_json import SCHEMA

CASES = int(os.environ.get("LEAKCASE_HOSTILE_CASES", "24"))
NUMBERS = (
    0, 1, -1, 2, 7, 4096, -4096, 1 << 20, 1 << 31, 1 << 53, (1 << 62) - 1, 1 << 62,
    (1 << 63) - 1, -(1 << 63),
)  # fmt: skip
ROWS = (0, 1, 2, 24, 130)


class Stranger:
    """Makes maps of records that obey the encoding and nothing else."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def record(self, spec: RecordSpec) -> dict[str, Any]:
        rows = self.random.choice(ROWS)
        found: dict[str, Any] = {KIND_KEY: spec.kind, VERSION_KEY: spec.version}
        for field in spec.fields:
            if field.optional and self.random.random() < 0.3:
                continue
            if field.shape == "column":
                if self.random.random() < 0.9 or field.name == "taken_ns":
                    found[field.name] = self.column(rows, is_time=field.name == "taken_ns")
            elif field.shape == "list":
                found[field.name] = [self.scalar(field) for _ in range(self.random.randrange(4))]
            else:
                found[field.name] = self.scalar(field)
        return found

    def column(self, rows: int, *, is_time: bool) -> list[int | None]:
        """Differences, as they travel; often an even rise, so that something is judged."""
        if is_time and self.random.random() < 0.8:
            return [START_NS if i == 0 else 1_000_000_000 for i in range(rows)]
        style = self.random.randrange(4)
        if style == 0:
            return [self.random.choice((None, *NUMBERS[:8])) for _ in range(rows)]
        if style == 1:
            return [self.random.choice(NUMBERS) if i == 0 else 0 for i in range(rows)]
        step = self.random.choice((1, 4096, 40_960, 1 << 30))
        return [step + self.random.randrange(4096 if style == 3 else 1) for _ in range(rows)]

    def scalar(self, field: FieldSpec) -> Any:
        if field.token is not None:
            return self.random.choice(HOSTILE_NAMES)
        if field.vocabulary is not None:
            words = sorted(VOCABULARIES[field.vocabulary])
            return self.random.choice([*words, "a-word-of-the-future"])
        if field.scalar == "bool":
            return self.random.random() < 0.5
        if field.scalar == "bytes":
            return b"\x00" * self.random.randrange(40)
        if field.name.endswith("_ns") and self.random.random() < 0.5:
            return START_NS + self.random.randrange(200) * 1_000_000_000
        return self.random.choice(NUMBERS) if self.random.random() < 0.7 else 3

    def write(self, path: Path) -> Path:
        specs = list(record_kinds().values())
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            writer = Writer(descriptor)
            for _ in range(self.random.choice((0, 3, 40, 300))):
                writer.add_encoded(encode_map(self.record(self.random.choice(specs))))
            writer.finish()
        finally:
            os.close(descriptor)
        return path


@pytest.mark.parametrize("seed", range(CASES))
def test_any_records_at_all_get_an_answer_in_every_form(seed: int, tmp_path: Path) -> None:
    with Stranger(seed).write(tmp_path / "hostile.leakcase").open("rb") as file:
        analysis = analyze(file)
    text = terminal_text(analysis, colour=False, unicode=True)
    assert text.count("\n") <= MOST_LINES
    assert all(line.isprintable() for line in text.splitlines())
    assert "nan" not in text.lower().split()
    assert markdown_text(analysis).startswith("# Memory of ")
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json_text(analysis)))
    assert 0 <= analysis.verdict.confidence <= 1
    assert math.isfinite(analysis.evidence.window_seconds)


def test_strangers_cases_are_judged_and_not_only_refused(tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    statuses = set()
    for seed in range(CASES):
        with Stranger(seed).write(tmp_path / "hostile.leakcase").open("rb") as file:
            statuses.add(analyze(file).verdict.status)
    assert {"undecided", "leak"} <= statuses
