"""Records as plain values for JSON, and the strings that they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .schema import KIND_KEY, TIME_COLUMN, VERSION_KEY, spec_of, spec_of_kind

#: What stands for the class of a string in a field or record that this version does not know.
UNKNOWN_CLASS = "unknown"


class FoundString(NamedTuple):
    """One string of a case: its field class (`word` for vocabularies), itself, and its place."""

    field_class: str
    text: str
    place: str


def plain(raw: dict[str, Any]) -> dict[str, Any]:
    """A map with what JSON knows: binaries become hexadecimal."""
    return {key: _plain_value(value) for key, value in raw.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain_value(element) for element in value]
    return value


def rows(record: Any) -> Iterator[dict[str, Any]]:
    """A record as one map, a series as one map per sample; what is not known is left out."""
    spec = spec_of(record)
    if not spec.is_series:
        values = ((field.name, getattr(record, field.name)) for field in spec.fields)
        yield {
            KIND_KEY: spec.kind,
            **{name: _plain_value(value) for name, value in values if value is not None},
        }
        return
    columns = [(field.name, getattr(record, field.name)) for field in spec.fields]
    known = [(name, column) for name, column in columns if column is not None]
    for sample in range(len(getattr(record, TIME_COLUMN))):
        row: dict[str, Any] = {KIND_KEY: spec.kind}
        for name, column in known:
            if column[sample] is not None:
                row[name] = column[sample]
        yield row


def strings(raw: dict[str, Any]) -> Iterator[FoundString]:
    """Every string in a record's map; names that this version does not know are strings too.

    Binaries are listed as hexadecimal. Nothing is escaped: the case may be hostile.
    """
    kind = raw.get(KIND_KEY)
    spec = spec_of_kind(kind) if isinstance(kind, str) else None
    fields = {} if spec is None else {field.name: field for field in spec.fields}
    for key, value in raw.items():
        if key == KIND_KEY and spec is not None:
            continue
        field = fields.get(key)
        if field is None and key not in (KIND_KEY, VERSION_KEY):
            yield FoundString(UNKNOWN_CLASS, key, f"{kind} (a field's name)")
        field_class = UNKNOWN_CLASS if field is None else field.scalar
        for element in value if isinstance(value, list) else (value,):
            if isinstance(element, str):
                yield FoundString(field_class, element, f"{kind}.{key}")
            elif isinstance(element, bytes):
                yield FoundString("bytes", element.hex(), f"{kind}.{key}")
