"""Chained migrations: a record's map of an older version becomes one of the next.

A migration takes a map and returns a map; it knows one step only. The reader applies steps until
none is left, so an old case is read by code that knows the newest version alone. Fields are only
ever added, never re-used, so most changes need no migration at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from .errors import Damaged
from .schema import KIND_KEY, VERSION_KEY

Migration = Callable[[dict[str, Any]], dict[str, Any]]

#: (kind, the version it takes) -> step. Empty: no record has had a second version yet.
MIGRATIONS: dict[tuple[str, int], Migration] = {}

_MAX_STEPS = 64


def migrate(
    raw: dict[str, Any], migrations: Mapping[tuple[str, int], Migration] = MIGRATIONS
) -> dict[str, Any]:
    """The map after every step that applies to it.

    Raises Damaged where a step cannot take the map: what it holds is not what its version says.
    """
    for _ in range(_MAX_STEPS):
        kind, version = raw.get(KIND_KEY), raw.get(VERSION_KEY)
        if not (isinstance(kind, str) and type(version) is int):
            return raw  # `from_map` says what is wrong with it.
        step = migrations.get((kind, version))
        if step is None:
            return raw
        try:
            raw = step(dict(raw))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise Damaged(f"a record of kind {kind} does not fit its version") from error
    raise Damaged("a record's migrations do not come to an end")
