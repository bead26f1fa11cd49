"""The writer is a wall: what redaction has not passed cannot be written."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakcase_bundle import SpecViolation
from leakcase_bundle.encoding import decode_maps, encode_map
from leakcase_bundle.records import Gap, Setting, StatusSeries, Target
from leakcase_bundle.schema import FieldSpec, RecordSpec, from_map, record, record_kinds, to_map
from leakcase_bundle.strings import (
    SYSTEM_COMPONENTS,
    TOKEN_CLASSES,
    ArgumentToken,
    EnvironmentToken,
    NameToken,
    PathToken,
    Token,
)
from leakcase_bundle.vocabulary import VOCABULARIES, WORD_PATTERN

SECRET = "s3cr3t of alice"


def filled(spec: RecordSpec) -> Any:
    from vector_parts import filled as fill  # importable only after conftest.py has run

    return fill(spec)


def fields(scalar: str = "") -> list[Any]:
    """All fields of all kinds, or those of one type; "token" for every class of strings."""
    return [
        pytest.param(spec, field, id=f"{spec.kind}.{field.name}")
        for spec in record_kinds().values()
        for field in spec.fields
        if scalar in ("", field.scalar) or (scalar == "token" and field.token is not None)
    ]


def refused(spec: RecordSpec, field: FieldSpec, value: Any) -> str:
    """The message with which a value is refused in a record that is good otherwise."""
    values = [value] if field.shape == "list" else value
    bad = dataclasses.replace(filled(spec), **{field.name: values})
    with pytest.raises(SpecViolation) as caught:
        to_map(bad)
    return str(caught.value)


@pytest.mark.parametrize("spec, field", fields("token"))
def test_a_field_of_strings_takes_only_its_own_well_formed_tokens(
    spec: RecordSpec, field: FieldSpec
) -> None:
    assert field.token is not None
    good = getattr(filled(spec), field.name)
    good = good[0] if field.shape == "list" else good
    stranger = next(c for c in TOKEN_CLASSES if c is not field.token)
    for bad in (str(good), SECRET, stranger(good), Token(good), good.encode(), 5, 1.5):
        message = refused(spec, field, bad)
        assert f"{spec.kind}.{field.name}" in message
        assert "alice" not in message
    for bad in ("line\nbreak", "\x1b[2J", "a" * 513, "\u202eabc", good + "\n", good + "\0"):
        assert bad not in refused(spec, field, field.token(bad))


@pytest.mark.parametrize("spec, field", fields("word"))
def test_a_field_of_words_takes_only_words_of_its_vocabulary(
    spec: RecordSpec, field: FieldSpec
) -> None:
    for bad in (SECRET, "", "no-such-word", b"yes", 1, True):
        assert "alice" not in refused(spec, field, bad)


@pytest.mark.parametrize("spec, field", fields("int"))
def test_a_field_of_integers_takes_no_fraction_no_boolean_and_no_65th_bit(
    spec: RecordSpec, field: FieldSpec
) -> None:
    for bad in (1.0, True, "1", 1 << 63, -(1 << 63) - 1):
        refused(spec, field, [bad] * 3 if field.shape == "column" else bad)


@pytest.mark.parametrize("spec, field", fields("bool"))
def test_a_field_of_booleans_takes_nothing_else(spec: RecordSpec, field: FieldSpec) -> None:
    for bad in (1, 0, "true", 1.0):
        refused(spec, field, bad)


@pytest.mark.parametrize("spec, field", fields())
def test_only_fields_that_may_be_absent_may_be_absent(spec: RecordSpec, field: FieldSpec) -> None:
    without = dataclasses.replace(filled(spec), **{field.name: None})
    if field.optional and not (spec.is_series and field.name == "taken_ns"):
        assert field.name not in to_map(without)
        assert from_map(to_map(without)) == without
    else:
        with pytest.raises(SpecViolation):
            to_map(without)


def test_a_series_is_as_long_as_its_times() -> None:
    for times, values in (
        ([1, 2], [1]),
        ([1], [1, 2]),
        ([], []),
        ([1, None], [1, 2]),
        (None, [1]),
    ):
        with pytest.raises(SpecViolation):
            to_map(StatusSeries(taken_ns=times, rss_bytes=values))  # type: ignore[arg-type]


def test_a_column_cannot_jump_further_than_an_integer_reaches() -> None:
    far = [-(1 << 63), (1 << 63) - 1]
    with pytest.raises(SpecViolation, match=r"rss_bytes"):
        to_map(StatusSeries(taken_ns=[1, 2], rss_bytes=list(far)))


def test_a_list_holds_no_nil_and_is_a_list() -> None:
    target = filled(record_kinds()["target"])
    for bad in ([None], (ArgumentToken("prog"),), ArgumentToken("prog")):
        with pytest.raises(SpecViolation):
            to_map(dataclasses.replace(target, arguments=bad))


@pytest.mark.parametrize("value", ["hunter2", "payroll.csv", "-phunter2", "-ualice", "--port=5432"])
def test_an_options_value_cannot_stand_among_arguments(value: str) -> None:
    target: Target = filled(record_kinds()["target"])
    argv = [ArgumentToken(text) for text in ("prog", "--port", "<value>", "-v", "-jar", "<name:1>")]
    assert to_map(dataclasses.replace(target, arguments=argv))["arguments"] == argv
    with pytest.raises(SpecViolation) as caught:
        to_map(dataclasses.replace(target, arguments=[*argv, ArgumentToken(value)]))
    assert value not in str(caught.value)


def test_a_setting_keeps_its_name() -> None:
    setting = Setting(
        source="environment",
        name=ArgumentToken("MALLOC_ARENA_MAX"),
        value=EnvironmentToken("2"),
    )
    assert from_map(to_map(setting)) == setting


def test_a_kind_cannot_be_declared_with_free_text_nor_with_a_reserved_name() -> None:
    class FreeText:
        text: str

    class Reserved:
        record_version: int

    for number, declared in enumerate((FreeText, Reserved)):
        with pytest.raises(AssertionError):
            record(f"wall_test_{number}")(declared)
    assert not any(kind.startswith("wall_test") for kind in record_kinds())


def test_something_that_is_no_record_is_refused() -> None:
    with pytest.raises(SpecViolation, match="dict is not a record"):
        to_map({"record": "gap"})


# --- properties ---------------------------------------------------------------------------------

COMPONENTS = st.one_of(
    st.sampled_from(sorted(SYSTEM_COMPONENTS)),
    st.sampled_from(["alice", "<dir:1>", "<file:22>", "<dir:x>", "..", ".", "", "python3.11", "15",
                     "user-1000.slice", "libc.so.6", "my secret", "<dir:1>x", "home", "root"]),
    st.text(max_size=6),
)  # fmt: skip
PATHS = st.builds(
    lambda start, parts: start + "/".join(parts),
    st.sampled_from(["/", ""]),
    st.lists(COMPONENTS, max_size=6),
)
VERSIONED = re.compile(r"(?:python|ruby|perl-?|java-|openjdk-|nvidia|card|renderD)?[0-9.]{1,9}")
OWNED = {"home", "root", "srv", "media", "mnt", "opt", "tmp", "shm"}


@given(PATHS)
def test_no_directory_of_a_well_formed_path_is_outside_its_rule(text: str) -> None:
    if not PathToken(text).is_well_formed() or not text.startswith("/"):
        return
    *directories, last = text[1:].split("/")
    stays = True
    for component in directories:
        is_pseudonym = component.startswith("<dir:") or component.startswith("<file:")
        assert is_pseudonym or stays, text
        assert is_pseudonym or component in SYSTEM_COMPONENTS or VERSIONED.fullmatch(component), (
            text
        )
        stays = stays and not is_pseudonym and component not in OWNED
    assert "/" not in last
    assert last.isprintable()


@given(st.sampled_from(TOKEN_CLASSES), st.one_of(st.text(max_size=600), PATHS))
def test_a_well_formed_token_is_short_printable_and_ascii(cls: type[Token], text: str) -> None:
    if cls(text).is_well_formed():
        assert len(text) <= 512
        assert text.isascii()
        assert text == "" or text.isprintable()


@given(st.sampled_from(TOKEN_CLASSES), st.text(max_size=40), st.text(min_size=1, max_size=3))
def test_no_grammar_ends_before_the_end(cls: type[Token], text: str, more: str) -> None:
    assert not cls(f"{text}\n").is_well_formed()
    assert not cls(f"{text}\0{more}").is_well_formed()


def test_all_words_have_the_shape_that_readers_accept() -> None:
    for name, words in VOCABULARIES.items():
        assert words, name
        assert all(WORD_PATTERN.match(word) for word in words), name


INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1)


@st.composite
def any_record(draw: st.DrawFn) -> Any:
    """A record of any kind with any values that its fields allow."""
    spec = draw(st.sampled_from(tuple(record_kinds().values())))
    if spec.is_series:
        times = draw(st.lists(st.integers(0, 1 << 62), min_size=1, max_size=5))
        column = st.lists(
            st.one_of(st.none(), st.integers(-(1 << 61), 1 << 61)),
            min_size=len(times), max_size=len(times),
        )  # fmt: skip
        values = {f.name: draw(st.one_of(st.none(), column)) for f in spec.fields}
        return spec.cls(**{**values, "taken_ns": times})
    out = dataclasses.asdict(filled(spec))
    for field in spec.fields:
        if field.optional and draw(st.booleans()):
            out[field.name] = None
        elif field.scalar == "int":
            many = st.lists(INTEGERS, max_size=3)
            out[field.name] = draw(INTEGERS if field.shape == "one" else many)
        elif field.vocabulary is not None:
            words = st.sampled_from(sorted(VOCABULARIES[field.vocabulary]))
            out[field.name] = draw(words if field.shape == "one" else st.lists(words, max_size=3))
    return spec.cls(**out)


@given(st.lists(any_record(), min_size=1, max_size=4))
def test_every_record_comes_back_as_it_was(records: list[Any]) -> None:
    content = b"".join(encode_map(to_map(item)) for item in records)
    back = [from_map(raw) for raw in decode_maps(content)]
    assert back == records
    for item in back:
        for field in dataclasses.fields(item):
            value = getattr(item, field.name)
            assert type(value) in (int, bool, bytes, list, type(None)) or isinstance(value, str)


def test_tokens_come_back_as_tokens_of_their_class() -> None:
    for spec in record_kinds().values():
        back: Any = from_map(to_map(filled(spec)))
        for field in spec.fields:
            if field.token is not None:
                value = getattr(back, field.name)
                assert type(value[0] if field.shape == "list" else value) is field.token


def test_a_readers_name_may_be_new_but_never_unprintable() -> None:
    group = to_map(filled(record_kinds()["thread_group"]))
    newer: Any = from_map({**group, "name": "wider grammar: {yes}"})
    assert newer.name == NameToken("wider grammar: {yes}")
    assert not newer.name.is_well_formed()


def test_an_older_reader_takes_a_word_that_came_later() -> None:
    gap: Any = from_map({**to_map(Gap(1, "regions", "failed")), "reason": "later-reason"})
    assert gap.reason == "later-reason"
