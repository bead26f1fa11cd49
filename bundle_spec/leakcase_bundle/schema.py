"""How a record class becomes a flat map, and back.

A record is a frozen dataclass decorated with `@record`. Its fields are integers, booleans, bytes,
words of a closed vocabulary, tokens (`leakcase_bundle.strings`), or lists of those; nothing else,
so a case holds no free text, no floats and no nesting. `column()` marks a list of integers that
travels as differences, which is what makes a day of samples small.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

from .errors import Damaged, SpecViolation
from .strings import MAX_TOKEN_LENGTH, Token
from .vocabulary import VOCABULARIES, WORD_PATTERN, is_word

#: The reserved keys of every record's map.
KIND_KEY = "record"
VERSION_KEY = "version"

_KIND_PATTERN = re.compile(r"[a-z][a-z0-9_.]{0,47}\Z")
_INT_LIMIT = 1 << 63

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
    """A kind of record: its name in the file, its version, its class and its fields."""

    kind: str
    version: int
    cls: type[Any]
    fields: tuple[FieldSpec, ...]
    meaning: str


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
        meaning = (made.__doc__ or "").strip()
        spec = RecordSpec(kind, version, made, fields, meaning)
        _SPECS[kind] = _KINDS[made] = spec
        return made

    return register


def record_kinds() -> dict[str, RecordSpec]:
    """All registered kinds by name, in the order of their declaration."""
    return dict(_SPECS)


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
    if typing.get_origin(inner) in (list, list):
        inner, _ = _strip_optional(typing.get_args(inner)[0])
        shape = "list" if shape == "one" else shape
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
    for field in spec.fields:
        value = getattr(item, field.name)
        if value is None:
            if not (field.optional or field.shape == "column"):
                raise SpecViolation(f"{spec.kind}.{field.name} must not be absent")
            continue
        if field.shape == "one":
            _check_scalar(spec, field, value)
            out[field.name] = value
        else:
            for element in value:
                if element is not None:
                    _check_scalar(spec, field, element)
            out[field.name] = deltas(value) if field.shape == "column" else list(value)
    return out


def _check_scalar(spec: RecordSpec, field: FieldSpec, value: Any) -> None:
    if field.token is not None:
        good = isinstance(value, field.token) and value.is_well_formed()
    elif field.vocabulary is not None:
        good = isinstance(value, str) and is_word(field.vocabulary, value)
    elif field.scalar == "int":
        good = type(value) is int and -_INT_LIMIT <= value < _INT_LIMIT
    elif field.scalar == "bool":
        good = type(value) is bool
    else:
        good = type(value) is bytes and len(value) <= MAX_TOKEN_LENGTH
    if not good:
        # The value itself may be a secret that redaction missed: never put it in the message.
        raise SpecViolation(
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
    """The inverse of `deltas`."""
    if None not in values:
        return list(accumulate(typing.cast(list[int], values)))
    out: list[Optional[int]] = []
    last = 0
    for value in values:
        if value is None:
            out.append(None)
        else:
            last += value
            out.append(last)
    return out


# --- reading ------------------------------------------------------------------------------------


def from_map(raw: Mapping[str, Any]) -> Optional[Any]:
    """The record of a map, or None where its kind is unknown; unknown fields are ignored.

    Raises Damaged where a known field holds something else than its spec says.
    """
    kind = raw.get(KIND_KEY)
    version = raw.get(VERSION_KEY)
    if not (isinstance(kind, str) and _KIND_PATTERN.match(kind) and type(version) is int):
        raise Damaged("a record has no kind or no version")
    spec = _SPECS.get(kind)
    if spec is None:
        return None
    values: dict[str, Any] = {}
    length: Optional[int] = None
    for field in spec.fields:
        value = raw.get(field.name)
        if value is None:
            if not (field.optional or field.shape == "column"):
                raise Damaged(f"{kind}.{field.name} is missing")
            values[field.name] = None
            continue
        values[field.name] = _read_value(kind, field, value)
        if field.shape == "column":
            if length not in (None, len(value)):
                raise Damaged(f"the columns of a {kind} record differ in length")
            length = len(value)
    return spec.cls(**values)


def _read_value(kind: str, field: FieldSpec, value: Any) -> Any:
    if field.shape == "one":
        return _read_scalar(kind, field, value)
    if not isinstance(value, list):
        raise Damaged(f"{kind}.{field.name} is not a list")
    if field.shape == "column":
        if not all(v is None or (type(v) is int) for v in value):
            raise Damaged(f"{kind}.{field.name} holds something else than integers")
        return undo_deltas(value)
    return [None if v is None else _read_scalar(kind, field, v) for v in value]


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
        if type(value) is int:
            return value
    elif field.scalar == "bool":
        if type(value) is bool:
            return value
    elif type(value) is bytes and len(value) <= MAX_TOKEN_LENGTH:
        return value
    raise Damaged(f"{kind}.{field.name} holds something else than its class allows")
