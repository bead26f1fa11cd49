"""What EXPECTED.toml, README.md and the sources of the samples say agrees with itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from samples import runner
from samples.runner import Expected

EVERY = runner.load_expected()
LEAKS = [expected for expected in EVERY if expected.what_is_leaked is not None]
NATIVE_LEAKS = [expected for expected in LEAKS if expected.language != "python"]
README = (runner.SAMPLES_DIR / "README.md").read_text(encoding="utf-8")
SOURCE_NAMES = {"c": "main.c", "c++": "main.cpp", "python": "main.py"}

each_sample = pytest.mark.parametrize("expected", EVERY, ids=lambda expected: expected.name)
each_leak = pytest.mark.parametrize("expected", LEAKS, ids=lambda expected: expected.name)


def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


@each_sample
def test_the_answer_is_made_of_the_words_that_a_verdict_may_use(expected: Expected) -> None:
    assert {expected.status, *expected.status_also, *expected.never} <= set(get_args(runner.Status))
    assert {expected.kind, *expected.kind_also} <= set(get_args(runner.Kind))
    assert not {expected.status, *expected.status_also} & set(expected.never)
    assert expected.kind not in expected.kind_also
    if expected.trigger is not None:
        assert {expected.trigger, *expected.trigger_also} <= set(get_args(runner.Trigger))


@each_sample
def test_a_leak_has_a_place_a_rate_and_a_trigger_and_an_innocent_none(expected: Expected) -> None:
    leaks = expected.status == "leak"
    assert (expected.what_is_leaked is not None) == leaks
    assert (expected.trigger is not None) == leaks
    assert leaks != ("leak" in expected.never)
    if not leaks:
        assert expected.rate_bytes_per_hour == 0


@each_sample
def test_a_rate_is_of_memory_or_else_of_a_named_unit(expected: Expected) -> None:
    counted = expected.kind in ("threads", "fds")
    assert (expected.unit is not None) == counted
    assert (expected.rate_per_hour is not None) == counted
    assert (expected.rate_bytes_per_hour is None) == counted
    assert 0 < expected.rate_tolerance <= 0.15


@each_leak
def test_the_rate_is_what_the_blocks_amount_to(expected: Expected) -> None:
    leaked = expected.what_is_leaked
    assert leaked is not None
    per_hour = leaked.blocks_per_second * 3600
    if expected.rate_per_hour is not None:
        assert expected.rate_per_hour == pytest.approx(per_hour, rel=1e-4)
    else:
        assert leaked.block_bytes is not None
        assert leaked.resident_bytes is not None
        assert leaked.resident_bytes >= leaked.block_bytes
        assert expected.rate_bytes_per_hour == pytest.approx(
            leaked.resident_bytes * per_hour, rel=1e-4
        )


@each_leak
def test_memory_leaks_fast_enough_to_be_seen_within_a_minute(expected: Expected) -> None:
    if expected.rate_bytes_per_hour is not None:
        assert 40_000 < expected.rate_bytes_per_hour / 3600 < 2_000_000


@each_leak
def test_the_rate_has_a_prime_in_it_that_is_no_accident(expected: Expected) -> None:
    leaked = expected.what_is_leaked
    assert leaked is not None
    period_ms = 1000 / leaked.blocks_per_second
    candidates = [leaked.blocks_per_second, 2 * leaked.blocks_per_second, round(period_ms)]
    assert any(is_prime(int(number)) for number in candidates if number == int(number))


@each_leak
def test_the_line_that_leaks_is_where_it_is_said_to_be(expected: Expected) -> None:
    leaked = expected.what_is_leaked
    assert leaked is not None
    lines = (runner.SAMPLES_DIR / leaked.file).read_text(encoding="utf-8").splitlines()
    marked = [number for number, line in enumerate(lines, 1) if re.search(r"\bLEAK\b", line)]
    assert marked == [leaked.line]
    assert any(re.search(rf"\b{leaked.symbol}\(", line) for line in lines[: leaked.line])


@pytest.mark.parametrize("expected", NATIVE_LEAKS, ids=lambda expected: expected.name)
def test_the_function_that_leaks_has_a_symbol_of_its_own(expected: Expected) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm here")
    leaked = expected.what_is_leaked
    assert leaked is not None
    runner.build()
    listing = subprocess.run(
        ["nm", "--demangle", str(runner.BUILD_DIR / expected.name)],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    ).stdout
    assert re.search(rf" [tT] {leaked.symbol}(\(|$)", listing, re.MULTILINE)


@each_sample
def test_the_folder_the_name_and_the_program_agree(expected: Expected) -> None:
    source = runner.SAMPLES_DIR / expected.name / SOURCE_NAMES[expected.language]
    assert f'"{expected.name}"' in source.read_text(encoding="utf-8")


def test_every_folder_with_a_program_has_an_expected_answer() -> None:
    with_program = {path.parent.name for path in runner.SAMPLES_DIR.glob("*/main.*")}
    assert with_program == {expected.name for expected in EVERY}


def test_the_readme_lists_every_sample_with_its_language_status_and_kind() -> None:
    rows = [row.split("|") for row in README.splitlines() if row.startswith("| `")]
    told = {
        (name.strip(" `"), language.strip().lower(), status.split()[0], kind.split()[0])
        for _, name, language, _, status, kind, *_ in rows
    }
    assert told == {(one.name, one.language, one.status, one.kind) for one in EVERY}


def test_one_leak_needs_no_compiler() -> None:
    assert any(one.language == "python" and one.kind == "heap" for one in LEAKS)


def test_an_unknown_field_is_refused_with_the_file_named(tmp_path: Path) -> None:
    path = runner.SAMPLES_DIR / "stable" / "EXPECTED.toml"
    text = path.read_text(encoding="utf-8")
    broken = tmp_path / "EXPECTED.toml"
    broken.write_text(text + "colour = 'red'\n", encoding="utf-8")
    with pytest.raises(runner.SampleError, match=re.escape(str(broken))):
        runner._read_expected(broken)


def test_a_sample_that_does_not_exist_is_refused_in_one_sentence() -> None:
    with pytest.raises(runner.SampleError, match="no sample 'no-such-sample'"):
        runner.start("no-such-sample", seconds=1)
