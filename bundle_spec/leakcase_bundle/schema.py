"""How a record class becomes a flat map, and back.

A record is a frozen dataclass decorated with `@record`. Its fields are integers, booleans, bytes,
words of a closed vocabulary, tokens (`leakcase_bundle.strings`), or lists of those; nothing else,
so a case holds no free text, no floats and no nesting. `column()` marks a list of integers that
travels as differences, which is what makes a day of samples small.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from array import array
from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

from .errors import Damaged, SpecViolation
from .strings import MAX_TOKEN_LENGTH, Token
from .vocabulary import VOCABULARIES, WORD_PATTERN, is_word

#: The reserved keys of every record's map.
KIND_KEY = "record"
VERSION_KEY = "record_version"
#: The column that every series has: when each of its samples was taken.
TIME_COLUMN = "taken_ns"

_KIND_PATTERN = re.compile(r"[a-z][a-z0-9_.]{0,47}\Z")
#: Integers are signed and of 64 bits: what a column of numpy or of a database can hold.
INT_MIN = -(1 << 63)
INT_MAX = (1 << 63) - 1
_COLUMN_TYPES = frozenset((int, type(None)))

R = TypeVar("R")

if TYPE_CHECKING:
    from typing import dataclass_transform
else:
    # Python 3.11; only type checkers look at it.
    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        return lambda decorator: decorator


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """One field of a record, as the format sees it.

    `scalar` is ``int``, ``bool``, ``bytes``, ``word`` or a token's field class. `shape` is
    ``one``, ``list`` or ``column``.
    """

    name: str
    scalar: str
    shape: str
    optional: bool
    vocabulary: Optional[str]
    token: Optional[type[Token]]
    meaning: str


@dataclasses.dataclass(frozen=True)
class RecordSpec:
    """A kind of record: its name in the file, its version, its class and its fields.

    A series is a record of columns only; the first is `taken_ns`.
    """

    kind: str
    version: int
    cls: type[Any]
    fields: tuple[FieldSpec, ...]
    meaning: str
    is_series: bool


_SPECS: dict[str, RecordSpec] = {}
_KINDS: dict[type, RecordSpec] = {}


def word(vocabulary: str, meaning: str = "", **options: Any) -> Any:
    """A field that holds one word (or a list of words) of `vocabulary`."""
    assert vocabulary in VOCABULARIES, vocabulary
    return dataclasses.field(metadata={"vocabulary": vocabulary, "meaning": meaning}, **options)


def says(meaning: str, **options: Any) -> Any:
    """A plain field with its meaning."""
    return dataclasses.field(metadata={"meaning": meaning}, **options)


def column(meaning: str = "") -> Any:
    """A list of integers, one per sample of its record, stored as differences; nil is unknown."""
    return dataclasses.field(metadata={"shape": "column", "meaning": meaning}, default=None)


# `column` is left out on purpose: to a checker its call is then a default, which it is.
@dataclass_transform(frozen_default=True, field_specifiers=(word, says))
def record(kind: str, version: int = 1) -> Callable[[type[R]], type[R]]:
    """Register a frozen dataclass as the record `kind`."""
    assert _KIND_PATTERN.match(kind) and kind not in _SPECS, kind

    def register(cls: type[R]) -> type[R]:
        made = dataclasses.dataclass(frozen=True)(cls)
        hints = typing.get_type_hints(made)
        fields = tuple(_field_spec(f, hints[f.name]) for f in dataclasses.fields(made))  # type: ignore[arg-type]
        assert not {KIND_KEY, VERSION_KEY} & {f.name for f in fields}, kind
        is_series = any(f.shape == "column" for f in fields)
        if is_series:
            assert fields[0].name == TIME_COLUMN and {f.shape for f in fields} == {"column"}, kind
        meaning = inspect.cleandoc(made.__doc__ or "")
        spec = RecordSpec(kind, version, made, fields, meaning, is_series)
        _SPECS[kind] = _KINDS[made] = spec
        return made

    return register


def record_kinds() -> dict[str, RecordSpec]:
    """All registered kinds by name, in the order of their declaration."""
    return dict(_SPECS)


def spec_of_kind(kind: str) -> Optional[RecordSpec]:
    """The spec of a kind's name, or None where it is not known."""
    return _SPECS.get(kind)


def spec_of(cls_or_record: Any) -> RecordSpec:
    """The spec of a record or of its class."""
    cls = cls_or_record if isinstance(cls_or_record, type) else type(cls_or_record)
    try:
        return _KINDS[cls]
    except KeyError:
        raise SpecViolation(f"{cls.__name__} is not a record: declare it with @record") from None


def _field_spec(field: dataclasses.Field[Any], hint: Any) -> FieldSpec:
    inner, optional = _strip_optional(hint)
    shape = field.metadata.get("shape", "one")
    if typing.get_origin(inner) is list:
        inner, may_be_nil = _strip_optional(typing.get_args(inner)[0])
        shape = "list" if shape == "one" else shape
        assert may_be_nil == (shape == "column"), field.name
    vocabulary = field.metadata.get("vocabulary")
    token = inner if isinstance(inner, type) and issubclass(inner, Token) else None
    if vocabulary is not None:
        assert inner is str, field.name
        scalar = "word"
    elif token is not None:
        scalar = token.field_class
    else:
        # A plain `str` here would be free text: the format has none.
        assert inner in (int, bool, bytes), (field.name, inner)
        scalar = inner.__name__
    return FieldSpec(
        field.name, scalar, shape, optional, vocabulary, token, field.metadata.get("meaning", "")
    )


def _strip_optional(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) is Union:
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        assert len(inner) == 1, hint
        return inner[0], True
    return hint, False


# --- writing ------------------------------------------------------------------------------------


def to_map(item: Any) -> dict[str, Any]:
    """The flat map of a record, checked against its spec; unknown (None) fields are left out.

    Raises SpecViolation where a value is not what its field declares.
    """
    spec = spec_of(item)
    out: dict[str, Any] = {KIND_KEY: spec.kind, VERSION_KEY: spec.version}
    samples = _samples(spec, item) if spec.is_series else 0
    for field in spec.fields:
        value = getattr(item, field.name)
        if value is None:
            if not field.optional:
                raise SpecViolation(f"{spec.kind}.{field.name} must not be absent")
        elif field.shape == "one":
            if not _may_be_written(field, value):
                raise _refusal(spec, field, value)
            out[field.name] = value
        elif type(value) is not list:
            raise _refusal(spec, field, value)
        elif field.shape == "list":
            out[field.name] = _checked_list(spec, field, value)
        else:
            out[field.name] = _checked_column(spec, field, value, samples)
    return out


def _samples(spec: RecordSpec, item: Any) -> int:
    times = getattr(item, TIME_COLUMN)
    if not times or None in times:
        raise SpecViolation(f"{spec.kind}.{TIME_COLUMN} must hold a time for every sample")
    return len(times)


def _checked_list(spec: RecordSpec, field: FieldSpec, values: list[Any]) -> list[Any]:
    for value in values:
        if not _may_be_written(field, value):
            raise _refusal(spec, field, value)
    if field.token is not None and not field.token.may_stand_together(values):
        raise SpecViolation(f"{spec.kind}.{field.name} refuses a value for its place in the list")
    return list(values)


def _checked_column(
    spec: RecordSpec, field: FieldSpec, values: list[Any], samples: int
) -> list[Optional[int]]:
    if len(values) != samples:
        raise SpecViolation(
            f"{spec.kind}.{field.name} holds {len(values)} values for {samples} samples"
        )
    for value in values:
        if type(value) not in _COLUMN_TYPES:
            raise _refusal(spec, field, value)
    differences = deltas(values)
    if not (_all_fit(values) and _all_fit(differences)):
        raise SpecViolation(f"{spec.kind}.{field.name} goes or jumps beyond 64 bits")
    return differences


def _all_fit(values: list[Optional[int]]) -> bool:
    try:
        array("q", [value for value in values if value is not None])
    except OverflowError:
        return False
    return True


def _may_be_written(field: FieldSpec, value: Any) -> bool:
    if field.token is not None:
        return isinstance(value, field.token) and value.is_well_formed()
    if field.vocabulary is not None:
        return isinstance(value, str) and is_word(field.vocabulary, value)
    if field.scalar == "int":
        return type(value) is int and INT_MIN <= value <= INT_MAX
    if field.scalar == "bool":
        return type(value) is bool
    return type(value) is bytes and len(value) <= MAX_TOKEN_LENGTH


def _refusal(spec: RecordSpec, field: FieldSpec, value: Any) -> SpecViolation:
    # The value itself may be a secret that redaction missed: never put it in the message.
    return SpecViolation(
        f"{spec.kind}.{field.name} refuses a value of type {type(value).__name__}: "
        f"the field's class is {field.vocabulary or field.scalar}"
    )


def deltas(values: list[Optional[int]]) -> list[Optional[int]]:
    """Each value less the last known one before it (the first less 0); None stays None."""
    out: list[Optional[int]] = []
    last = 0
    for value in values:
        if value is None:
            out.append(None)
        else:
            out.append(value - last)
            last = value
    return out


def undo_deltas(values: list[Optional[int]]) -> list[Optional[int]]:
    """The inverse of `deltas`. Raises Damaged where a sum leaves the range of integers."""
    try:
        sums: list[Optional[int]] = list(accumulate(values))
        array("q", sums)  # type: ignore[type-var]  # the fastest check of a range that there is
        return sums
    except OverflowError as error:
        raise Damaged("a column leaves the range of integers") from error
    except TypeError:  # nil in it, which is rare
        rest = iter(undo_deltas([value for value in values if value is not None]))
        return [None if value is None else next(rest) for value in values]


# --- reading ------------------------------------------------------------------------------------


def from_map(raw: Mapping[str, Any]) -> Optional[Any]:
    """The record of a map, or None where its kind, or its version of it, is not known yet.

    Unknown fields are ignored. Raises Damaged where a known field holds something else than its
    spec says.
    """
    kind = raw.get(KIND_KEY)
    version = raw.get(VERSION_KEY)
    if not (isinstance(kind, str) and _KIND_PATTERN.match(kind) and type(version) is int):
        raise Damaged("a record has no kind or no version")
    spec = _SPECS.get(kind)
    if spec is None or version > spec.version:
        return None
    if version < spec.version:
        raise Damaged(f"a record of kind {kind} has a version that never was")
    values: dict[str, Any] = {}
    for field in spec.fields:
        value = raw.get(field.name)
        if value is not None:
            value = _read_value(kind, field, value)
        elif not field.optional:
            raise Damaged(f"{kind}.{field.name} is missing")
        values[field.name] = value
    if spec.is_series:
        times = values[TIME_COLUMN]
        if not times or None in times:
            raise Damaged(f"{kind}.{TIME_COLUMN} lacks the time of a sample")
        if any(v is not None and len(v) != len(times) for v in values.values()):
            raise Damaged(f"the columns of a {kind} record differ in length")
    return spec.cls(**values)


def _read_value(kind: str, field: FieldSpec, value: Any) -> Any:
    if field.shape == "one":
        return _read_scalar(kind, field, value)
    if type(value) is not list:
        raise Damaged(f"{kind}.{field.name} is not a list")
    if field.shape == "column":
        if not _COLUMN_TYPES.issuperset(map(type, value)):
            raise Damaged(f"{kind}.{field.name} holds something else than integers")
        return undo_deltas(value)
    return [_read_scalar(kind, field, element) for element in value]


def _read_scalar(kind: str, field: FieldSpec, value: Any) -> Any:
    if field.token is not None:
        # Grammar is not enforced on reading (a newer minor format may widen it), but control
        # characters are never passed on to a terminal or a page.
        if isinstance(value, str) and len(value) <= MAX_TOKEN_LENGTH and value.isprintable():
            return field.token(value)
    elif field.vocabulary is not None:
        if isinstance(value, str) and WORD_PATTERN.match(value):
            return value
    elif field.scalar == "int":
        if type(value) is int and INT_MIN <= value <= INT_MAX:
            return value
    elif field.scalar == "bool":
        if type(value) is bool:
            return value
    elif type(value) is bytes and len(value) <= MAX_TOKEN_LENGTH:
        return value
    raise Damaged(f"{kind}.{field.name} holds something else than its class allows")
